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

from inferbus_client.contract.wire.schemas import SchemaError, check_response_format
from support.schemas import WORST
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
