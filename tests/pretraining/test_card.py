"""The model card takes in notes that lie beside it, so that writing it anew loses nothing."""

from semanticfl_jax.diffusion.fingerprint import BUNDLED_CHECKPOINTS
from semanticfl_jax.pretraining.card import _edition, _notes


def test_notes_are_taken_in_where_they_are(tmp_path):
    assert _notes(tmp_path) == ""
    (tmp_path / "probe.md").write_text("A table.\n")
    assert _notes(tmp_path) == "## Do the features mean something?\nA table.\n\n"
    (tmp_path / "history.md").write_text("Long.\n")
    assert _notes(tmp_path).startswith("## History of these weights\nLong.\n\n## Do")


def test_the_edition_is_a_paragraph_of_its_own(tmp_path):
    assert _edition(tmp_path) == ""
    (tmp_path / "edition.md").write_text("The third.\n")
    assert _edition(tmp_path) == "The third.\n\n"


def test_the_bundled_card_holds_its_notes():
    directory = BUNDLED_CHECKPOINTS["tiny-sd"]
    card = (directory / "README.md").read_text()
    assert _notes(directory) in card
    assert _edition(directory) and _edition(directory) in card
