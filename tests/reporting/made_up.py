"""Made-up runs, as directories that a comparison reads."""

from semanticfl_jax.files import write_json
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.writers import metrics

MSE = Metric("test_mse", higher=False)
ACCURACIES = {
    ("fedavg", 0): [0.2, 0.8, 0.6],
    ("fedavg", 1): [0.3, 0.6, 0.5],
    ("fedavg", 2): [0.1, 0.7, 0.9],
    ("semanticfl", 0): [0.3, 0.9, 0.8],
    ("semanticfl", 1): [0.4, 0.6, 0.7],
    ("semanticfl", 2): [0.2, 0.9, 0.9],
}


def made_up_config(name="fedavg", seed=0, anchors="semantic", guided=None, **fields):
    guided = name == "semanticfl" if guided is None else guided
    config = {
        "dataset": "digits",
        "data_dir": None,
        "seed": seed,
        "rounds": 3,
        "model": {"name": "cnn", "width": 8},
        "algorithm": {"name": name},
        "guidance": {"enabled": guided, "anchors": anchors},
    }
    return config | fields


def write_run(directory, config, values=(0.1, 0.2, 0.3), metric=ACCURACY):
    directory.mkdir(parents=True)
    with metrics.MetricsWriter(directory) as writer:
        for number, value in enumerate(values, start=1):
            row = {"round": number, metric.name: value, "seconds": 2.0}
            writer.write(row | {"bytes_up": 1_000_000, "bytes_down": 3_000_000})
    write_json(directory / "config.json", config)
    summary = metrics.summarize(metrics.read_metrics(directory), metric=metric)
    if metric != ACCURACY:
        summary |= {"metric": metric.name, "higher_is_better": metric.higher}
    write_json(directory / "summary.json", summary)
    return directory


def made_up_rows(accuracies, every=1):
    rows = [{"round": r, "train_loss": 1 / r} for r in range(1, len(accuracies) * every + 1)]
    for index, accuracy in enumerate(accuracies):
        rows[(index + 1) * every - 1] |= {"test_accuracy": accuracy, "test_loss": 0.5}
    return rows
