"""Every kind of store that workers may share state in, for the tests of what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory import memory_stores
from inferbus_worker.state.protocols import Stores
from support.rooms import FakeClock

#: Makes the stores of a worker, by the name of the kind.
KINDS: Final[dict[str, Callable[[Settings, FakeClock], Stores]]] = {"memory": memory_stores}
