"""Stars for what is secret in a setting, at any depth: by the name that it has, whatever that is a name in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

STARS: Final = "**********"

#: Not `tokens`: these are counted. A name may end with a number, where there are several of a kind.
_KIND: Final = r"(?:(?:token|authorization|(?:key|passw(?:or)?d|passphrase|secret|credential)s?)(?:[_-]?\d+)?)"
#: A setting, a variable or a header of that name.
_SECRET: Final = re.compile(rf"{_KIND}$", re.IGNORECASE)
#: A word of a command that is the name of the next one.
_FLAG: Final = re.compile(rf"--?[\w.-]*{_KIND}", re.IGNORECASE)
#: The same within a text: `--api-key=VALUE`, `"api_keys": ["VALUE"]`, `Bearer VALUE`, a shell's `--api-key VALUE`. A
#: name is looked for where a word begins alone: else long words would take their length squared.
_WITHIN: Final = re.compile(
    rf"((?<![\w.-])[\w.-]*{_KIND}[\"']?\s*[:=](?:\s*\[)?\s*[\"']?"
    rf"|(?<![\w.-])--?[\w.-]*{_KIND}\s+[\"']?|\bbearer\s+)[^\s\"',;&}}]+",
    re.IGNORECASE,
)
#: `Authorization: SCHEME VALUE`, whatever the scheme; where there is none, the word behind the value is hidden as well.
_SCHEME: Final = re.compile(
    r"((?<![\w.-])[\w.-]*authorization[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]+\s+[^\s\"',;&}]+", re.IGNORECASE
)
#: Whoever is named in an address; an `@` may stand in his password.
_NAMED: Final = re.compile(r"(?<=://)[^\s/]+(?=@)")


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
        for secret in (_SCHEME, _WITHIN):
            value = secret.sub(rf"\g<1>{STARS}", value)
        return _NAMED.sub(STARS, value)
    return masked_words(value) if isinstance(value, list | tuple) else value


def masked_words(words: Sequence[Any]) -> list[Any]:
    """The words of a command, or the entries of a list. All that a flag for secrets is given: vLLM's takes several."""
    found: list[Any] = []
    is_secret = False
    for word in words:
        is_flag = isinstance(word, str) and word.startswith("-")
        found.append(STARS if is_secret and not str(word).startswith("--") else masked(word))
        is_secret = _FLAG.fullmatch(word) is not None if is_flag else is_secret
    return found
