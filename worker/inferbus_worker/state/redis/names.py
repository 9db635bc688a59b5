"""What a session is called in the store."""

from __future__ import annotations

from urllib.parse import quote

from inferbus_worker.state.keys import SessionKey


def session_name(key: SessionKey) -> str:
    """As topics name it: `general/kitchen`, `general/users/ann/kitchen`; behind it whom a gateway speaks for, quoted.

    Neither a project nor a session has a slash, so that no two of them are called the same.
    """
    name = f"{key.scope}/{key.session}"
    return name if key.client is None else f"{name}/{quote(key.client, safe='')}"
