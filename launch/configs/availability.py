r"""Unreliable clients: large ones are asked oftener, some never report, some do half their work.

    python -m launch.train --config=launch/configs/availability.py --workdir=runs/availability

On digits, with sizes drawn by `quantity`. metrics.jsonl counts what those who drop out received,
and never sent.
"""

from launch.configs import digits


def get_config():
    """Size-weighted cohorts of 5 of 20 clients; a fifth drops out, a third straggles."""
    config = digits.get_config()
    config.partition.scheme = "quantity"
    config.partition.alpha = 0.5
    config.availability.sampling = "size_weighted"
    config.availability.dropout = 0.2
    config.availability.straggler_share = 0.3
    # Large clients are asked oftener; asked, all count alike.
    config.algorithm.weights = "uniform"
    config.num_clients = 20
    return config
