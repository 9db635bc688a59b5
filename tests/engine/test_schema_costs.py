"""No schema within the contract's bounds crashes the grammar compiler, or keeps it busy."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from inferbus_client.wire.schemas import SchemaError, check_response_format
from support.trials import size

COMPILER = Path(__file__).with_name("schema_compiler.py")
#: What one step may take; a busy machine doubles it many times over before the test's own limit is reached.
SECONDS = 1.0
LIMIT = 20.0

pytestmark = pytest.mark.usefixtures("vllm_needed")


class Compiler:
    """The compiler's process; one that crashed or hangs fails the test, and is replaced for the next schema."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def seconds(self, schema: object) -> float:
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(schema) + "\n")
        self._process.stdin.flush()
        return float(self._line(self._process, LIMIT))

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(COMPILER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line(process, 120) == "ready\n"
        return process

    def _line(self, process: subprocess.Popen[str], timeout: float) -> str:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], timeout)
        line = process.stdout.readline() if readable else ""
        if not line:
            self.stop(process)
            pytest.fail(f"the compiler hung, or ended with {process.returncode}")
        return line

    def stop(self, process: subprocess.Popen[str] | None = None) -> None:
        process, self._process = process or self._process, None
        if process is not None:
            process.kill() if process.poll() is None else None
            process.communicate()


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.stop()


def is_taken(schema: object) -> bool:
    try:
        check_response_format({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    except SchemaError:
        return False
    return True


def nested(keyword: str, levels: int, *beside: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {keyword: [schema, *beside]}
    return schema


def patterns(*sources: str, keyword: str = "anyOf") -> dict[str, Any]:
    return {keyword: [{"type": "string", "pattern": source} for source in sources]}


def fan_out(keyword: str, levels: int, width: int) -> dict[str, Any]:
    """References that would be width to the power of levels many, were each followed."""
    branches = {f"a{level}": {keyword: [{"$ref": f"#/$defs/a{level + 1}"}] * width} for level in range(levels)}
    return {"$defs": {**branches, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


#: As bad as the bounds allow, each in a way of its own.
WORST: dict[str, dict[str, Any]] = {
    "bounded arrays": {"anyOf": [{"type": "array", "maxItems": 150, "minItems": n} for n in range(60)]},
    "bounded strings": {"anyOf": [{"type": "string", "maxLength": 300 + n} for n in range(60)]},
    "arrays in arrays": {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}},
    "deep properties": {"properties": {"a": {"properties": {"b": nested("anyOf", 9)}}}},
    "deep branches": nested("anyOf", 13, {"type": "integer"}),
    "deep intersections": nested("allOf", 13, {"minLength": 1}),
    "a product of branches": {
        "allOf": [{"anyOf": [{"properties": {f"{n}{m}": {"type": "string"}}} for m in range(6)]} for n in range(20)]
    },
    "a product of patterns": {"allOf": [patterns(f"a{n}", f"b{n}") for n in range(16)]},
    "references": fan_out("prefixItems", 20, 10),
    "references to branches": fan_out("anyOf", 20, 10),
    "references to intersections": fan_out("allOf", 20, 10),
    "a circle": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a circle of branches": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]},
    "500 optional properties": {"type": "object", "properties": {f"x{n}": {} for n in range(500)}},
    "a long enumeration": {"enum": [f"value number {n}" for n in range(900)]},
    "long words": {"enum": ["x" * 8000, "y" * 8000]},
    "exponential automata": patterns(*[f"^(.*{letter}.{{40}}b.*)$" for letter in "acdefghij"]),
    "intersected automata": patterns(*[f"^.*{letter}.{{40}}$" for letter in "abcdefghij"], keyword="allOf"),
    "stars in stars": patterns("(((((a*)*)*)*)*)*" * 30),
    "a repeated class": patterns(r"^[^a][^b]*[^c]{60}([^d]|.){60}x.{500}$"),
    "optional letters": patterns(r"^(\w?\s?){1000}$", "^(a?){1000}a{1000}$"),
    "repetitions of repetitions": patterns("^((a{1,16}b?){1,16}c?){1,14}$"),
    "alternatives": patterns("|".join("ab"[n % 2] * (n % 9 + 1) for n in range(80))),
    "deep groups": patterns("(" * 16 + "a|b" + ")*" * 16),
    "every escape": patterns(r"^(\w|\d|\s|\W|\D|\S|\p{L}|.){100}$"),
    "coprime multiples": {"anyOf": [{"type": "integer", "multipleOf": n} for n in (7, 8, 9, 2, 3, 4, 6)]},
    "multiples in ranges": {
        "anyOf": [
            {"type": "integer", "minimum": -(10**15) - n, "maximum": 10**15 + n, "multipleOf": 997} for n in range(30)
        ]
    },
    "ranges of fractions": {
        "anyOf": [{"type": "number", "minimum": -1 - n * 1.2e-12, "maximum": 1.2345678912e12 + n} for n in range(60)]
    },
    "patterns as keys": {"patternProperties": {f"^x{n}(.*a.{{30}})$": {"type": "string"} for n in range(60)}},
}

#: Keywords with values that fit them, and now and then with values that do not.
SMALL = st.integers(-3, 1000) | st.sampled_from([0.5, 97, 101, 10_000, 2**53, -1e15])
PATTERNS = st.lists(
    st.sampled_from([*"()[]|.*+?^$-ab1", "{2}", "{1,40}", "{4,}", "(?:", r"\w", r"\d", r"\.", "[^a]", "(a|b)"]),
    max_size=30,
).map("".join)
KINDS = st.sampled_from(["string", "integer", "number", "object", "array", "null", "boolean"])
LEAVES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS | st.lists(KINDS, max_size=3),
        "enum": st.lists(st.text(max_size=8) | st.integers() | st.none(), max_size=4),
        "const": st.text(max_size=8) | st.floats(),
        "pattern": PATTERNS,
        "format": st.sampled_from(["date-time", "email", "uri", "uuid", "ipv6", "nonsense"]),
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "#/nowhere"]),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], SMALL),
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"], SMALL),
    },
)


def grown(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, max_size=6)
    named = st.dictionaries(st.sampled_from("abcdef") | PATTERNS, inner, max_size=6)
    keywords = {
        **dict.fromkeys(["anyOf", "allOf", "oneOf", "prefixItems"], several),
        **dict.fromkeys(["properties", "patternProperties", "$defs"], named),
        **dict.fromkeys(["items", "additionalProperties", "propertyNames", "not", "if", "contains"], inner),
        "required": st.lists(st.sampled_from("abcdef"), max_size=4),
    }
    return st.tuples(LEAVES, st.fixed_dictionaries({}, optional=keywords)).map(lambda pair: {**pair[0], **pair[1]})


SCHEMAS = st.recursive(LEAVES, grown, max_leaves=30)


@pytest.mark.parametrize("schema", WORST.values(), ids=WORST.keys())
def test_the_worst_within_the_bounds_is_compiled_at_once(compiler: Compiler, schema: dict[str, Any]) -> None:
    assert is_taken(schema)
    assert compiler.seconds(schema) < SECONDS


@settings(max_examples=size(150, 20_000), deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS)
def test_no_schema_that_is_taken_crashes_the_compiler_or_keeps_it_busy(
    compiler: Compiler, schema: dict[str, Any]
) -> None:
    assume(is_taken(schema))
    assert compiler.seconds(schema) < SECONDS
