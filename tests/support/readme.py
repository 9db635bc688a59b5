"""The fenced blocks of the README and of the pages it leads to, and the marks that say how each is tried.

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
#: What a newcomer reads: the README, and what it leads to.
PAGES: Final = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: what stands in the comment before it; empty where there is none.
        page: the name of its file.
        line: where it begins there, for messages.
    """

    mark: str
    language: str
    text: str
    page: str
    line: int


def all_blocks(*pages: Path) -> list[Block]:
    """The blocks of these pages, or of all `PAGES`."""
    found = []
    for page in pages or PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(match["mark"] or "", match["language"], match["text"], page.name, line))
    return found


def blocks(mark: str) -> list[str]:
    """The texts of the blocks with this mark."""
    return [block.text for block in all_blocks() if block.mark == mark]
