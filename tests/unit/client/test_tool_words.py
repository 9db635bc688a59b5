"""What is said of functions that can be no tools, and of options that are not there."""

from __future__ import annotations

from typing import Any

import pytest

from inferbus_client import Client
from inferbus_client.errors import OptionTypeError


def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


#: Nothing of this is ever sent, so nobody has to listen.
CLIENT = Client("mqtt://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": add}, "tools must be a list"),
        ({}, "run_tools: there are no tools to run: tools=[function, …]"),
        ({"tools": []}, "run_tools: there are no tools to run: tools=[function, …]"),
        ({"tools": [add, {"type": "function"}]}, "run_tools: tools must be functions"),
        ({"tool": [add]}, "there is no option 'tool'; did you mean tools?"),
        ({"tools": [add], "max_rounds": 2}, "there is no option 'max_rounds'; did you mean max_tool_rounds?"),
        ({"tools": [lambda x: x]}, "tools: '<lambda>' is no name for a tool: letters, digits and _.:/- alone"),
    ],
)
def test_what_cannot_be_run_is_said_by_its_own_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionTypeError) as refused:
        CLIENT.ask("hello", run_tools=True, **options)
    assert str(refused.value) == words


def test_a_typing_error_in_run_tools_is_told_from_tools() -> None:
    with pytest.raises(OptionTypeError, match=r"there is no option 'run_tool'; did you mean run_tools\?"):
        CLIENT.ask("hello", tools=[add], run_tool=True)  # type: ignore[call-arg]


def test_a_stream_says_that_it_runs_none() -> None:
    with pytest.raises(OptionTypeError, match="there is no option 'run_tools': ask alone runs tools"):
        next(iter(CLIENT.stream("hello", tools=[add], run_tools=True)))  # type: ignore[call-arg]


def test_what_is_the_clients_is_said_to_be() -> None:
    with pytest.raises(OptionTypeError, match=r"there is no option 'qos': it is the client's, Client\(qos=…\)"):
        CLIENT.ask("hello", qos=0)  # type: ignore[call-arg]
