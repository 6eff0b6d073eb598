"""Trains a run in one of two processes, and counts who computes the model that is tested.

    python -m tests.launch.counted_tests HOST:PORT PROCESS DIRECTORY

It prints the number: a program of devices of both processes must be started by both.
"""

import sys

import jax

import semanticfl_jax as sfl
from tests.federation import noise_images

if __name__ == "__main__":
    address, process, directory = sys.argv[1:]
    jax.distributed.initialize(address, num_processes=2, process_id=int(process))
    config = sfl.ExperimentConfig(
        rounds=1,
        num_clients=4,
        clients_per_round=2,
        local_epochs=1,
        public_per_class=0,
        augmentation=(),
        model=sfl.ModelConfig(name="linear"),
        algorithm=sfl.AlgorithmConfig(name="ifca"),
    )
    simulation = sfl.Simulation(
        config, dataset=noise_images(), workdir=directory, progress=False, say=None
    )
    tested, calls = simulation.engine.tested, []

    def counted(state):
        calls.append(state)
        return tested(state)

    simulation.engine.tested = counted
    simulation.run()
    print(len(calls))
