"""Label flip: attackers train on wrong labels, class y as class K - 1 - y.

Tolpegin, Truex, Gursoy, Liu. "Data Poisoning Attacks Against Federated Learning Systems". ESORICS
2020; the map over all classes as in Fang, Cao, Jia, Gong. "Local Model Poisoning Attacks to
Byzantine-Robust Federated Learning". USENIX Security 2020.
"""

from semanticfl_jax.attacks.base import Attack, attackers_of
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.data.federated import Batch


def label_flip(settings: object, context: AlgorithmContext) -> Attack:
    """Build the attack; it has no settings."""
    del settings
    last = context.num_classes - 1

    def poison(batch: Batch) -> Batch:
        return batch._replace(labels=last - batch.labels)

    return Attack("label_flip", attackers_of(context), poison=poison)
