"""A run that several files compare others with."""

import pytest

import semanticfl_jax as sfl
from tests.api.runs import CONFIG, tiny


@pytest.fixture(scope="session")
def whole():
    """Three rounds at once."""
    return sfl.run(CONFIG, **tiny())
