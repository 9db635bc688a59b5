"""examples/home-assistant: its keys, its templates, and what it says to a real worker and makes of the replies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jinja2
import jsonschema
import yaml

from support.example_bus import EXAMPLES, LIMITED, OPEN, ExampleBus
from support.listener import Listener
from support.waiting import until

PACKAGE: Final = yaml.safe_load((EXAMPLES / "home-assistant/inferbus.yaml").read_text())
SENSOR: Final = PACKAGE["mqtt"]["sensor"][0]
SEQUENCE: Final = PACKAGE["script"]["ask_inferbus"]["sequence"]
REPEAT: Final = SEQUENCE[0]["repeat"]


def only(*required: str, **more: Any) -> dict[str, Any]:
    """An object of these keys and of no others; those of `required` have to be there."""
    properties = {name: more.get(name, {}) for name in (*required, *more)}
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def several(of: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": of}


#: As far as the package uses them, the keys that Home Assistant documents for its steps and entities.
CONDITION: Final = only("condition", "value_template")
STEP: Final = {
    "oneOf": [
        only("action", data={"type": "object"}, response_variable={"type": "string"}),
        only("wait_template", timeout={"type": "string"}),
        only("delay"),
        only("variables"),
        only("stop", response_variable={"type": "string"}),
        only("if", "then", **{"if": several(CONDITION), "then": several({"$ref": "#/$defs/step"})}),
        only(
            "repeat",
            repeat=only("sequence", "until", sequence=several({"$ref": "#/$defs/step"}), until=several(CONDITION)),
        ),
    ]
}
STEPS: Final = several({"$ref": "#/$defs/step"})
SCRIPT: Final = only("sequence", alias={}, description={}, mode={"enum": ["queued"]}, fields={}, sequence=STEPS)
AUTOMATION: Final = only("triggers", "actions", id={}, alias={}, conditions={}, actions=STEPS)
TEXT: Final = {"type": "string"}
ENTITY: Final = only(
    "state_topic",
    name=TEXT,
    unique_id=TEXT,
    value_template=TEXT,
    json_attributes_topic=TEXT,
    json_attributes_template=TEXT,
)
SCHEMA: Final = only(
    mqtt=only("sensor", sensor=several(ENTITY)),
    script={"type": "object", "additionalProperties": SCRIPT},
    automation=several(AUTOMATION),
) | {"$defs": {"step": STEP}}


class HomeAssistant:
    """The sensor, and the script's steps one by one, as Home Assistant renders them."""

    def __init__(self, question: str, identity: str) -> None:
        self.state: dict[str, Any] = {"state": "unknown", "attributes": {}}
        self.context = {"context": {"id": identity}, "question": question}
        self._jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
        self._jinja.filters["to_json"] = json.dumps
        self._jinja.globals["state_attr"] = lambda _entity, name: self.state["attributes"].get(name)

    def rendered(self, template: str, **variables: Any) -> str:
        return self._jinja.from_string(template).render(self.context | variables).strip()

    def is_true(self, template: str, **variables: Any) -> bool:
        return self.rendered(template, **variables) == "True"

    def takes(self, payload: bytes) -> None:
        values = {"value_json": json.loads(payload), "this": self.state}
        attributes = json.loads(self.rendered(SENSOR["json_attributes_template"], **values))
        self.state = {"state": self.rendered(SENSOR["value_template"], **values), "attributes": attributes}

    def answer(self) -> dict[str, str]:
        return {name: self.rendered(template) for name, template in SEQUENCE[1]["variables"]["answer"].items()}


def test_its_keys_are_those_that_are_documented() -> None:
    jsonschema.validate(PACKAGE, SCHEMA)


def test_every_template_can_be_read() -> None:
    found = [text for text in texts(PACKAGE) if "{{" in text]
    assert len(found) > 10
    for template in found:
        jinja2.Environment(autoescape=True).parse(template)


def texts(part: Any) -> Iterator[str]:
    match part:
        case str():
            yield part
        case Mapping():
            for each in part.values():
                yield from texts(each)
        case list():
            for each in part:
                yield from texts(each)


def play(bus: ExampleBus, question: str, identity: str, project: str = OPEN) -> HomeAssistant:
    """What the script does until it ends."""
    home = HomeAssistant(question, identity)
    publish, wait, pause = REPEAT["sequence"]
    with Listener(bus.broker, SENSOR["state_topic"].replace(OPEN, project)) as listener:
        for index in range(1, 6):
            repeat = {"repeat": {"index": index}}
            payload = home.rendered(publish["data"]["payload"], **repeat)
            listener.publish(publish["data"]["topic"].replace(OPEN, project), payload)
            until(lambda: taken(home, listener) and home.is_true(wait["wait_template"], **repeat))  # noqa: B023
            repeat |= {"wait": {"completed": True}}
            if home.is_true(REPEAT["until"][0]["value_template"], **repeat):
                return home
            assert home.is_true(pause["if"][0]["value_template"], **repeat)
            time.sleep(float(home.rendered(pause["then"][0]["delay"]["seconds"])))
    raise AssertionError(home.state)


def taken(home: HomeAssistant, listener: Listener) -> bool:
    while listener.heard:
        home.takes(listener.heard.pop(0).payload)
    return True


def test_a_question_is_answered_whatever_it_is_made_of(bus: ExampleBus) -> None:
    question = 'a "quoted" \\ word\nnaïve {{ states }}'
    home = play(bus, question, "01HOME")
    assert home.answer() == {"code": "ok", "text": question}
    assert home.state["state"] == "done"


def test_a_refusal_is_waited_out(bus: ExampleBus) -> None:
    texts = [play(bus, word, f"04HOME{word}", LIMITED).answer()["text"] for word in ("one", "two")]
    assert texts == ["one", "two"]


def test_a_refusal_that_is_final_ends_it_and_nobody_s_silence_too(bus: ExampleBus) -> None:
    home = play(bus, " ", "02HOME")
    assert home.answer()["code"] == "invalid_request"
    silent = HomeAssistant("hello", "03HOME")
    assert silent.is_true(REPEAT["until"][0]["value_template"], repeat={"index": 1}, wait={"completed": False})
    assert silent.answer()["code"] == "timeout"
