"""A case: what is sent, and what has to come. `cases/*.yaml` hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from inferbus_client.errors import SettingsError
from inferbus_client.wording import wording

#: Those of the contract, which come with this package.
CASES: Final = Path(__file__).parent / "cases"

MqttVersion = Literal["3.1.1", "5"]


def _is_pattern(text: str) -> str:
    try:
        re.compile(text.replace("{", "").replace("}", ""))
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Send(_Part):
    """A message to publish. In all texts names in braces are filled in; see `Names`.

    Attributes:
        topic: where to.
        payload: as text.
        hexadecimal: as bytes, instead.
        fields: as a JSON object, instead.
        qos: with which it is published.
        response_topic: where replies go (MQTT 5).
        correlation: what comes back with them (MQTT 5).
        expiry: seconds after which it is worthless (MQTT 5).
        properties: user properties (MQTT 5).
    """

    topic: str
    payload: str = ""
    hexadecimal: str | None = Field(None, alias="hex", pattern="^([0-9a-f]{2})*$")
    fields: dict[str, Any] | None = Field(None, alias="json")
    qos: Literal[0, 1] = 1
    response_topic: str | None = None
    correlation: str | None = None
    expiry: int | None = Field(None, ge=1)
    properties: dict[str, str] = Field(default_factory=dict)


class Expect(_Part):
    """One message that has to come.

    Attributes:
        topic: where, as a filter.
        text: what its text is, as a regular expression for the whole of it.
        says: what a worker says of itself there: its presence, or its stats.
        properties: MQTT 5's user properties that it has to have, at least; looked at in MQTT 5 alone.
        correlation: its correlation data; looked at in MQTT 5 alone.
    """

    topic: str = "{home}"
    text: Annotated[str, AfterValidator(_is_pattern)] | None = None
    says: Literal["presence", "stats"] | None = None
    properties: dict[str, str] = Field(default_factory=dict)
    correlation: str | None = None


class Replies(_Part):
    """The JSON replies to one request, to their end. What holds for all is looked at besides: see `judge_replies`.

    Attributes:
        request: its id; whatever it is where nothing is said.
        topic: where they come, as a filter.
        types: their types, as a regular expression for all of them with a space between: `accepted( delta)* done`.
        last: what the last one has to have, at least; a text that begins with `~` is a regular expression.
    """

    request: str | None = None
    topic: str = "{home}"
    types: Annotated[str, AfterValidator(_is_pattern)]
    last: dict[str, Any] = Field(default_factory=dict)


class Step(_Part):
    """One thing of these.

    Attributes:
        send: a message.
        expect: a message that has to come.
        replies: JSON replies that have to come.
        silence: seconds in which nothing may come.
    """

    send: Send | None = None
    expect: Expect | None = None
    replies: Replies | None = None
    silence: float | None = Field(None, gt=0, le=60)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Step:
        if sum(part is not None for part in (self.send, self.expect, self.replies, self.silence)) != 1:
            raise ValueError("a step is one of send, expect, replies and silence")
        return self


class Case(_Part):
    """What has to hold.

    Attributes:
        name: a sentence.
        half: of the contract.
        needs: what the project has to allow for it, which not every one does.
        mqtt: the versions that it can be tried in.
        listen: the filters to subscribe to.
        steps: one after the other.
    """

    name: str
    half: Literal["text", "json", "announcements"]
    needs: Literal["tools"] | None = None
    mqtt: tuple[MqttVersion, ...] = ("3.1.1", "5")
    listen: tuple[str, ...] = ("{home}/#",)
    steps: tuple[Step, ...] = Field(min_length=1)


_CASES: Final = TypeAdapter(list[Case])


def load_cases(folder: Path = CASES) -> list[Case]:
    """The cases of every `*.yaml` in a folder, by the files' names.

    Raises:
        SettingsError: there is none, or one cannot be read.
    """
    cases: list[Case] = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            cases += _CASES.validate_python(yaml.safe_load(file.read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"{file}: {error}") from None
        except ValidationError as error:
            worst = error.errors(include_url=False)[0]
            where = ".".join(str(step) for step in worst["loc"])
            raise SettingsError(f"{file}: {f'{where}: ' if where else ''}{wording(worst)}") from None
    if not cases:
        raise SettingsError(f"there are no cases in {folder} (*.yaml)")
    return cases


class Names:
    """What stands for the names in braces, anew for each case.

    Args:
        names: `scope`, `project`, `home` (where replies go), `session`, `request`, `client`, `worker`.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = {f"{{{name}}}": value for name, value in names.items()}

    def text(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text

    def pattern(self, pattern: str) -> re.Pattern[str]:
        """The same in a regular expression."""
        for name, value in self._names.items():
            pattern = pattern.replace(name, re.escape(value))
        return re.compile(pattern, re.DOTALL)

    def value(self, value: Any) -> Any:
        """The same in whatever JSON can hold."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(one) for key, one in value.items()}
        if isinstance(value, Iterable):
            return [self.value(one) for one in value]
        return value
