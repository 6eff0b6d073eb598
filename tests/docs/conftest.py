"""What the tests of all texts share."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from docs._ext.commands import flags_of
from semanticfl_jax.__main__ import commands


@pytest.fixture(scope="session")
def known_flags():
    """{command: names of its flags}, as each command's --help has them."""
    names = [*commands(Path(__file__).parents[2] / "launch")]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(flags_of, names)
    return {name: {*about["flags"]} for name, about in zip(names, found, strict=True)}
