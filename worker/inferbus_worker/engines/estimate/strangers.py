"""A model's files are a stranger's: read no more of them than is bounded, and believe no number that cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from inferbus_client.errors import SettingsError
from inferbus_client.shown import shown_in_line

#: The format's own bound on a safetensors header; a config.json has kilobytes, an index of shards megabytes.
MAX_JSON_BYTES: Final = 100_000_000
#: More than any count in a model's configuration, and few enough that their products stay small numbers.
_MOST: Final = 2**40


class NoEstimateError(SettingsError):
    """Nothing can be said of this model. The text is one sentence for the operator.

    Attributes:
        model: which one, as it was named.
    """

    def __init__(self, model: str | Path, text: str) -> None:
        super().__init__(shown_in_line(text))
        self.model = str(model)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        NoEstimateError: there is none, or it is larger than any such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise NoEstimateError(path, f"Cannot read {path}: {error.strerror or error}.") from error
    if len(data) > MAX_JSON_BYTES:
        raise NoEstimateError(path, f"{path} is larger than any such file.")
    return parse_object(data, path)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in `data`, which comes from `path`.

    Raises:
        NoEstimateError: there is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoEstimateError(path, f"{path} holds no JSON object where there should be one.")
    return found


def count(value: object) -> int | None:
    """A count that can be meant: a whole number from 0 to 2^40."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        return None
    return value


def first_count(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is there, and at least 1."""
    return next((found for name in names if (found := count(config.get(name)))), None)


def word(value: object) -> str | None:
    """A word that can be shown."""
    return shown_in_line(value[:80]) if isinstance(value, str) and value else None
