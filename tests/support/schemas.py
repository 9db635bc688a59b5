"""JSON schemas that are as bad as the contract's bounds allow."""

from __future__ import annotations

from typing import Any


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
