"""How much a stranger's JSON schema may ask for, a `response_format`'s or a tool's: what it costs is known beforehand.

Grammar compilers recurse over a schema, unroll its bounds and turn its patterns into automata. What they do with one
that is within these bounds is a matter of milliseconds; with one that is not, of minutes or of a stack that overflows.
Everything here is one pass over the value, without recursion and without compiling anything of the requester's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

_TYPES: Final = ("text", "json_object", "json_schema")

#: Letters of all keys and texts together.
MAX_CHARACTERS: Final = 16_384
#: Letters and values of all tools of a request together, as many times as much: an agent has some dozens of them.
MAX_OF_TOOLS: Final = 4
#: Levels of objects and lists, those of `response_format` itself among them.
MAX_DEPTH: Final = 32
#: Values of any kind.
MAX_ELEMENTS: Final = 2_000
#: Entries of one `anyOf`, `oneOf` or `allOf`.
MAX_BRANCHES: Final = 64
#: The largest `minLength` or `maxLength`.
MAX_LENGTH: Final = 10_000
#: The largest bound on the number of items or properties.
MAX_ITEMS: Final = 1_000
#: Letters of one pattern.
MAX_PATTERN: Final = 512
#: Groups within groups.
MAX_PATTERN_DEPTH: Final = 16
#: What one pattern matches, with its repetition counts written out: `(ab{3}){5}` is 20.
MAX_PATTERN_STEPS: Final = 4_096
#: All bounds and all patterns together, each pattern written out.
MAX_STEPS: Final = 20_000
#: The least common multiple of every `multipleOf`, their decimal points left out.
MAX_MULTIPLE: Final = 1_000
#: No number is larger, and none but 0 is nearer to 0: a range becomes a pattern of as many digits.
MAX_NUMBER: Final = 2**64
LEAST_NUMBER: Final = 1e-12

_BRANCHES: Final = frozenset({"anyOf", "oneOf", "allOf"})
_LENGTHS: Final = frozenset({"minLength", "maxLength"})
_ITEMS: Final = frozenset(
    {"minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"},
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
#: Instructions to one of the compilers; they are the operator's to give.
_INSTRUCTIONS: Final = "x-guidance"

_COUNT: Final = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
_BACK_REFERENCE: Final = frozenset("123456789k")


class SchemaError(ValueError):
    """A `response_format`, or tools, not to be taken. The text is a clause for the requester, and names the bound."""


def check_response_format(shape: Mapping[str, Any]) -> None:
    """Refuse what no engine should have to read.

    Raises:
        SchemaError: it is none of the three types, has no schema where it needs one, or is over a bound.
    """
    if shape.get("type") not in _TYPES:
        raise SchemaError(f"must be of type {', '.join(_TYPES[:-1])} or {_TYPES[-1]}")
    if shape["type"] == "json_schema":
        described = shape.get("json_schema")
        if not isinstance(described, Mapping) or not isinstance(described.get("schema"), Mapping):
            raise SchemaError("of type json_schema needs an object json_schema.schema")
    _Size().weigh(shape)


def check_tools(parameters: Iterable[Mapping[str, Any]]) -> None:
    """Refuse tools whose parameters, all together, no engine should have to read: a forced choice compiles them all.

    Raises:
        SchemaError: they are over a bound.
    """
    size = _Size(MAX_OF_TOOLS)
    for each in parameters:
        size.weigh(each)


class _Size:
    """What was found so far; every method raises `SchemaError` when it is too much."""

    def __init__(self, times: int = 1) -> None:
        self._most_elements, self._most_characters = times * MAX_ELEMENTS, times * MAX_CHARACTERS
        self._elements = self._characters = self._steps = 0
        self._multiple = 1

    def weigh(self, schema: Mapping[str, Any]) -> None:
        """Add all that a schema holds."""
        waiting: list[tuple[object, int]] = [(schema, 1)]
        while waiting:
            value, depth = waiting.pop()
            self.add(value)
            if isinstance(value, Mapping):
                for key, inner in value.items():
                    self.add_text(key)
                    self.add_keyword(key, inner)
                inners: Iterator[object] = iter(value.values())
            elif isinstance(value, list):
                inners = iter(value)
            else:
                continue
            if depth > MAX_DEPTH:
                raise SchemaError(f"nests deeper than {MAX_DEPTH} levels")
            waiting += ((inner, depth + 1) for inner in inners)

    def add(self, value: object) -> None:
        self._elements += 1
        if self._elements > self._most_elements:
            raise SchemaError(f"has more than {self._most_elements} elements")
        if isinstance(value, str):
            self.add_text(value)
        elif isinstance(value, int | float):
            if not abs(value) <= MAX_NUMBER:  # NaN is in no order with anything
                raise SchemaError(f"has a number over {MAX_NUMBER}")
            if 0 < abs(value) < LEAST_NUMBER:
                raise SchemaError(f"has a number nearer to 0 than {LEAST_NUMBER:g}")

    def add_text(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > self._most_characters:
            raise SchemaError(f"has more than {self._most_characters} characters")
        if "\x00" in text:
            raise SchemaError("has a NUL character")

    def add_keyword(self, key: str, value: object) -> None:
        """Weigh what a key of an object means, should the object be a schema and the key not a property's name."""
        if key == _INSTRUCTIONS:
            raise SchemaError(f"must not have {_INSTRUCTIONS}")
        if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
            raise SchemaError(f"must not have a {key} to anything but itself (#...)")
        if key in _BRANCHES and isinstance(value, list) and len(value) > MAX_BRANCHES:
            raise SchemaError(f"has more than {MAX_BRANCHES} entries in {key}")
        if key == "pattern" and isinstance(value, str):
            self._add_steps(_steps_of(value))
        elif key == "patternProperties" and isinstance(value, Mapping):
            self._add_steps(sum(_steps_of(pattern) for pattern in value))
        elif isinstance(value, int | float):
            self._add_number(key, value)

    def _add_number(self, key: str, value: float) -> None:
        largest = MAX_LENGTH if key in _LENGTHS else MAX_ITEMS if key in _ITEMS else None
        if largest is not None:
            if not value <= largest:
                raise SchemaError(f"has a {key} over {largest}")
            self._add_steps(math.ceil(max(value, 0)))
        elif key == "multipleOf" and value:
            self._multiple = math.lcm(self._multiple, _digits(value))
            if self._multiple > MAX_MULTIPLE:
                raise SchemaError(f"has multipleOf that together are over {MAX_MULTIPLE}")

    def _add_steps(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise SchemaError(f"has bounds and patterns that together are over {MAX_STEPS}")


def _digits(number: float) -> int:
    """The number without its decimal point and the zeros around it: 0.25 and 2500 are 25."""
    mantissa = f"{abs(number):.12f}".replace(".", "").strip("0")
    return int(mantissa or "1")


def _steps_of(pattern: str) -> int:
    """How long the pattern is with its repetition counts written out.

    Raises:
        SchemaError: it is over a bound, or looks around or back, which no automaton can.
    """
    if len(pattern) > MAX_PATTERN:
        raise SchemaError(f"has a pattern of more than {MAX_PATTERN} characters")
    groups = [0]  # the steps of each open group so far; the first is the pattern itself
    last = position = 0  # the steps of the last atom, which a repetition count is about
    while position < len(pattern):
        count = _COUNT.match(pattern, position)
        if count is not None:
            times = max(int(number) for number in count.groups(default="") if number)
            groups[-1] += last * max(times - 1, 0)
            last *= times
            position = count.end()
        elif pattern[position] == "(":
            _check_group(pattern, position)
            groups.append(0)
            if len(groups) > MAX_PATTERN_DEPTH + 1:
                raise SchemaError(f"has a pattern with more than {MAX_PATTERN_DEPTH} groups in each other")
            position += 1
        else:
            if pattern[position] == ")" and len(groups) > 1:
                last, position = groups.pop(), position + 1
            else:
                last, position = 1, _end_of_atom(pattern, position)
            groups[-1] += last
        if groups[-1] > MAX_PATTERN_STEPS:
            raise SchemaError(f"has a pattern that repeats over {MAX_PATTERN_STEPS} times")
    return sum(groups)


def _check_group(pattern: str, position: int) -> None:
    if pattern.startswith("(?", position) and not pattern.startswith("(?:", position):
        raise SchemaError(
            "has a pattern with (?, which may only be followed by a colon: no lookarounds, names or flags"
        )


def _end_of_atom(pattern: str, position: int) -> int:
    """Where a letter, an escape or a class ends."""
    if pattern[position] == "\\":
        if pattern[position + 1 : position + 2] in _BACK_REFERENCE:
            raise SchemaError("has a pattern with a back reference")
        return position + 2
    if pattern[position] != "[":
        return position + 1
    position += 1
    while position < len(pattern) and pattern[position] != "]":
        position += 2 if pattern[position] == "\\" else 1
    return position + 1
