"""The exit statuses of every verb."""

from __future__ import annotations

from enum import IntEnum

from inferbus_client.errors import (
    AlreadyServedError,
    BrokerError,
    DeadlineExceededError,
    IdTakenError,
    RequestTimeoutError,
    SettingsError,
)


class Exit(IntEnum):
    """What a verb's exit status means; the numbers are part of the interface."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BROKER = 3
    OBJECTIVE_MISSED = 4
    TIMEOUT = 5
    ID_TAKEN = 6
    INTERRUPTED = 130


def exit_of(error: Exception) -> Exit:
    """The status that stands for an error of the library."""
    match error:
        case SettingsError():
            return Exit.USAGE
        case IdTakenError() | AlreadyServedError():
            return Exit.ID_TAKEN
        case BrokerError():
            return Exit.BROKER
        case RequestTimeoutError() | DeadlineExceededError():
            return Exit.TIMEOUT
        case _:
            return Exit.FAILED
