"""One command for the store, as a value: whoever has one to send need not know who sends it, or with what else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: What redis-py takes as a key's value or a script's argument.
Argument = str | bytes | int | float


class Call(NamedTuple, Generic[T]):
    """A command, and how to read its answer.

    Attributes:
        name: of a script in `scripts/`, or of a plain command, which is in capitals.
        keys: of a script or, for a plain command, its first arguments.
        args: what follows them.
        read: makes of the store's answer, in which texts are bytes, what the caller wants.
        is_history: whether it goes to the node of its own key, and not to the one that has all else of the group.
    """

    name: str
    keys: tuple[str, ...]
    args: tuple[Argument, ...]
    read: Callable[[Any], T]
    is_history: bool = False
