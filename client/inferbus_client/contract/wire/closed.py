"""Objects of the contract that take no key which they do not know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Closed(BaseModel):
    """Refuses keys that are not its own; the first one is told, at a price that does not depend on how many there are.

    Pydantic makes an error of each, and a stranger may send 100,000: that held the network thread for a second.
    Keys are the names of fields here; one with an alias would not be found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _shows_one_unknown_key(cls, value: Any) -> Any:
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        known = {name: value[name] for name in cls.model_fields if name in value}
        unknown = next(name for name in value if name not in known)
        return {**known, unknown: value[unknown]}
