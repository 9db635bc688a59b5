"""What sessions, clients and requests are called in the store: short, whatever a stranger calls them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from inferbus_worker.state.keys import RetryKey, SessionKey


def session_name(key: SessionKey) -> str:
    """A conversation's: what its topics begin with, and its id; of a gateway's clients each has its own."""
    name = f"{key.scope}/{key.session}"
    return name if key.client is None else f"{name}/{short(key.client)}"


def retry_name(key: RetryKey) -> str:
    return short(tuple(key))


def short(value: Hashable) -> str:
    """The same for the same value, in every worker, and of no other in practice: 128 bits of BLAKE2b."""
    return hashlib.blake2b(repr(value).encode(errors="surrogatepass"), digest_size=16).hexdigest()
