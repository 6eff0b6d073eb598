"""Loggers with the real libraries, offline: the tracker has what the run logged."""

import json
import types

import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import from_dict, to_dict
from semanticfl_jax.config.loggers import MlflowConfig, TensorBoardConfig, WandbConfig
from semanticfl_jax.contexts import LoggerContext
from semanticfl_jax.registry import LOGGERS
from semanticfl_jax.simulation.callbacks import Step
from semanticfl_jax.simulation.loggers import make_loggers
from semanticfl_jax.simulation.loggers.base import Logger, numbers
from tests.api.runs import CONFIG, HALVES
from tests.own_vit import ViT, confidence_penalty, stripes

ROW = {
    "train_loss": 0.5,
    "test_loss": None,
    "private": False,
    "class_accuracy": [1.0, None],
    "test_accuracy": 0.75,
}


def simulation(config=None, done=0, said=None):
    """What loggers read of a `Simulation`."""
    dataset = types.SimpleNamespace(class_names=("cat", "dog"))
    return types.SimpleNamespace(
        config=config or sfl.ExperimentConfig(),
        round=done,
        say=(said if said is not None else []).append,
        federation=types.SimpleNamespace(dataset=dataset),
        summary=lambda: {"rounds": 2, "final_accuracy": 0.75, "device": "cpu"},
    )


def follow(logger, rounds, done=0, end=True):
    """Call a logger as a run does."""
    run = simulation(done=done)
    logger.on_start(run)
    for number in rounds:
        logger.on_round(run, Step(number, {"round": number, **ROW, "train_loss": 1 / number}))
    if end:
        logger.on_end(run)
    logger.close()


def test_rows_become_flat_numbers():
    assert numbers({"round": 3, **ROW, "partition": {"gini": 0.1}}, ("cat", "dog")) == {
        "train_loss": 0.5,
        "class_accuracy/cat": 1.0,
        "test_accuracy": 0.75,
        "partition/gini": 0.1,
    }


def test_clients_that_are_as_many_as_classes_get_no_class_names():
    row = {"client_accuracy": [0.5, 0.25], "diverged_clients": [0, 1], "class_accuracy": [1.0, 0.5]}
    assert set(numbers(row, ("cat", "dog"))) == {"class_accuracy/cat", "class_accuracy/dog"}


def test_loggers_are_chosen_by_name_with_settings_and_decide_no_results(tmp_path):
    runtime = {"loggers": ["tensorboard"], "tensorboard": {"directory": str(tmp_path)}}
    config = from_dict(sfl.ExperimentConfig, {"runtime": runtime})
    assert config.runtime.settings == {"tensorboard": TensorBoardConfig(str(tmp_path))}
    assert to_dict(config)["runtime"]["tensorboard"] == {"directory": str(tmp_path)}
    assert to_dict(config)["runtime"]["loggers"] == ["tensorboard"]
    assert to_dict(sfl.ExperimentConfig())["runtime"]["loggers"] == []
    with pytest.raises(sfl.ConfigError, match=r"loggers must .*tensorboard, wandb, mlflow"):
        sfl.RuntimeConfig(loggers=("tensorbored",))
    with pytest.raises(sfl.ConfigError, match=r"runtime\.wandb\.project is set, but"):
        from_dict(sfl.ExperimentConfig, {"runtime": {"wandb": {"project": "mine"}}})
    # The directory of a run may go on with other loggers.
    from semanticfl_jax.simulation import workdir

    workdir.claim(tmp_path / "run", sfl.ExperimentConfig(), {})
    workdir.check(tmp_path / "run", config)


def test_a_failing_tracker_is_one_warning_and_the_run_goes_on():
    class Failing(Logger):
        def start(self, run):
            pass

        def log(self, round, values):
            raise ConnectionError(f"server is away in round {round}")

        def finish(self, summary):
            raise AssertionError("is not called any more")

    said = []
    logger, run = Failing("mine"), simulation(said=said)
    logger.on_start(run)
    for number in (1, 2):
        logger.on_round(run, Step(number, {"round": number}))
    logger.on_end(run)
    logger.close()
    (line,) = said
    assert line.startswith("warning: mine gets no more figures") and "away in round 1" in line


def test_a_tracker_that_cannot_start_stops_the_run_before_it_trains():
    class Unreachable(Logger):
        def start(self, run):
            raise ConnectionError("no server")

    with pytest.raises(sfl.SemanticFLError, match=r"logger mine cannot start .*no server"):
        Unreachable("mine").on_start(simulation())


def test_a_logger_of_ones_own_is_a_callback():
    told = []

    class Mine(sfl.Callback):
        def on_round(self, simulation, step):
            told.append(step.round)

    sfl.register_logger("my_tracker", lambda settings, context: Mine())
    try:
        config = sfl.ExperimentConfig(runtime=sfl.RuntimeConfig(loggers=("my_tracker",)))
        (logger,) = make_loggers(config, None)
        logger.on_round(None, Step(1, {}))
    finally:
        del LOGGERS._entries["my_tracker"]
    assert told == [1]


