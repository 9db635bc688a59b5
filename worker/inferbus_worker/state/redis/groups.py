"""Which groups a store has something of."""

from __future__ import annotations

from typing import Final

from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.scripted import schema_key

#: Keys that one step looks at, about, and the steps at one server: a store of a million sessions has twice the keys.
_STEP: Final = 1000
_MOST_STEPS: Final = 5000


def groups_in(store: Store) -> tuple[list[str], bool]:
    """Their names in order, and whether these are all: a very large store is not looked through to its end.

    Raises:
        StoreError: the store cannot be asked.
    """
    before, after = schema_key("*").split("*")
    found: set[str] = set()
    is_whole = True
    for address in store.servers():
        wire = store.wire(address)
        try:
            cursor = b"0"
            for _ in range(_MOST_STEPS):
                cursor, keys = wire.ask("SCAN", cursor, "MATCH", schema_key("*"), "COUNT", _STEP)
                found |= {key.decode(errors="replace").removeprefix(before).removesuffix(after) for key in keys}
                if cursor == b"0":
                    break
            else:
                is_whole = False
        finally:
            wire.close()
    return sorted(found), is_whole
