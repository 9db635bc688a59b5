"""What a `response_format` may ask for: everything that is over a bound is refused, and the refusal names the bound."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.wire import InvalidPayloadError, Request, decode_request
from inferbus_client.contract.wire.schemas import MAX_STEPS, SchemaError, check_response_format
from support.steps import steps_of


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def strings(*patterns: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "pattern": pattern} for pattern in patterns]}


#: What may be asked: what people write, and each bound reached.
TAKEN: dict[str, dict[str, Any]] = {
    "empty": {},
    "a choice": {"enum": ["yes", "no", None, 3, 1.5, True]},
    "a record": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 200},
            "when": {"type": "string", "format": "date-time"},
            "plate": {"type": "string", "pattern": r"^[A-Z]{1,3}-[0-9]{2,4}(?:-\d+)?$"},
            "price": {"type": "number", "minimum": 0, "maximum": 1e9, "multipleOf": 0.01},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 50},
        },
        "required": ["name"],
        "additionalProperties": False,
    },
    "a tree": {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
    "properties named like keywords": {
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "maxItems": {"type": "integer"}, "anyOf": {"type": "null"}},
    },
    "depth": nested(29),
    "branches": {"anyOf": [{"const": number} for number in range(64)]},
    "length": {"type": "string", "maxLength": 10_000},
    "items": {"type": "array", "minItems": 1_000, "maxItems": 1_000},
    "pattern length": strings("a" * 512),
    "pattern depth": strings("(" * 16 + "a" + ")" * 16),
    "pattern repetition": strings("(a{64}){64}"),
    "pattern class": strings(r"^[({\]]{3}[^]\(\)$"),
    "a large id": {"type": "integer", "maximum": 2**64},
    "steps of many times": {"anyOf": [{"type": "integer", "multipleOf": number} for number in (250, 500, 1000)]},
}

#: What may not, with the words that name the bound.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern of 30,000 groups": (strings("(" * 30_000 + ")" * 30_000), "a pattern of more than 512 characters"),
    "600 bounded arrays": (
        {"anyOf": [{"type": "array", "items": {"maxLength": 1000}, "maxItems": 1000} for _ in range(600)]},
        "more than 64 entries in anyOf",
    ),
    "bounded arrays in groups": (
        {
            f"p{group}": {"oneOf": [{"type": "array", "maxItems": 1000, "minItems": number} for number in range(10)]}
            for group in range(3)
        },
        "bounds and patterns that together are over 20000",
    ),
    "depth": (nested(30), "nests deeper than 32 levels"),
    "depth of lists": (json.loads('{"enum": ' + "[" * 60 + "]" * 60 + "}"), "nests deeper than 32 levels"),
    "elements": ({"enum": list(range(2_000))}, "more than 2000 elements"),
    "characters": ({"enum": ["x" * 20_000]}, "more than 16384 characters"),
    "characters of a key": ({"properties": {"x" * 20_000: {}}}, "more than 16384 characters"),
    "branches": ({"allOf": [{} for _ in range(65)]}, "more than 64 entries in allOf"),
    "maxLength": ({"type": "string", "maxLength": 10_001}, "a maxLength over 10000"),
    "minLength as a float": ({"type": "string", "minLength": 1e300}, "a minLength over 10000"),
    "minItems": ({"type": "array", "minItems": 1_001}, "a minItems over 1000"),
    "maxProperties": ({"type": "object", "maxProperties": 10**6}, "a maxProperties over 1000"),
    "pattern depth": (strings("(" * 17 + ")" * 17), "a pattern with more than 16 groups in each other"),
    "pattern repetition": (strings("a{1,10000}"), "a pattern that repeats over 4096 times"),
    "repetition in repetition": (strings("((a{1,100}){1,100}){1,100}"), "a pattern that repeats over 4096 times"),
    "repetition of many": (strings("(" + "ab" * 100 + "){30}"), "a pattern that repeats over 4096 times"),
    "an endless count": (strings("a{" + "9" * 500 + "}"), "a pattern that repeats over 4096 times"),
    "many patterns": (strings(*["a{4000}"] * 6), "bounds and patterns that together are over 20000"),
    "patterns as keys": ({"patternProperties": {"(a{99}){99}": {}}}, "a pattern that repeats over 4096 times"),
    "a look ahead": (strings("^(?=a)b"), "no lookarounds, names or flags"),
    "a look behind": (strings("(?<!a)b"), "no lookarounds, names or flags"),
    "flags": (strings("(?i)b"), "no lookarounds, names or flags"),
    "a back reference": (strings(r"^(a)\1"), "a back reference"),
    "multipleOf": ({"type": "integer", "multipleOf": 1234567}, "multipleOf that together are over 1000"),
    "coprime multipleOf": (
        {"anyOf": [{"type": "integer", "multipleOf": number} for number in (97, 101, 103)]},
        "multipleOf that together are over 1000",
    ),
    "fractions of multipleOf": ({"type": "number", "multipleOf": 0.00001234567}, "multipleOf that together are over"),
    "a huge number": ({"type": "number", "maximum": 10**4000}, "a number over 18446744073709551616"),
    "an endless number": ({"type": "number", "maximum": float("inf")}, "a number over"),
    "no number": ({"type": "number", "maximum": float("nan")}, "a number over"),
    "a tiny number": ({"type": "number", "minimum": 1e-300}, "a number nearer to 0 than 1e-12"),
    "another's schema": ({"$ref": "http://127.0.0.1/x.json"}, "a $ref to anything but itself"),
    "a file": ({"items": [{"$dynamicRef": "file:///etc/passwd"}]}, "a $dynamicRef to anything but itself"),
    "instructions to the compiler": ({"x-guidance": {"whitespace_pattern": ".*"}}, "must not have x-guidance"),
    "NUL": (strings("a\x00b"), "a NUL character"),
}


def described(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize("schema", TAKEN.values(), ids=TAKEN.keys())
def test_what_people_ask_for_is_taken(schema: dict[str, Any]) -> None:
    payload = json.dumps({"message": "hello", "params": {"response_format": described(schema)}}).encode()
    request = decode_request(payload)
    assert isinstance(request, Request)
    assert request.params is not None
    assert request.params.response_format == described(schema)


@pytest.mark.parametrize(("schema", "bound"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_over_a_bound_is_refused_and_the_bound_named(schema: dict[str, Any], bound: str) -> None:
    payload = json.dumps({"message": "hello", "sessionId": "s1", "params": {"response_format": described(schema)}})
    with pytest.raises(InvalidPayloadError) as refusal:
        decode_request(payload.encode())
    assert refusal.value.failure.code == "invalid_request"
    assert refusal.value.failure.detail.startswith("params.response_format: ")
    assert bound in refusal.value.failure.detail
    assert refusal.value.envelope.session_id == "s1"


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ({}, "must be of type text, json_object or json_schema"),
        ({"type": "structural_tag", "structures": [], "triggers": []}, "must be of type"),
        ({"type": ["json_object"]}, "must be of type"),
        ({"type": "regex", "regex": ".*"}, "must be of type"),
        ({"type": "json_schema"}, "needs an object json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "needs an object json_schema.schema"),
        (described("{}"), "needs an object json_schema.schema"),
        ({"type": "json_object", "json_schema": nested(60)}, "nests deeper"),
    ],
    ids=str,
)
def test_the_three_types_and_nothing_else(shape: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        check_response_format(shape)


def test_text_and_json_object_need_no_schema() -> None:
    check_response_format({"type": "text"})
    check_response_format({"type": "json_object"})


@given(st.lists(st.sampled_from([*"()[]{}\\|.*+?^$-,:ab19", "{2}", "{1,3}", "{4,}", "(?:"]), max_size=60).map("".join))
def test_no_pattern_confuses_the_check(pattern: str) -> None:
    """It counts, or refuses in words: the pattern may be no pattern at all."""
    with suppress(SchemaError):
        check_response_format(described(strings(pattern)))


def test_the_check_takes_few_steps_on_the_worst_that_fits_a_payload() -> None:
    """In the network thread: a megabyte of whatever costs about as much as it took to parse."""
    worst = [
        strings("(" * 500_000),
        strings("a{1}" * 250_000),
        strings("[" + "\\" * 500_000),
        {"enum": ["x"] * 250_000},
        {"properties": {str(number): {"maxLength": MAX_STEPS} for number in range(40_000)}},
    ]
    for schema in worst:

        def check(schema: object = schema) -> None:
            with pytest.raises(SchemaError):
                check_response_format(described(schema))

        assert steps_of(check) < len(json.dumps(schema))
