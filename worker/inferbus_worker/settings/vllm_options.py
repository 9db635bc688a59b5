"""vLLM's own options in the configuration file: `vllm: {max_model_len: 8192}` is `--max-model-len 8192`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, PlainSerializer

from inferbus_worker.settings.masking import masked

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*", re.IGNORECASE)


def _check(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot be the name of an option")
        if value is None or value in ([], {}):
            raise ValueError(f"{name} has no value")
    return options


def _masked(options: dict[str, Any]) -> Any:
    return masked(options)


#: Options by their names, with underscores or dashes.
VllmOptions = Annotated[dict[str, Any], AfterValidator(_check), PlainSerializer(_masked, when_used="json")]


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The options as vLLM's command line takes them."""
    return [word for name, value in options.items() for word in _words(flag(name), value)]


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(name: str, value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}={json.dumps(typed(value))}"]
    if isinstance(value, list):
        return [name, *(json.dumps(typed(each)) if isinstance(each, dict | list) else str(each) for each in value)]
    match str(value).lower():
        case "true":
            return [name]
        case "false":
            return [f"--no-{name[2:]}"]
        case _:
            return [f"{name}={value}"]


def typed(value: object) -> object:
    """What stands within JSON, with JSON's own numbers and booleans; the file's reader makes texts of everything."""
    if isinstance(value, dict):
        return {name: typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    try:
        return json.loads(str(value)) if isinstance(value, str) else value
    except ValueError:
        return value
