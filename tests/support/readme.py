"""The README's fenced blocks, and the marks that say how each is tried.

A fenced block is tried by what the line before it says: `<!-- tour -->`, `<!-- install -->`. One without a mark is
tried by its language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.scripts import ROOT

README: Final = ROOT / "README.md"
_BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: what stands in the comment before it; empty where there is none.
        line: where it begins, for messages.
    """

    mark: str
    language: str
    text: str
    line: int


def all_blocks(path: Path = README) -> list[Block]:
    text = path.read_text()
    return [
        Block(match["mark"] or "", match["language"], match["text"], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]


def blocks(mark: str, path: Path = README) -> list[str]:
    """The texts of the blocks with this mark."""
    return [block.text for block in all_blocks(path) if block.mark == mark]
