import pytest

from semanticfl_jax.reporting.plots import drawing


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
