"""The scripts that calls name, as the store knows them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

from inferbus_worker.state.errors import StoreAnswerError
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.wire import Command, Wire
from inferbus_worker.state.redis.words import in_words


class Repertoire:
    """Scripts by name, which a server has to be taught once."""

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self._sources = scripts
        self._hashes = {one: sha1(text.encode()).hexdigest() for one, text in scripts.items()}  # noqa: S324 - Redis's own

    def teach(self, wire: Wire) -> None:
        """Let the server know all of them.

        Raises:
            StoreError: it does not take them.
        """
        for answer in wire.exchange([wire.pack(("SCRIPT", "LOAD", text)) for text in self._sources.values()]):
            if isinstance(answer, Exception):
                raise in_words(answer, wire.place)

    def command(self, call: Call[Any]) -> Command:
        """What a call sends.

        Raises:
            StoreAnswerError: there is no such script.
        """
        if call.name.isupper():
            return (call.name, *call.keys, *call.args)
        if call.name not in self._hashes:
            raise StoreAnswerError(f"there is no script {call.name}")
        return ("EVALSHA", self._hashes[call.name], len(call.keys), *call.keys, *call.args)
