"""A model's Markdown on a terminal, with nothing in it that the terminal would obey or hide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.markdown import Markdown

from inferbus_client.shown import shown


class ShownMarkdown(Markdown):
    """Rich's Markdown, with links that say where they lead, HTML as it was written, and control characters as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)
        _show(self.parsed)


def _show(tokens: Iterable[Any]) -> None:
    """After the parser, which makes characters of entities (`&#x202e;`)."""
    for token in tokens:
        token.content = shown(token.content)
        # Rich leaves HTML out: of `List<String>` only half would be read.
        if token.type == "html_inline":
            token.type = "text"
        elif token.type == "html_block":
            token.type, token.info = "fence", "html"
        _show(token.children or ())
