"""What pydantic finds wrong with a value, in the words of somebody who does not know pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_WORDS: Final = {
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} elements",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "path_type": "must be a path",
    "string_pattern_mismatch": "must match {pattern}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "must have {discriminator}",
    "extra_forbidden": "is not known",
}


def wording(error: Mapping[str, Any]) -> str:
    """What is wrong, to stand behind the value's name.

    Args:
        error: one of `ValidationError.errors()`, with its context. What it does not name keeps pydantic's words.
    """
    # 2.0 is 2 to everybody else.
    context = {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in error.get("ctx", {}).items()
    }
    if error["type"] in {"string_too_short", "too_short"} and context["min_length"] == 1:
        return "must not be empty"
    words = _WORDS.get(error["type"])
    return str(error["msg"]) if words is None else words.format_map(context)


def is_wrong_type(error: Mapping[str, Any]) -> bool:
    """Whether the value is of another kind altogether: of a union's complaints, the one that says the least."""
    return str(error["type"]).endswith("_type")
