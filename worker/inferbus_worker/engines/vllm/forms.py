"""Answers in a given form: what a requester's `response_format` is for vLLM, and whether the answer has kept to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

from pydantic_core import from_json

from inferbus_worker.engines.base import InvalidCallError
from inferbus_worker.engines.loop_generation import Chunk

_TYPES: Final = frozenset({"text", "json_object", "json_schema"})
#: Without it guidance, unlike other compilers, takes no `oneOf`, which is how many tools write a choice of records.
_OPTIONS: Final = {"x-guidance": {"coerce_one_of": True}}
_FORM: Final = "params.response_format"


def response_format(shape: Any, backend: str) -> dict[str, Any]:
    """The requester's `response_format` as the grammar compiler `backend` takes it.

    Raises:
        InvalidCallError: it is of a type that is not passed on.
    """
    if not isinstance(shape, Mapping) or shape.get("type") not in _TYPES:
        raise InvalidCallError("response_format must be of type text, json_object or json_schema.")
    described = shape.get("json_schema")
    if backend != "guidance" or not isinstance(described, Mapping) or not isinstance(described.get("schema"), Mapping):
        return dict(shape)
    return {**shape, "json_schema": {**described, "schema": {**described["schema"], **_OPTIONS}}}


def gave_up(what: str = _FORM) -> InvalidCallError:
    """The compiler could not go on: there is no mask for the next token, and vLLM lets the answer end there.

    Args:
        what: holds the schema, as the contract calls it.
    """
    return InvalidCallError(f"{what}: the grammar compiler gives this schema up; a simpler one may do.")


async def in_form(chunks: AsyncIterator[Chunk], *, may_be_stopped: bool) -> AsyncGenerator[Chunk, None]:
    """The chunks of an answer that must be JSON, or a call: one that ends well and is neither has not ended well.

    Args:
        chunks: the answer.
        may_be_stopped: whether the requester has named texts that end it anywhere.

    Raises:
        InvalidCallError: the grammar was given up on the way.
    """
    text: list[str] = []
    calls = False
    async for chunk in chunks:
        text.append(chunk.text)
        calls = calls or bool(chunk.calls)
        if chunk.finish_reason == "stop" and not (calls or may_be_stopped) and not _is_json("".join(text)):
            raise gave_up()
        yield chunk


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True
