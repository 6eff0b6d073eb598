"""How a command learns that it is one of several processes of the same run.

    --distributed                    on Slurm, TPU pods and Open MPI, which say the rest themselves
    --coordinator_address=HOST:PORT --num_processes=N --process_id=I                 anywhere else

HOST:PORT is where process 0 can be reached by the others; all processes get the same one.
"""

import os
import re

from absl import flags as absl_flags

from . import flags

# Under --workdir: compiled programs of a run of several processes.
COMPILED = "xla"

_BY_HAND = ("coordinator_address", "num_processes", "process_id")

# Processes end together, or one of them has failed: the others need not wait long for it.
_SHUTDOWN_SECONDS = 30


def define_flags() -> None:
    """Define the flags above; mistakes in them are found while the command line is read."""
    absl_flags.DEFINE_bool(
        "distributed", False, "One of several processes; Slurm, a TPU pod or Open MPI says which."
    )
    absl_flags.DEFINE_string(
        "coordinator_address", None, "HOST:PORT of process 0, the same for all processes."
    )
    absl_flags.DEFINE_integer("num_processes", None, "How many processes.", lower_bound=1)
    absl_flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", lower_bound=0)
    absl_flags.register_validator(
        "coordinator_address",
        lambda address: address is None or re.fullmatch(r".+:\d+", address) is not None,
        "must be HOST:PORT",
    )
    absl_flags.register_multi_flags_validator(
        _BY_HAND,
        lambda given: len({value is None for value in given.values()}) == 1,
        "are given together or not at all",
    )
    absl_flags.register_multi_flags_validator(
        _BY_HAND[1:],
        lambda given: None in given.values() or given["process_id"] < given["num_processes"],
        "process_id must be below num_processes",
    )


def initialize(workdir: str) -> None:
    """Join the other processes if the flags say that there are any; before JAX touches a device.

    Ends the command with one line if they are not to be found, or are not alike.

    Args:
      workdir: that all of them share.
    """
    values = absl_flags.FLAGS
    by_hand = {name: values[name].value for name in _BY_HAND}
    if not values.distributed and None in by_hand.values():
        return
    import jax

    # Its handler would swallow SIGTERM until the training loop installs ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**by_hand, shutdown_timeout_seconds=_SHUTDOWN_SECONDS)
    except (ValueError, RuntimeError) as error:
        needed = " ".join(f"--{name}=" for name in _BY_HAND)
        flags.fail(
            f"no other processes found ({error}); outside of Slurm, TPU pods and Open MPI "
            f"they need {needed}"
        )
    counts = [len(jax.local_devices(process_index=index)) for index in range(jax.process_count())]
    if len(set(counts)) > 1:
        flags.fail(f"processes must have equally many devices, they have {counts}")
    if len(counts) > 1 and not flags.chose_cache():
        _share_compiled(workdir)


def _share_compiled(workdir: str) -> None:
    """Keep compiled programs where all processes find them: JAX writes them in process 0 alone."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", os.path.join(os.path.abspath(workdir), COMPILED))
    compilation_cache.reset_cache()  # a plug-in may have compiled something already
