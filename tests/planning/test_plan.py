"""Plans: compiled for CPU devices always, and for TPUs that are not there where libtpu is."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    AlgorithmConfig,
    AvailabilityConfig,
    ExperimentConfig,
    ModelConfig,
    RuntimeConfig,
)
from semanticfl_jax.data.sources import load_dataset
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.errors import MissingDependencyError, SemanticFLError
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.models.client_conv import LOWERINGS
from semanticfl_jax.planning import hlo
from semanticfl_jax.planning import plan as plans
from semanticfl_jax.planning.chips import CHIPS
from semanticfl_jax.planning.floors import find_floors
from semanticfl_jax.planning.gpus import GPUS, target_config
from semanticfl_jax.planning.images import KNOWN, Images, images_of, images_of_a_client
from semanticfl_jax.planning.plan import Compiled, make_plan
from semanticfl_jax.planning.report import table, values
from semanticfl_jax.planning.shapes import make_shapes
from semanticfl_jax.planning.steps import compile_step
from semanticfl_jax.planning.topology import Topology, cpu_devices, make_topology
from semanticfl_jax.registry import ALGORITHMS
from tests.planning.accelerators import ACCELERATORS

IMAGES = Images(train=64, test=16, side=8, classes=4)
CONFIG = ExperimentConfig(
    num_clients=16,
    clients_per_round=4,
    local_epochs=2,
    batch_size=2,
    public_per_class=0,
    augmentation=(),
    model=ModelConfig(name="cnn"),
    runtime=RuntimeConfig(eval_batch_size=4),
)
HLO = """\
%body.1 (p: (f32[4,2])) -> (f32[4,2]) {
  %p.1 = (f32[4,2]{1,0}) parameter(0)
  %x.1 = f32[4,2]{1,0} collective-permute(%y), source_target_pairs={{0,1},{1,0}}
}
ENTRY %main.9 (a: f32[8]) -> f32[8] {
  %w.2 = (f32[4,2]{1,0}) while(%t), condition=%cond.1, body=%body.1
  %r.3 = (f32[8]{0}, s32[3]{0}) all-reduce(%a, %b), to_apply=%add
  %g.4 = (bf16[2]{0}, bf16[8]{0}) all-gather-start(%c), dimensions={0}
  ROOT %d.5 = bf16[8]{0} all-gather-done(%g.4)
}
"""


def test_collectives_are_read_of_a_program():
    assert hlo.collectives_of(HLO) == [
        hlo.Collective("collective-permute", 4 * 2 * 4, True),
        hlo.Collective("all-reduce", 8 * 4 + 3 * 4, False),
        hlo.Collective("all-gather", 8 * 2, False),
    ]


def test_images_in_host_memory_are_planned_as_those_of_a_cohort():
    found = {}
    for memory in ("device", "host"):
        config = CONFIG.with_runtime(data_memory=memory)
        plan = make_plan(
            config, make_topology("cpu:2"), IMAGES, 4, programs=("round",), say=lambda line: None
        )
        found[memory] = plan.programs[0].memory.arguments
    # Two clients a device of four images each, in place of all, and where they begin.
    assert found["device"] - found["host"] == (64 - 2 * 4) * 8 * 8 * 3 - 2 * 2 * 4
    with pytest.raises(SemanticFLError, match="data_memory must be device for a block"):
        make_plan(config, make_topology("cpu:2"), IMAGES, 4, programs=("block",))


def test_room_is_planned_for_the_largest_cohort():
    runtime = dataclasses.replace(CONFIG.runtime, data_memory="host")
    found = {}
    for sampling in ("uniform", "poisson"):
        availability = AvailabilityConfig(sampling=sampling)
        config = dataclasses.replace(CONFIG, runtime=runtime, availability=availability)
        topology, silent = make_topology("cpu:1"), lambda line: None
        plan = make_plan(config, topology, IMAGES, 4, programs=("round",), say=silent)
        places, found[sampling] = cohort_places(config), plan.programs[0].memory.arguments
    # Of each client more four images, who it is, and where they begin.
    more = places - CONFIG.clients_per_round
    assert more > 4 and found["poisson"] - found["uniform"] == more * (4 * 8 * 8 * 3 + 2 * 4)


def gathered(compiled):
    """Bytes that devices gather of one another."""
    return sum(each.bytes for each in compiled.collectives if each.kind == "all-gather")


def test_a_plan_for_cpu_devices():
    plan = make_plan(CONFIG, make_topology("cpu:4"), IMAGES, 4, say=lambda line: None)
    round_, evaluation = plan.programs
    assert (round_.program, evaluation.program) == ("round", "evaluation")
    assert round_.failed is None and not round_.host_transfers
    assert set(round_.counted()) <= {"all-reduce", "all-gather"}
    assert gathered(round_) <= 64  # which of a few clients diverged, and no more
    # Images, labels, indices, offsets, sizes and counts, and the model, are held by all devices.
    data = 64 * (8 * 8 * 3 + 4) + 16 * 4 * 4 + 2 * 16 * 4 + 16 * 4 * 4
    assert round_.memory.arguments > data
    assert plan.floors.rounds_per_second is None
    text = "\n".join(table([plan]))
    assert "| cpu:4 | round | canonical | 1 |" in text
    assert values(plan)["compiled"][0]["collectives"] == round_.counted()


def test_a_plan_without_the_compiled_text_tells_memory_alone(monkeypatch):
    def unreadable(compiled):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure\n*** Begin stack trace ***")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", unreadable)
    topology, silent = make_topology("cpu:1"), lambda line: None
    plan = make_plan(CONFIG, topology, IMAGES, 4, programs=["evaluation"], say=silent)
    told = values(plan)["compiled"][0]
    assert told["memory_bytes"]["arguments"] > 0 and told["failed"] is None
    assert told["unread"] == "INTERNAL: RET_CHECK failure"
    assert told["collectives"] is told["collective_bytes"] is told["host_transfers"] is None
    text = "\n".join(table([plan]))
    assert "| not known |" in text and "cannot read what was compiled: INTERNAL" in text


def test_a_gpu_that_cannot_time_products_is_planned_without_those_of_triton(monkeypatch):
    topology = make_topology("cpu:1")
    compiled = jax.jit(lambda x: x + 1).lower(1.0).compile()

    class Lowered:
        def compile(self, options=None):
            if options is None:
                raise jax.errors.JaxRuntimeError("INTERNAL: Couldn't find output tile sizes")
            assert options == {"xla_gpu_enable_triton_gemm": False}
            return compiled

    monkeypatch.setattr(plans, "lower", lambda *arguments: Lowered())
    silent = {"programs": ["evaluation"], "say": lambda line: None}
    on_cpu = make_plan(CONFIG, topology, IMAGES, 4, **silent)
    assert on_cpu.programs[0].failed == "INTERNAL: Couldn't find output tile sizes"
    monkeypatch.setattr(Topology, "platform", "gpu")
    on_gpu = make_plan(CONFIG, topology, IMAGES, 4, **silent)
    assert on_gpu.programs[0].failed is None
    assert "which need a GPU to be timed on: INTERNAL" in "\n".join(table([on_gpu]))
    assert values(on_gpu)["compiled"][0]["untiled"] == "INTERNAL: Couldn't find output tile sizes"


def test_floors_are_those_of_the_algorithm():
    parts = make_shapes(CONFIG, IMAGES)
    one = find_floors(parts, 4, CHIPS["v5e"], 1)
    more = dataclasses.replace(CONFIG, clients_per_round=8)
    twice = find_floors(make_shapes(more, IMAGES), 4, CHIPS["v5e"], 1)
    np.testing.assert_allclose(twice[:4], 2 * np.array(one[:4]))
    spread = find_floors(parts, 4, CHIPS["v5e"], 4)
    assert spread.flops == one.flops
    np.testing.assert_allclose(4 * spread.matrix_seconds, one.matrix_seconds)
    np.testing.assert_allclose(one.matrix_seconds, one.flops / 197e12)


def test_clients_hold_a_share_of_what_there_is_for_all():
    assert images_of_a_client(CONFIG, IMAGES) == 64 // 16
    limited = dataclasses.replace(CONFIG, train_limit=32)
    assert images_of_a_client(limited, IMAGES) == 32 // 16
    many = dataclasses.replace(CONFIG, num_clients=100)
    assert images_of_a_client(many, IMAGES) == 1


def test_digits_are_planned_as_they_are_read():
    dataset = load_dataset("digits", None)
    sizes = (len(dataset.train_images), len(dataset.test_images))
    assert KNOWN["digits"] == (*sizes, dataset.train_images.shape[1], dataset.num_classes)


def test_what_does_not_fit_is_told():
    memory = hlo.Memory(arguments=10, results=5, temporaries=7)
    compiled = Compiled("round", "native", 4, memory=memory)
    assert compiled.fits(22) and not compiled.fits(21)
    assert compiled.fits(None) is None
    assert not Compiled("round", "native", 4, failed="too large").fits(None)


def test_a_plan_is_for_the_devices_that_the_run_takes():
    config = dataclasses.replace(CONFIG, clients_per_round=3)
    silent = {"programs": ["round"], "say": lambda line: None}
    plan = make_plan(config, make_topology("cpu:8"), IMAGES, 4, **silent)
    assert (plan.devices, plan.idle) == (3, 5)
    assert "cpu:8: the run takes 3 of the 8 devices" in table([plan])
    assert values(plan)["compiled"] != []
    alone = make_plan(config, make_topology("cpu:3"), IMAGES, 4, **silent)
    assert plan.floors == alone.floors
    assert plan.programs[0].memory == alone.programs[0].memory


def test_room_is_what_jax_takes_less_the_copy_for_a_checkpoint(monkeypatch):
    scaffold = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name="scaffold"))
    plan = make_plan(
        scaffold, make_topology("cpu:2"), IMAGES, 4, programs=["round"], say=lambda line: None
    )
    (round_,) = plan.programs
    # One model for each of 16 clients, spread over two devices.
    model = make_shapes(scaffold, IMAGES).model_shapes
    assert plan.checkpoint_copy == 16 // 2 * size_in_bytes(model.params)
    needed = round_.memory.total + plan.checkpoint_copy
    roomy, tight = (dataclasses.replace(plan, room=room) for room in (needed, needed - 1))
    assert plan.fits(round_) is None and roomy.fits(round_) and not tight.fits(round_)
    assert (roomy.largest_chunk(), tight.largest_chunk()) == (1, None)
    evaluation = dataclasses.replace(round_, program="evaluation")
    assert tight.fits(evaluation)
    assert values(tight)["compiled"][0]["fits"] is False
    gpu = make_topology("cpu:2")._replace(chip=CHIPS["h100"])
    assert gpu.room == gpu.memory == CHIPS["h100"].memory
    monkeypatch.setattr(Topology, "platform", "gpu")
    assert gpu.room == 0.75 * CHIPS["h100"].memory


def test_wrong_topologies_and_data_sets_are_refused():
    assert cpu_devices("cpu:8") == 8 and cpu_devices("v5e:2x2") is None
    for name, told in (
        ("v5e", "a chip and a shape"),
        ("v9:2x2", "must be one of"),
        ("cpu:99", "JAX_NUM_CPU_DEVICES"),
        ("h100:2x2x2", "HOSTSxEACH"),
    ):
        with pytest.raises(SemanticFLError, match=told):
            make_topology(name)
    with pytest.raises(SemanticFLError, match="--images"):
        images_of(dataclasses.replace(CONFIG, dataset="image_folder", data_dir="x"))


def test_without_a_plugin_for_cuda_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"h100:8 .* 'semanticfl-jax\[plan-gpu\]'"):
        make_topology("h100:8")


def test_a_gpu_is_described_by_its_figures():
    text = target_config("h200")
    for told in ("major: 9", "core_count: 132", "device_memory_size: 151397597184", "NVIDIA H200"):
        assert told in text
    assert set(GPUS) < set(CHIPS)


@pytest.mark.parametrize("name", ACCELERATORS)
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_compiles_for_an_accelerator(algorithm, name):
    config = dataclasses.replace(
        CONFIG, clients_per_round=8, public_per_class=1, algorithm=AlgorithmConfig(name=algorithm)
    )
    if algorithm == "fedbn":  # needs normalisation
        config = dataclasses.replace(config, model=ModelConfig(width=8))
    topology = make_topology(name)
    plan = make_plan(
        config, topology, IMAGES, 4, chunks=[2], programs=["round"], say=lambda line: None
    )
    (round_,) = plan.programs
    assert round_.failed is None
    assert round_.fits(topology.memory)
    assert not round_.host_transfers
    # FedCDA's server compares the models that the cohort keeps, all of which every device holds.
    assert gathered(round_) <= 64 or algorithm == "fedcda"


@pytest.mark.parametrize("name", ACCELERATORS)
@pytest.mark.parametrize("conv", [name for name in LOWERINGS if name != "auto"])
def test_every_lowering_compiles_for_an_accelerator(conv, name):
    """XLA aborted on GPUs where a shortcut's product took every second pixel of a ReLU."""
    config = dataclasses.replace(CONFIG, model=ModelConfig(width=8), batch_size=8)
    for clients in (1, 2):
        step = compile_step(config, make_topology(name), IMAGES, 8, conv, clients)
        assert step.failed is None
