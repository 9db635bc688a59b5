"""How an answer is sampled, beyond what has a key of its own."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from inferbus_client.contract.wire.closed import Closed
from inferbus_client.contract.wire.schemas import SchemaError, check_response_format

#: How many texts may end an answer.
MAX_STOPS: Final = 16


class Params(Closed):
    """Sampling parameters by their OpenAI (and vLLM) names. A name off this list is an invalid request."""

    model_config = ConfigDict(allow_inf_nan=False)
    stop: Annotated[str, Field(max_length=256)] | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("response_format")
    @classmethod
    def _response_format_is_bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            try:
                check_response_format(value)
            except SchemaError as error:
                raise PydanticCustomError("response_format", "{text}", {"text": str(error)}) from None
        return value
