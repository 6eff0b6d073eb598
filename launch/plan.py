r"""Compiles a run for accelerators that are not there: does it fit, what does it exchange and cost?

    python -m launch.plan --config=launch/configs/cifar10.py --topology=v5e:4x4,v5e:8x8 \
        [--chunks=1,4,16] [--lowerings=native,patches] [--json=FILE] [--config.FIELD=VALUE ...]

Topologies are a TPU (v4, v5e, v5p, v6e) and the shape of a slice, for which libtpu compiles without
a TPU (pip install 'semanticfl-jax[plan]'); a GPU (a100, h100, h200, b200) and how many, as h100:8
or, for 4 hosts of 8, h100:4x8, for which JAX's plug-in for CUDA compiles without a GPU
('semanticfl-jax[plan-gpu]'); or cpu:N. Clients are taken to hold equally many images,
and no data set and no weights of a diffusion model are read. With --lowerings, a single step is
compiled with each of them instead. Tables show bytes on each device, collectives, the floors of a
round, and what a client sends and receives: what is *compiled* has not run, and floors are
*reasoned*; neither is a measurement.
"""

from __future__ import annotations

import itertools
import os

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.errors import SemanticFLError

from . import flags


def define() -> None:
    """Define the command's own flags."""
    absl_flags.DEFINE_list("topology", ["v5e:2x2"], "Slices, as v5e:4x4, h100:8 or cpu:8.")
    absl_flags.DEFINE_list("chunks", [], "Clients side by side; by default what a run would take.")
    absl_flags.DEFINE_list(
        "programs",
        [],
        "Of round, block, evaluation, first_contact (clients compute the student's targets), "
        "distillation (a step of the student's training) and features (the diffusion model's pass "
        "over a batch of images); by default all that the run has but block and features.",
    )
    absl_flags.DEFINE_list("lowerings", [], "Compile single steps with these, not programs.")
    absl_flags.DEFINE_list("images", [], "TRAIN,TEST,SIDE,CLASSES of a data set of your own.")
    absl_flags.DEFINE_integer(
        "client_images", None, "Images of each client; by default its share.", lower_bound=1
    )
    flags.define_path("json", "File to write the plan to.")


def main(config: ExperimentConfig, workdir: str | None) -> None:
    """Print the plan of a run."""
    del workdir
    given = absl_flags.FLAGS
    # Programs are compiled for other devices; this process must not take those that it has.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from semanticfl_jax.devices.cpu_threads import least_threads
    from semanticfl_jax.planning.topology import cpu_devices, make_topology

    wanted = max((cpu_devices(name) or 0 for name in given.topology), default=0)
    if wanted:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(wanted)
        os.environ["PJRT_NPROC"] = str(least_threads(wanted))
    import jax

    from semanticfl_jax.files import write_json
    from semanticfl_jax.planning.images import Images, images_of, images_of_a_client
    from semanticfl_jax.planning.plan import make_plan
    from semanticfl_jax.planning.programs import PROGRAMS
    from semanticfl_jax.planning.report import table, values
    from semanticfl_jax.planning.steps import compile_step
    from semanticfl_jax.planning.steps import table as steps_table

    jax.config.update("jax_platforms", "cpu")
    # What was compiled for a TPU cannot be read back where there is none.
    jax.config.update("jax_enable_compilation_cache", False)
    if wanted:
        jax.config.update("jax_num_cpu_devices", wanted)
    images = Images(*_whole("images", 4)) if given.images else images_of(config)
    each = given.client_images or images_of_a_client(config, images)
    chunks = _whole("chunks")
    for program in given.programs:
        if program not in PROGRAMS:
            raise ConfigError(f"--programs must be of {', '.join(PROGRAMS)}, got {program!r}")
    plans, found = [], []
    for name in given.topology:
        topology = make_topology(name)
        if given.lowerings:
            asked = itertools.product(given.lowerings, chunks or [1, 4])
            steps = [compile_step(config, topology, images, each, *one) for one in asked]
            print(f"{name}, {config.model.name} of width {config.model.width}")
            print("\n".join(steps_table(steps)))
            found += [{"topology": name, **step._asdict()} for step in steps]
            continue
        plan = make_plan(config, topology, images, each, chunks=chunks, programs=given.programs)
        plans.append(plan)
        found.append(values(plan))
    if plans:
        print("\n".join(table(plans)))
    if given.json:
        write_json(given.json, found)


def _whole(name: str, count: int | None = None) -> list[int]:
    """Return the whole numbers of a list flag."""
    found = absl_flags.FLAGS[name].value
    if not all(word.isdecimal() and int(word) for word in found):
        raise SemanticFLError(f"--{name} must be whole numbers of at least 1, got {found}")
    if count is not None and len(found) != count:
        raise SemanticFLError(f"--{name} must be {count} numbers, got {len(found)}")
    return [int(word) for word in found]


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="cifar10", define=define, writes=False)