def test_tensorboard_has_a_runs_scalars_and_those_of_a_resumed_one(tmp_path):
    pytest.importorskip("tensorboardX")
    with_logger = sfl.RuntimeConfig(num_devices=1, loggers=("tensorboard",))
    given = {
        "dataset": stripes(),
        "partition": HALVES,
        "model": ViT(2),
        "algorithm": confidence_penalty(0.1, 0.5),
        "progress": False,
        "say": None,
    }
    config = sfl.ExperimentConfig(**{**vars(CONFIG), "runtime": with_logger})
    with sfl.Simulation(config, workdir=tmp_path, **given) as first:
        first.run(2)
    result = sfl.run(config, workdir=tmp_path, **given)
    found, purged = read_events(tmp_path / "tensorboard")
    for name in ("train_loss", "test_accuracy", "ece"):
        expected = {row["round"]: row[name] for row in result.history}
        assert found[name] == pytest.approx(expected, rel=1e-6)
    assert purged == [3]
    names = stripes().class_names
    assert found[f"class_accuracy/{names[0]}"][3] == pytest.approx(
        result.history[-1]["class_accuracy"][0]
    )


def read_events(directory):
    """Scalars by tag and step, and the steps from which a resumed run hides older ones."""
    from tensorboardX.event_file_writer import EventsWriter  # noqa: F401 - the library is there
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found, purged = {}, []
    for path in sorted(directory.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            # A record: length, its checksum, the event, its checksum.
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status == SessionLog.START and event.step:
                purged.append(event.step)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found, purged


def test_tensorboard_without_a_directory_is_refused():
    pytest.importorskip("tensorboardX")
    config = sfl.ExperimentConfig(runtime=sfl.RuntimeConfig(loggers=("tensorboard",)))
    with pytest.raises(sfl.ConfigError, match=r"runtime\.tensorboard\.directory must be set"):
        make_loggers(config, None)


def test_wandb_keeps_a_run_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    context = LoggerContext(sfl.ExperimentConfig(), tmp_path)
    logger = LOGGERS["wandb"].build(WandbConfig(project="p", mode="offline"), context)
    follow(logger, (1, 2))
    number = json.loads((tmp_path / "wandb.json").read_text())["id"]
    (path,) = tmp_path.glob(f"wandb/offline-run-*-{number}/run-{number}.wandb")
    rows, summary, config = read_wandb(path)
    assert [(row["round"], row["train_loss"]) for row in rows] == [(1, 1.0), (2, 0.5)]
    assert rows[0]["class_accuracy/cat"] == 1.0 and summary["final_accuracy"] == 0.75
    assert config["dataset"] == "cifar10" and wandb.run is None
    # What goes on is the same run.
    follow(LOGGERS["wandb"].build(WandbConfig(project="p", mode="offline"), context), (3,), done=2)
    assert json.loads((tmp_path / "wandb.json").read_text())["id"] == number


def wandb_records(data):
    """Records of a log as LevelDB has it: blocks of 32 KiB, pieces with a header of 7 bytes."""
    place, record = 7, b""  # the file's own header
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        kind, place = data[place + 6], place + 7
        record += data[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_wandb(path):
    """Rows, summary and configuration in a file of an offline run."""
    from wandb.proto import wandb_internal_pb2

    rows, summary, config = [], {}, {}
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            )
        elif record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                key = item.key or "/".join(item.nested_key)
                summary[key] = json.loads(item.value_json)
        elif record.WhichOneof("record_type") == "run":
            config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
    return rows, summary, config


def test_mlflow_has_metrics_parameters_and_summary_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    # Its store in files needs no database; a server is what users have.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings = MlflowConfig(experiment="e", tracking_uri=f"file://{tmp_path / 'store'}")
    context = LoggerContext(sfl.ExperimentConfig(), tmp_path)
    build = LOGGERS["mlflow"].build
    follow(build(settings, context), (1, 2), end=False)
    client = mlflow.MlflowClient(tracking_uri=settings.tracking_uri)
    number = json.loads((tmp_path / "mlflow.json").read_text())["id"]
    assert client.get_run(number).info.status == "KILLED"
    follow(build(settings, context), (3,), done=2)
    run = client.get_run(number)
    assert run.info.status == "FINISHED" and run.data.params["algorithm.name"] == "fedavg"
    assert run.data.metrics["summary/final_accuracy"] == 0.75
    history = client.get_metric_history(number, "train_loss")
    assert [(each.step, each.value) for each in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    experiment = client.get_experiment_by_name("e")
    assert len(client.search_runs([experiment.experiment_id])) == 1
