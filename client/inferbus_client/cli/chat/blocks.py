"""Which part of a growing Markdown text will not change its look any more."""

from __future__ import annotations

import re
from typing import Final

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")


def split_finished(text: str) -> tuple[str, str]:
    """The text up to its last blank line outside a code block, and the rest."""
    cut, position, fence = 0, 0, ""
    for line in text.splitlines(keepends=True):
        position += len(line)
        fence = _fence_after(line, fence)
        if not fence and not line.strip() and line.endswith("\n"):
            cut = position
    return text[:cut], text[cut:]


def _fence_after(line: str, fence: str) -> str:
    """The code fence that is open after this line; empty where none is."""
    match = _FENCE.match(line)
    if match is None:
        return fence
    mark = match[1]
    if not fence:
        return mark
    closes = mark[0] == fence[0] and len(mark) >= len(fence) and not line[match.end() :].strip()
    return "" if closes else fence
