"""The exit statuses of every verb."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a verb's exit status means; the numbers are part of the interface."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BROKER = 3
    OBJECTIVE_MISSED = 4
    TIMEOUT = 5
    INTERRUPTED = 130
