"""Personal models and local objectives on a network of two layers: cases, and what is drawn."""

import jax
import numpy as np

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.federated.sampling import SAMPLERS

SIZES, ROUNDS = (7, 12, 5, 10), 3

CASES = [
    {"name": "local"},
    {"name": "fedper"},
    {"name": "fedrep"},
    {"name": "ditto", "ditto": {"weight": 0.5}},
    {"name": "pfedme", "pfedme": {"weight": 3.0, "inner_steps": 3, "inner_rate": 0.05}},
    {"name": "apfl"},
    {"name": "apfl", "apfl": {"alpha": 0.8, "adaptive": False}},
    {"name": "fedala", "fedala": {"rate": 3.0}},
    {"name": "ifca"},
    {"name": "ifca", "ifca": {"models": 3, "spread": 0.5}},
    {"name": "qffl"},
    {"name": "qffl", "qffl": {"q": 0.3}},
    {"name": "fedexp", "fedexp": {"epsilon": 1e-6}},
    {"name": "fedsam", "fedsam": {"rho": 0.3}},
    {"name": "fedntd", "fedntd": {"temperature": 2.0}},
    {"name": "fedlc"},
    {"name": "fedetf", "fedetf": {"scale": 4.0}},
]


def configuration(algorithm, **changes):
    values = {
        "num_clients": len(SIZES),
        "clients_per_round": 3,
        "rounds": ROUNDS,
        "local_epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "augmentation": [],
        "algorithm": algorithm,
        **changes,
    }
    return from_dict(ExperimentConfig, values)


def draw(key, number, config):
    """What a round draws at random: the cohort, and {client: order of samples in each epoch}."""
    local_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
    cohort = SAMPLERS["uniform"](key, number, np.array(SIZES), config.clients_per_round)
    orders = {}
    for client in map(int, cohort):
        order_key, _ = jax.random.split(jax.random.fold_in(local_key, client))
        keys = [jax.random.fold_in(order_key, epoch) for epoch in range(config.local_epochs)]
        size = SIZES[client]
        orders[client] = [np.asarray(epoch_order(each, size, size)) for each in keys]
    return list(orders), orders


def weights_of(params):
    """The two matrices of a network's parameters."""
    return {name: np.asarray(layer["kernel"]) for name, layer in params["model"].items()}
