"""Size, font and file formats of plots: for a screen, or for a column or page of a paper."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from semanticfl_jax.errors import SemanticFLError

#: Width in inches and font size in points by size; those of two-column papers (IEEE, CVF).
SIZES = {"screen": (7.2, 10.0), "column": (3.33, 8.0), "page": (6.9, 8.0)}
FORMATS = ("png", "pdf", "svg")
FONTS = ("sans", "serif")


@dataclasses.dataclass(frozen=True)
class Paper:
    """How plots are made.

    Attributes:
      formats: of the files; each picture is written once in each.
      size: "screen", or "column" or "page" of a two-column paper.
      font: "sans" or "serif"; serif is Times where it is installed.
      font_size: in points; None: as the size has it.

    Raises:
      SemanticFLError: for anything else.
    """

    formats: tuple[str, ...] = ("png",)
    size: str = "screen"
    font: str = "sans"
    font_size: float | None = None

    def __post_init__(self) -> None:
        for name, values, known in (
            ("formats", self.formats, FORMATS),
            ("size", (self.size,), tuple(SIZES)),
            ("font", (self.font,), FONTS),
        ):
            wrong = [value for value in values if value not in known]
            if wrong or not values:
                raise SemanticFLError(
                    f"{name} of plots must be of {', '.join(known)}, got {', '.join(wrong) or None}"
                )
        if self.font_size is not None and not 4 <= self.font_size <= 30:
            raise SemanticFLError(
                f"font_size of plots must be 4 to 30 points, got {self.font_size:g}"
            )

    @property
    def width(self) -> float:
        """Inches."""
        return SIZES[self.size][0]

    @property
    def narrow(self) -> bool:
        """Whether a legend fits below a picture only."""
        return self.size == "column"

    @property
    def points(self) -> float:
        """Size of the font."""
        return SIZES[self.size][1] if self.font_size is None else self.font_size

    def files(self, stem: Path) -> list[Path]:
        """Return the paths of a picture, one a format."""
        return [stem.with_name(f"{stem.name}.{kind}") for kind in self.formats]

    @contextlib.contextmanager
    def style(self) -> Iterator[None]:
        """Set fonts inside the `with` block; a figure is built and saved in it."""
        import matplotlib

        serif = ["Times New Roman", "Times", "Nimbus Roman", "STIXGeneral"]
        values = {
            "font.size": self.points,
            "font.family": "serif" if self.font == "serif" else "sans-serif",
            "mathtext.fontset": "stix" if self.font == "serif" else "dejavusans",
            # Letters stay letters: editors and search find them; publishers refuse Type 3 fonts.
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            # The same picture is the same file.
            "svg.hashsalt": "semanticfl_jax",
        }
        if self.font == "serif":
            import matplotlib.font_manager as fonts

            there = {font.name for font in fonts.fontManager.ttflist}
            values["font.serif"] = [name for name in serif if name in there]
        with matplotlib.rc_context(values):
            yield
