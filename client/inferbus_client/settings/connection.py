"""How settings are found, and the ones about the connection, which both wings share.

Each setting is said once, as a field of a model: that makes its flag, its environment name and its key in the file.
Precedence: flags, then `INFERBUS_…`, then mosquitto's `MQTT_HOST/PORT/USERNAME/PASSWORD`, then the YAML file, then
the default. A user in the broker's URL is a username, and a password file a password, from where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast, get_args

from paho.mqtt.enums import MQTTProtocolVersion
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from inferbus_client.contract.topics import is_mqtt_string
from inferbus_client.errors import ConflictError, SettingsError
from inferbus_client.mqtt.broker_url import BrokerUrl, parse_urls
from inferbus_client.mqtt.options import LinkOptions, Tls
from inferbus_client.settings.bounds import allowed
from inferbus_client.settings.file import Keys, SettingsFile
from inferbus_client.settings.sources import (
    PREFIX,
    Environment,
    Source,
    mosquitto_environment,
    mosquitto_place,
    nearest,
    place_of,
    said_keys,
)
from inferbus_client.units import Size, Written
from inferbus_client.wording import wording

#: Under this name `load` hands the file to the sources. No setting is called so: it has a space.
_FILE: Final = "the file"
_PASSWORDS: Final = frozenset({"password", "password_file"})
#: What one field of a packet holds, in bytes.
_LONGEST: Final = 65_535
_PROTOCOLS = {"auto": None, "5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}

#: What a file calls by another name than JSON, by pydantic's name for the error.
_IN_A_FILE: Final = dict.fromkeys(
    ("dict_type", "model_type", "model_attributes_type"), "must be a mapping, NAME: VALUE"
)
_OUT_OF_BOUNDS: Final = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def _joined(urls: object) -> object:
    """Several brokers, as a repeated flag or a list in a file says them."""
    return ",".join(urls) if isinstance(urls, list | tuple) and all(isinstance(url, str) for url in urls) else urls


def _check_broker(urls: str) -> str:
    return ",".join(map(str, parse_urls(urls)))


def _check_username(name: str) -> str:
    if not is_mqtt_string(name) or len(name.encode()) > _LONGEST:
        raise ValueError(f"must be text of at most {_LONGEST} bytes, without control characters")
    return name


def _check_password(word: str) -> str:
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise SettingsError("the password is not text") from None
    if size > _LONGEST:
        raise SettingsError(f"the password has {size} bytes; {_LONGEST} are the most that MQTT can carry")
    return word


#: The user at the broker, as MQTT can say it.
Username = Annotated[str, AfterValidator(_check_username)]


class _Yielding(PydanticBaseSettingsSource):
    """A source that is silent on what a stronger one has said in another way: in the broker's URL, or in a file."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def __repr__(self) -> str:
        return repr(self._source)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        said, stronger = self._source(), self.current_state
        decided: set[str] = set()
        if _names_a_user(stronger.get("broker")):
            decided.add("username")
        if not _PASSWORDS.isdisjoint(stronger):
            decided |= _PASSWORDS
        return {name: value for name, value in said.items() if name not in decided}


def _names_a_user(broker: object) -> bool:
    broker = _joined(broker)
    try:
        return isinstance(broker, str) and parse_urls(broker)[0].username is not None
    except ValueError:
        return False


class FileSettings(Written, BaseSettings):
    """Settings from flags, environment and a YAML file, each said once."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    @field_validator("*", mode="after")
    @classmethod
    def _names_a_file(cls, value: object) -> object:
        if isinstance(value, Path) and "\0" in str(value):
            raise ValueError("must be a path, without NUL")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = dict(cast("InitSettingsSource", init_settings).init_kwargs)
        said = dict(given.pop(_FILE, SettingsFile()).values)
        flags = InitSettingsSource(settings_cls, init_kwargs=given)
        mosquitto = InitSettingsSource(settings_cls, init_kwargs=mosquitto_environment(settings_cls, said))
        file = InitSettingsSource(settings_cls, init_kwargs=said)
        return flags, *(_Yielding(source) for source in (Environment(settings_cls), mosquitto, file))

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Self:
        """The settings in force.

        Args:
            flags: what the command line gave; None values count as not given.
            file: the YAML file, or None.

        Raises:
            SettingsError: something given is not usable.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        return cls._of(given, SettingsFile() if file is None else SettingsFile.read(file))

    @classmethod
    def _of(cls, given: Mapping[str, Any], written: SettingsFile) -> Self:
        """The settings of a file that has been read; see `load`."""
        try:
            return cls(**{**given, _FILE: written})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise SettingsError(cls._in_a_sentence(first, cls._sources(given, written))) from None

    @classmethod
    def places(cls, flags: Mapping[str, Any], file: Path | None) -> dict[str, str]:
        """Where each setting stands that is no default, in words, for the same arguments as `load`."""
        sources = cls._sources(flags, SettingsFile() if file is None else SettingsFile.read(file))
        found = ((name, place_of((name,), sources)) for name in cls.model_fields)
        return {name: place for name, place in found if place} | dict.fromkeys(flags, "the command line")

    @classmethod
    def elsewhere(cls, keys: Keys) -> str:  # noqa: ARG003 - for those who know
        """Where that stands which is no setting, behind the complaint of it; empty where a slip is likelier."""
        return ""

    @classmethod
    def _sources(cls, flags: Mapping[str, Any], file: SettingsFile) -> list[Source]:
        """Where settings are looked for, the highest precedence first."""
        return [
            Source(flags, lambda _keys: ""),  # a flag's own name says where it stands
            Source(Environment(cls)(), lambda keys: f"{PREFIX}{keys[0]}".upper()),
            Source(mosquitto_environment(cls, file.values), mosquitto_place),
            Source(file.values, file.place),
        ]

    @classmethod
    def _in_a_sentence(cls, error: ErrorDetails, sources: list[Source]) -> str:
        keys: Keys = error["loc"] if error["type"] == "missing" else said_keys(error["loc"], sources)
        text = _IN_A_FILE.get(error["type"]) or wording(error).removeprefix("Value error, ")
        text = f"{text[0].lower()}{text[1:]}"
        field = _model_at(cls, keys[:-1]).model_fields.get(str(keys[-1])) if keys else None
        if error["type"] in _OUT_OF_BOUNDS and field is not None and (words := allowed(field)) is not None:
            text = f"must be {words}"
        conflict = error.get("ctx", {}).get("error")
        if isinstance(conflict, ConflictError):
            return f"{conflict}{_stated(conflict.names, sources)}"
        name, place = ".".join(str(step) for step in keys), place_of(keys, sources)
        if error["type"] == "extra_forbidden":
            text = f"there is no setting {name}{cls.elsewhere(keys) or nearest(str(keys[-1]), _known(cls, keys[:-1]))}"
        elif not place.startswith((PREFIX, "MQTT_")) or len(keys) > 1:
            text = ": ".join(part for part in (name, text) if part)
        return ": ".join(part for part in (place, text) if part)


