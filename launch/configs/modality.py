r"""Clients that lack a kind of anchors: some without text, some without visual, some with neither.

    python -m launch.train --config=launch/configs/modality.py --workdir=runs/modality

SemanticFL on digits; a client drops the term whose anchors it lacks, and is not sent them.
clients.npz records who has what.
"""

from launch.configs import digits


def get_config():
    """Of 10 clients two have no text, two no visual anchors, one neither."""
    config = digits.get_config()
    config.modality.without_text = 0.2
    config.modality.without_visual = 0.2
    config.modality.without_both = 0.1
    config.algorithm.name = "semanticfl"
    return config
