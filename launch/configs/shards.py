"""Digits in shards, the pathological split of McMahan et al. (AISTATS 2017).

    python -m launch.train --config=launch/configs/shards.py --workdir=DIR

20 clients with two pieces each of the images sorted by label: two digits, or three where a piece
lies across a border; 2.1 effective classes on average (seed 0).
"""

from launch.configs import digits


def get_config():
    """20 clients, two shards each; else as digits.py."""
    config = digits.get_config()
    config.num_clients = 20
    config.partition.scheme = "shards"
    config.partition.shards_per_client = 2
    return config
