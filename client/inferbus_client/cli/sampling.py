"""The options about one answer: which model, sampling, the system prompt, more parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from pydantic.alias_generators import to_camel

from inferbus_client.contract.wire import Params
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Addresses, Messages
from inferbus_client.exchange.options import AskOptions, request_fields

Command = TypeVar("Command", bound=Callable[..., Any])

#: By what they are called on the wire.
_OPTIONS: Final = {to_camel(name): name for name in ("model", "temperature", "top_p", "max_tokens", "system_prompt")}


def sampling_options(command: Command) -> Command:
    """A decorator that adds `--model`, `--temperature`, `--top-p`, `--max-tokens`, `--system-prompt` and `--param`."""
    for option in (
        click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Another one, by its OpenAI name."),
        click.option("--system-prompt", metavar="TEXT", help="Replaces the project's prompt in this session."),
        click.option("--max-tokens", type=int, metavar="N", help="The longest answer."),
        click.option("--top-p", type=float, metavar="P", help="Nucleus sampling."),
        click.option("--temperature", type=float, metavar="T", help="0 always takes the likeliest token."),
        click.option("--model", metavar="NAME", help="Which one is to answer, where the project has several."),
    ):
        command = option(command)
    return command


def ask_options(flags: dict[str, Any]) -> AskOptions:
    """These options as the library takes them.

    Raises:
        click.UsageError: a parameter is not NAME=VALUE, or the worker would refuse a value.
    """
    options: AskOptions = {
        "model": flags["model"],
        "temperature": flags["temperature"],
        "top_p": flags["top_p"],
        "max_tokens": flags["max_tokens"],
        "system_prompt": flags["system_prompt"],
    }
    if flags["params"]:
        options["params"] = dict(_parameter(text) for text in flags["params"])
    if (reason := refusal(options, as_flag)) is not None:
        raise click.UsageError(reason)
    return options


def refusal(
    options: AskOptions, spelled: Callable[[str], str] = str, *, messages: Messages | None = None
) -> str | None:
    """Why the worker would refuse every question with these options; None where it would not.

    Args:
        options: these.
        spelled: what the user calls an option or a parameter.
        messages: a whole conversation that is asked in the place of a question.
    """
    try:
        question, fields = "a question" if messages is None else None, request_fields(options)
        Addresses("check", "check").request(question, "check", stream=False, messages=messages, **fields)
    except InvalidRequestError as error:
        key, colon, text = error.failure.detail.partition(":")
        known = key in _OPTIONS or key.startswith("params.")
        name = spelled(_OPTIONS.get(key, key.removeprefix("params."))) if known else key
        return f"{name}{colon}{text}"
    return None


def as_flag(name: str) -> str:
    """What the command line calls an option or a parameter."""
    return f"--{name.replace('_', '-')}" if name in _OPTIONS.values() else f"--param {name}"


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--param takes NAME=VALUE, not {text!r}.")
    if name not in Params.model_fields:
        raise click.UsageError(f"--param {name}: there is none; there are {', '.join(Params.model_fields)}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
    except RecursionError:
        raise click.UsageError(f"--param {name} nests too deep.") from None
