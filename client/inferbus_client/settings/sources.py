"""Where settings come from besides the file, and where each of those in force stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.settings.file import Keys

PREFIX: Final = "INFERBUS_"

#: How much alike two names are, from 0 to 1, of which one is taken for a slip of the other.
_ALIKE: Final = 0.75
#: Variables of ours that are no settings: of scripts/, the tests, and the worker's own processes.
_NO_SETTINGS: Final = {
    *("PYTHON", "VLLM", "TORCH_INDEX", "BACKENDS", "LLAMA_SERVER", "LLAMA_BUILD"),
    *("TRIALS", "FIGURES", "SOAK_MINUTES", "WORKER_PID"),
}


#: Marks a setting that stands in the file alone: `Field(json_schema_extra=FILE_ONLY)`.
FILE_ONLY: Final[dict[str, Any]] = {"file_only": True}


def is_file_only(field: FieldInfo) -> bool:
    """Whether a setting has neither a flag nor a variable."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("file_only"))


class Environment(EnvSettingsSource):
    """The variables `INFERBUS_…`. A list or a mapping is JSON there; a text with commas is for the setting to split."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return (None, field_name, False) if is_file_only(field) else super().get_field_value(field, field_name)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, list | dict) else value


def mosquitto_environment(model: type[BaseSettings], below: Mapping[str, Any]) -> dict[str, str]:
    """What the variables that mosquitto's users already have say; they name only the connection.

    Args:
        model: the settings.
        below: what holds where these say nothing: a port alone is a port of that broker.
    """
    if "broker" not in model.model_fields:
        return {}
    found: dict[str, str] = {}
    host, port = os.environ.get("MQTT_HOST"), os.environ.get("MQTT_PORT")
    if host:
        port = port or "1883"
        address = f"[{host}]" if ":" in host and "[" not in host else host
        found["broker"] = f"{'mqtts' if port == '8883' else 'mqtt'}://{address}:{port}"
    elif port and isinstance(broker := below.get("broker") or model.model_fields["broker"].default, str):
        found["broker"] = _with_port(broker, port)  # of several brokers each has its own
    for name in ("username", "password"):
        if value := os.environ.get(f"MQTT_{name.upper()}"):
            found[name] = value
    return found


def mosquitto_place(keys: Keys) -> str:
    """The variables of mosquitto's that say a setting."""
    if keys[0] != "broker":
        return f"MQTT_{keys[0]}".upper()
    return " and ".join(name for name in ("MQTT_HOST", "MQTT_PORT") if os.environ.get(name))


def _with_port(broker: str, port: str) -> str:
    try:
        url = BrokerUrl.parse(broker)
    except ValueError:
        return broker  # as wrong as before
    scheme = "mqtts" if port == "8883" and url.scheme == "mqtt" else url.scheme
    return str(replace(url, scheme=scheme, port=int(port) if port.isdecimal() else -1))


@dataclass(frozen=True, slots=True)
class Source:
    """Settings that stand somewhere.

    Attributes:
        values: by name.
        place: says in words where the value of some keys stands.
    """

    values: Mapping[str, Any]
    place: Callable[[Keys], str]

    def depth(self, keys: Keys) -> int:
        """How many of the keys lead to something here."""
        at: Any = self.values
        for depth, key in enumerate(keys):
            try:
                at = at[key]
            except (LookupError, TypeError):
                return depth
        return len(keys)


def place_of(keys: Keys, sources: Iterable[Source]) -> str:
    """Where the value of a setting stands, in words; empty where none of the sources says it.

    Args:
        keys: the steps to it; what is left over at their end is pydantic's own.
        sources: those of higher precedence first.
    """
    depth, source = max(((source.depth(keys), source) for source in sources), key=lambda found: found[0])
    return source.place(keys[:depth]) if depth else ""


def said_keys(keys: Keys, sources: Iterable[Source]) -> Keys:
    """The steps of `keys` that somebody has written; pydantic's own, which name branches of a type, are left out."""
    return max((_said(keys, source.values) for source in sources), key=len, default=()) or keys


def _said(keys: Keys, values: Any) -> Keys:
    said: Keys = ()
    for step in keys:
        below = dict(enumerate(values)) if isinstance(values, list) else values
        if isinstance(below, Mapping) and step in below:
            values, said = below[step], (*said, step)
    return said


def unknown_variables(models: Iterable[type[BaseModel]]) -> list[str]:
    """A sentence for each variable `INFERBUS_…` that no setting of these models has, and nothing else of ours reads."""
    fields = ((name, field) for model in models for name, field in model.model_fields.items())
    known = {name.upper() for name, field in fields if not is_file_only(field)} | _NO_SETTINGS
    ours = ((name, name.upper().removeprefix(PREFIX)) for name in sorted(os.environ) if name.upper().startswith(PREFIX))
    return [f"nothing reads {name}{nearest(bare, known, PREFIX)}" for name, bare in ours if bare not in known]


def nearest(name: str, known: Iterable[str], prefix: str = "", *, alike: float = _ALIKE) -> str:
    """`; is … meant?`, where a known name is much like this one, or has the same letters: `ulr` for `url`."""
    known = list(known)
    shuffled = [other for other in known if sorted(other.lower()) == sorted(name.lower())]
    found = shuffled[:1] or get_close_matches(name, known, n=1, cutoff=alike)
    return "".join(f"; is {prefix}{match} meant?" for match in found)
