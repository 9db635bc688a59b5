"""Strangers' text on a terminal: a window title, a cleared screen or a faked line must be read, never obeyed."""

from __future__ import annotations

import re
from typing import Final

# Control characters of both sets but line feed and tab, lone surrogates, and what reorders or hides its neighbours:
# bidirectional marks, embeddings and isolates (UAX #9), zero-width characters, line and paragraph separators, the
# byte order mark, interlinear annotations, and tags.
_UNSHOWN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_BREAKS: Final = re.compile("[\t\n]+")


def shown(text: str) -> str:
    """Text as a terminal may have it: lines and tabs stay, any other control character is written out as an escape."""
    return _UNSHOWN.sub(_written_out, text.replace("\r\n", "\n"))


def shown_in_line(text: str) -> str:
    """The same for what has one line: a name, a reason, a cell of a table."""
    return shown(_BREAKS.sub(" ", text))


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")
