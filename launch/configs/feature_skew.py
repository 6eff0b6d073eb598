r"""Clients with bad cameras: half of them see noise, blur, few pixels or little contrast.

    python -m launch.train --config=launch/configs/feature_skew.py --workdir=runs/feature_skew

On digits, dealt evenly, so that nothing but the images differs. plots/corruptions.png shows them,
clients.npz records each client's kind and severity. --config.dataset=cifar10 takes real images.
"""

from launch.configs import digits


def get_config():
    """Half of 10 clients corrupted, by one of four kinds each."""
    config = digits.get_config()
    config.partition.scheme = "iid"
    config.feature_skew.corruptions = ("noise", "blur", "low_resolution", "contrast")
    config.feature_skew.share = 0.5
    return config
