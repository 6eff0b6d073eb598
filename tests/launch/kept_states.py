"""Trains runs whose clients' states stay with two processes, in one of these.

    python -m tests.launch.kept_states HOST:PORT PROCESS CONFIG DIRECTORY

For each memory there is a run DIRECTORY/MEMORY of CONFIG, which is stopped in its midst and resumed
from an earlier checkpoint than its last. One start of two processes serves all of them.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax

import semanticfl_jax as sfl
import tests.tiny_plugin  # noqa: F401 - registers tiny_net
from semanticfl_jax.config import from_dict
from semanticfl_jax.devices import processes

MEMORIES = ("disk", "host")


def train(config, directory, memory):
    config = config.with_runtime(client_state_memory=memory, data_memory="host")
    config = dataclasses.replace(config, checkpoint_every=2)
    with sfl.Simulation(config, workdir=directory, progress=False) as simulation:
        simulation.run(4)
    with processes.main_first():
        if processes.is_main():
            # As if all had been killed before the last checkpoint was whole: rows must go back.
            shutil.rmtree(directory / "checkpoints" / "4")
    sfl.run(config, directory, progress=False)


if __name__ == "__main__":
    address, process, path, parent = sys.argv[1:]
    jax.distributed.initialize(address, num_processes=2, process_id=int(process))
    whole = from_dict(sfl.ExperimentConfig, json.loads(Path(path).read_text()))
    for each in MEMORIES:
        train(whole, Path(parent) / each, each)
