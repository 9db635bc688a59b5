"""What sessions and requests are called in the store, which itself makes short what is long."""

from __future__ import annotations

from inferbus_worker.state.keys import SessionKey


def session_name(key: SessionKey) -> str:
    """A conversation's: what its topics begin with, and its id; of a gateway's clients each has its own."""
    name = f"{key.scope}/{key.session}"
    return name if key.client is None else f"{name}/{key.client}"
