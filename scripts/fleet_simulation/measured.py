"""What docs/benchmarks.json has measured of a fleet, if it has: `scripts/bench --only fleet` writes it.

The section of the suite `fleet` has a row for each number of workers, `2 workers`, with its requests/s in the column of
that name; and one whose first cell is `REDIS`, with the microseconds in its second.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.json"
#: The first cell of the row that says what a request costs the store's processor.
REDIS: Final = "Redis' CPU per request (µs)"
RATE: Final = "requests/s"
_WORKERS: Final = re.compile(r"(\d+) workers?")
_NUMBER: Final = re.compile(r"[\d,]+(\.\d+)?")


def seconds_of_a_request(file: Path = FILE) -> float | None:
    """Of the store's processor, for one request; None: nobody has measured it."""
    for section in _sections(file):
        for row in section["rows"]:
            if row[0] == REDIS:
                return _number(row[1]) / 1e6
    return None


def rates(file: Path = FILE) -> dict[int, str]:
    """Requests/s as they were measured, with their spread, by the number of workers."""
    found = {}
    for section in _sections(file):
        if RATE not in section["header"]:
            continue
        column = section["header"].index(RATE)
        for row in section["rows"]:
            if (workers := _WORKERS.fullmatch(row[0])) is not None:
                found[int(workers[1])] = row[column]
    return found


def _sections(file: Path) -> list[dict[str, Any]]:
    return [section for section in json.loads(file.read_text()) if section["suite"] == "fleet"]


def _number(cell: str) -> float:
    """The first number of a cell; its spread stands behind it."""
    found = _NUMBER.match(cell)
    if found is None:
        raise ValueError(f"{cell!r} does not begin with a number")
    return float(found[0].replace(",", ""))
