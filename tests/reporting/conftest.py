import pytest

from semanticfl_jax.reporting.plots import drawing
from tests.reporting.made_up import ACCURACIES, made_up_config, write_run


@pytest.fixture
def drawn(monkeypatch):
    """The figures saved, which are also written to files as usual."""
    figures = []
    save = drawing.save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(drawing, "save", keep)
    return figures


@pytest.fixture
def six_runs(tmp_path):
    return [
        write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), accuracies)
        for (name, seed), accuracies in ACCURACIES.items()
    ]
