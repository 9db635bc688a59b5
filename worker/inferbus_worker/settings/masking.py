"""Stars for what is secret in a setting, at any depth: by the name that it has, whatever that is a name in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

STARS: Final = "**********"

_KIND: Final = r"(?:token|key|passw(?:or)?d|secret|authorization|credentials?)"
#: A setting, a variable or a header of that name.
_SECRET: Final = re.compile(rf"{_KIND}$", re.IGNORECASE)
#: A word of a command that is the name of the next one.
_FLAG: Final = re.compile(rf"--?[\w.-]*{_KIND}", re.IGNORECASE)
#: The same within a text: `--api-key=VALUE`, `"api_key": "VALUE"`, `Authorization: Bearer VALUE`, a shell's
#: `--api-key VALUE`. A name is looked for where a word begins alone: else long words would take their length squared.
_WITHIN: Final = re.compile(
    rf"((?<![\w.-])[\w.-]*{_KIND}[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?"
    rf"|(?<![\w.-])--?[\w.-]*{_KIND}\s+[\"']?|\bbearer\s+)[^\s\"',;&}}]+",
    re.IGNORECASE,
)
#: Whoever is named in an address.
_NAMED: Final = re.compile(r"(?<=://)[^\s/@]+(?=@)")


def masked(value: Any, name: str = "") -> Any:
    """A setting's value with stars for what is secret in it.

    Args:
        value: texts, and lists and mappings of these, as they stand in the file.
        name: what it is called.
    """
    if _SECRET.search(name):
        return STARS
    if isinstance(value, Mapping):
        return {key: masked(below, str(key)) for key, below in value.items()}
    if isinstance(value, str):
        return _NAMED.sub(STARS, _WITHIN.sub(rf"\g<1>{STARS}", value))
    return masked_words(value) if isinstance(value, list | tuple) else value


def masked_words(words: Sequence[Any]) -> list[Any]:
    """The words of a command, or the entries of a list."""
    before = ["", *words[:-1]] if words else []
    return [
        STARS if isinstance(flag, str) and _FLAG.fullmatch(flag) and not str(word).startswith("--") else masked(word)
        for flag, word in zip(before, words, strict=True)
    ]
