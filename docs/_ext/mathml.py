"""Sphinx: equations as MathML, which browsers draw themselves, so that a page loads no script.

docutils translates LaTeX to MathML; Sphinx's own renderers ask for MathJax from the network, or for
LaTeX where the site is built.
"""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_log = logging.getLogger(__name__)


def inline(translator: Any, node: nodes.math) -> None:
    """Draw an equation within a line."""
    translator.body.append(drawn(node, as_block=False))
    raise nodes.SkipNode


def display(translator: Any, node: nodes.math_block) -> None:
    """Draw an equation on lines of its own."""
    translator.body.append(f'<div class="math">{drawn(node, as_block=True)}</div>')
    raise nodes.SkipNode


def drawn(node: nodes.math | nodes.math_block, as_block: bool) -> str:
    """Return an equation's MathML; what docutils cannot translate is a warning and stays LaTeX."""
    text = node.astext()
    try:
        return tex2mathml(text, as_block=as_block)
    except MathError as error:
        _log.warning("equation %r: %s", text, error, location=node)
        return f"<code>{html.escape(text)}</code>"


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True}