class ConnectionSettings(FileSettings):
    """How to reach the broker."""

    broker: Annotated[str, BeforeValidator(_joined), AfterValidator(_check_broker)] = Field(
        "mqtt://127.0.0.1:1883",
        description="Where the broker is: mqtt://, mqtts://, ws:// or wss://[user@]host[:port]. Several, repeated or "
        "with commas between them, are tried in turn.",
        json_schema_extra={"repeated": True},
    )
    username: Username | None = Field(None, description="The user at the broker.")
    password: SecretStr | None = Field(None, description="The password at the broker (environment or file only).")
    password_file: Path | None = Field(None, description="A file that holds the password.")
    cafile: Path | None = Field(None, description="Certificate authorities to trust (PEM) instead of the system's.")
    cert: Path | None = Field(None, description="Client certificate (PEM).")
    key: Path | None = Field(None, description="The client certificate's private key (PEM).")
    keepalive: Annotated[int, Field(ge=5, le=3600)] = Field(
        30, description="Seconds between signs of life to the broker."
    )
    mqtt_version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto: MQTT 5, and 3.1.1 where that is refused."
    )
    max_packet_bytes: Annotated[Size, Field(ge=256, le=268_435_460)] | None = Field(
        None,
        description="The largest packet that the broker takes, where it cannot say so itself (MQTT 3.1.1).",
        json_schema_extra={"default": "none", "metavar": "SIZE"},
    )

    @property
    def urls(self) -> tuple[BrokerUrl, ...]:
        """The brokers, in the order in which they are tried: all reached in one way, and as the same user."""
        return parse_urls(self.broker)

    @model_validator(mode="after")
    def _uses_its_tls_files(self) -> Self:
        """A certificate authority that is named and not asked would let everything go in clear, without a word."""
        url = self.urls[0]
        given = [name for name in ("cafile", "cert", "key") if getattr(self, name) is not None]
        if given and not url.tls:
            raise ConflictError(
                f"{' and '.join(given)}: {url} is not encrypted; the broker must be a {url.scheme}s:// one",
                "broker",
                *given,
            )
        if self.key is not None and self.cert is None:
            raise ConflictError("key: it belongs to a certificate; cert names none", "key")
        return self

    @model_validator(mode="after")
    def _says_whose_password_it_is(self) -> Self:
        given = [name for name in ("password", "password_file") if getattr(self, name)]
        if given and not (self.username or self.urls[0].username):
            raise ConflictError(
                f"{' and '.join(given)}: a password is never sent without a user; give username too", *given
            )
        return self

    def link_options(self, client_id: str, **more: Any) -> LinkOptions:
        """These settings as the link takes them.

        Raises:
            SettingsError: the password file cannot be read, or MQTT cannot carry the password.
        """
        first, *others = self.urls
        return LinkOptions(
            url=first,
            others=tuple(others),
            client_id=client_id,
            username=self.username,
            password=self._secret(),
            tls=Tls(self.cafile, self.cert, self.key),
            keepalive=self.keepalive,
            protocol=_PROTOCOLS[self.mqtt_version],
            max_packet_bytes=self.max_packet_bytes,
            **more,
        )

    def _secret(self) -> str | None:
        if self.password is not None:
            return _check_password(self.password.get_secret_value())
        if self.password_file is None:
            return None
        try:
            return _check_password(self.password_file.read_text().strip())
        except OSError as error:
            raise SettingsError(f"cannot read the password file: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError("the password file is not text") from None


def _stated(names: tuple[str, ...], sources: list[Source]) -> str:
    """Where settings stand, in brackets; those that do not stand anywhere have their defaults."""
    places = [(name, place_of((name,), sources)) for name in names]
    stated = "; ".join(f"{name}: {place}" for name, place in places if place)
    return f" ({stated})" if stated else ""


def _known(model: type[BaseModel], keys: Keys) -> list[str]:
    """The names of the settings below some keys."""
    return list(_model_at(model, keys).model_fields)


def _model_at(model: type[BaseModel], keys: Keys) -> type[BaseModel]:
    for key, below in zip(keys, (*keys, "")[1:], strict=True):
        if key in model.model_fields:
            kinds = list(_models_in(model.model_fields[str(key)].annotation))
            # A list of one kind or a mapping of another: the number of an entry tells which.
            model = kinds[0 if isinstance(below, int) else -1] if kinds else model
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for arm in get_args(annotation):
        yield from _models_in(arm)
