"""Task pfl_cifar10 in Flower's simulation (flwr, with Ray).

    DIR/bin/python comparisons/peers/flower.py --data=cifar10.npz --rounds=20 --processes=2

Ray keeps `--processes` actors, among which the machine's cores are divided, and a GPU if there is
one; each trains one client after another (flower_client.py). Prints one line of JSON.
"""

import os
import random

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import cifar10
import flower_client
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from measure import Stopwatch, cores, device, parse_arguments, report
from models import accuracy, count_parameters, pfl_cnn


class WholeCohort(FedAvg):
    """FedAvg that stops when a client fails; Flower's own averages the others."""

    def aggregate_train(self, server_round, replies):
        """Averages the clients' weights."""
        replies = list(replies)
        errors = [reply.error.reason for reply in replies if reply.has_error()]
        if errors:
            raise RuntimeError(f"{len(errors)} clients failed in round {server_round}: {errors[0]}")
        if len(replies) != self.min_train_nodes:
            raise RuntimeError(f"{len(replies)} clients replied, not {self.min_train_nodes}")
        return super().aggregate_train(server_round, replies)


def main():
    args = parse_arguments(__doc__, processes=True)
    random.seed(args.seed)  # Flower samples cohorts with it, without replacement
    task, data = cifar10.TASKS[args.task], cifar10.load(args.data, args.task)
    test_images = torch.from_numpy(data.normalize(data.test_images)).to(device())
    test_labels = torch.from_numpy(data.test_labels).to(device())
    model, stopwatch = pfl_cnn().to(device()), Stopwatch()
    parameters, last = count_parameters(model), args.warmup_rounds + args.rounds
    shares = []

    def evaluate(number, arrays):
        """Called before the first round and after every round."""
        if number:
            stopwatch.lap("round")
        if number and (number % task.eval_every == 0 or number == last):
            model.load_state_dict(arrays.to_torch_state_dict())
            shares.append(accuracy(model, test_images, test_labels))
            stopwatch.lap("evaluation")
        stopwatch.restart()
        return MetricRecord({"accuracy": shares[-1]}) if shares else None

    server = ServerApp()

    @server.main()
    def start(grid, context):
        strategy = WholeCohort(
            fraction_train=task.cohort / task.users,
            # Without it, the first round takes a share of the nodes that have connected so far.
            min_train_nodes=task.cohort,
            fraction_evaluate=0.0,
            min_available_nodes=task.users,
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=last,
            train_config=ConfigRecord(
                {"data": os.path.abspath(args.data), "threads": args.threads, "seed": args.seed}
            ),
            evaluate_fn=evaluate,
        )

    gpus = torch.cuda.device_count()
    run_simulation(
        server_app=server,
        client_app=flower_client.app,
        num_supernodes=task.users,
        backend_config={
            "init_args": {"num_cpus": cores(), "num_gpus": gpus},
            "client_resources": {"num_cpus": args.threads, "num_gpus": gpus / args.processes},
        },
    )
    report(args, stopwatch, shares[-1], parameters, packages=("flwr", "ray"))


if __name__ == "__main__":
    main()
