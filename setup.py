"""The packages, which setup.cfg cannot list: launch/ is installed as `semanticfl_jax.launch`.

A top-level package `launch` would be in the way of ROS 2's and of a user's own launch.py. All else
is in setup.cfg.
"""

from setuptools import find_packages, setup

commands = find_packages(include=["launch", "launch.*"])

setup(
    packages=[
        *find_packages(include=["semanticfl_jax", "semanticfl_jax.*"]),
        *(f"semanticfl_jax.{package}" for package in commands),
    ],
    package_dir={"semanticfl_jax.launch": "launch"},
)
