"""One connection to one server of the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from inferbus_worker.state.errors import StoreAnswerError, StoreAwayError
from inferbus_worker.state.redis.calls import Argument
from inferbus_worker.state.redis.facts import Facts
from inferbus_worker.state.redis.words import in_words, verdict_on

if TYPE_CHECKING:
    from redis import Redis

Command: TypeAlias = tuple[Argument, ...]

#: Seconds for all the answers of a batch, however fast the single ones come.
_BATCH_TIMEOUT: Final = 2.0


class Wire:
    """One connection, over which commands go out together and their answers come back in their order."""

    def __init__(self, client: Redis, place: str) -> None:
        """See `Store.wire`."""
        self.place = place
        self._client = client
        self.facts: Facts

    def connect(self) -> None:
        """Greet the server; the connection is the one for all that follows.

        Raises:
            RedisError: it does not come off.
        """
        # Not the pool's way to one: it takes what TLS sends by itself for an answer that nobody has read.
        self._connection = self._client.connection_pool.make_connection()
        self._connection.connect()
        self._connection.send_command("PING", check_health=False)
        self._connection.read_response()

    def pack(self, command: Command) -> bytes:
        """A command as it goes over the wire.

        Raises:
            StoreAnswerError: something in it is neither text nor a number.
        """
        import redis  # noqa: PLC0415

        try:
            return b"".join(self._connection.pack_command(*command))
        except redis.DataError as error:
            raise StoreAnswerError(f"{command[0]!r} cannot be sent: {error}") from None

    def exchange(self, packed: Sequence[bytes]) -> list[Any]:
        """Send commands that `pack` has packed.

        Returns:
            The answers. One that is an error is the exception that stands for it.

        Raises:
            StoreError: there are not as many answers, or not in time. How many commands have been run nobody knows.
        """
        import redis  # noqa: PLC0415

        try:
            self._connection.send_packed_command([b"".join(packed)], check_health=False)
            return self._answers(len(packed))
        except (redis.RedisError, OSError) as error:
            raise in_words(error, self.place) from None

    def _answers(self, count: int) -> list[Any]:
        import redis  # noqa: PLC0415

        read = self._connection.read_response
        answers: list[Any] = []
        until = time.monotonic() + _BATCH_TIMEOUT
        for _ in range(count):
            try:
                answers.append(read())
            except redis.ResponseError as error:
                answers.append(error)
            if time.monotonic() > until and len(answers) < count:
                raise StoreAwayError(f"{self.place} does not answer in time")
        return answers

    def ask(self, *command: Argument) -> Any:
        """One command alone; its answer.

        Raises:
            StoreError: there is none, or it is an error.
        """
        answer = self.try_to(*command)
        if isinstance(answer, Exception):
            raise in_words(answer, self.place)
        return answer

    def try_to(self, *command: Argument) -> Any:
        """One command alone; its answer, also where that is an error."""
        return self.exchange([self.pack(command)])[0]

    def lacks_room(self, key: str) -> str | None:
        """Why nothing can be written, if that is so; found out with something at this key that nobody needs.

        Raises:
            StoreError: it would not answer anything else either.
        """
        answer = self.try_to("SET", key, 1, "PX", 1)
        verdict = verdict_on(answer) if isinstance(answer, Exception) else ""
        if verdict in {"not ready", "an error"}:
            raise in_words(answer, self.place)
        return in_words(answer, self.place).reason if verdict == "no room" else None

    def foreign(self, types: Mapping[str, str]) -> str | None:
        """Which of these keys has something of another type than it should, and so is somebody else's; in a sentence.

        Raises:
            StoreError: the server does not answer.
        """
        answers = self.exchange([self.pack(("TYPE", key)) for key in types])
        for (key, expected), answer in zip(types.items(), answers, strict=True):
            if not isinstance(answer, Exception) and (found := answer.decode()) not in {"none", expected}:
                return (
                    f"{self.place} has something of somebody else's ({found}) at {key}, where a group keeps its own "
                    f"({expected}): rename or delete that"
                )
        return None

    def close(self) -> None:
        with suppress(Exception):  # whatever it says, nobody will use it again
            self._connection.disconnect()
