"""The options of a request: what cannot be meant is said at once, by its name."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from inferbus_client.contract.trace import TraceContext
from inferbus_client.errors import NotConnectedError
from inferbus_client.exchange.call import Call
from inferbus_client.exchange.core import ClientCore
from inferbus_client.exchange.options import AskOptions, terms_of
from inferbus_client.settings.client import Terms


@pytest.fixture
def core() -> ClientCore:
    return ClientCore(None, {"project": "options"}, caller=threading.current_thread)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("timeout_s", "timeout"), ("Session", "session")],
)
def test_an_unknown_option_is_named_with_the_nearest_one(core: ClientCore, wrong: str, meant: str) -> None:
    options: Any = {wrong: 1}
    with pytest.raises(TypeError, match=f"'{wrong}'.* {meant}\\?"):
        core.request("hello", options, stream=False)


def test_an_option_like_no_other_is_named_alone(core: ClientCore) -> None:
    options: Any = {"zzz": 1}
    with pytest.raises(TypeError, match=r"there is no option 'zzz'$"):
        core.request("hello", options, stream=True)


def test_verbs_know_only_options_that_mean_something_to_them(core: ClientCore) -> None:
    options: Any = {"temperature": 0}
    with pytest.raises(TypeError, match="temperature"):
        core.reset(options)
    options = {"session": "s"}
    with pytest.raises(TypeError, match="session"):
        core.new_session(options)


@pytest.mark.parametrize(
    ("said", "seconds"), [("1s", 1), ("250ms", 0.25), (1.5, 1.5), (2, 2), ("1d", 86400), (None, 90)]
)
def test_a_timeout_is_seconds_or_a_duration(said: Any, seconds: float) -> None:
    assert terms_of({"timeout": said}, Terms(timeout=90)).timeout == seconds


@pytest.mark.parametrize(
    "said",
    [1e10, 10**400, math.inf, -math.inf, math.nan, -1, 0, "0s", "1e10", "2d", "soon", "", "off", b"1s", True, [1], {}],
)
def test_a_timeout_that_cannot_be_meant_is_an_error_at_once(core: ClientCore, said: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout: "):
        core.request("hello", {"timeout": said}, stream=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(("retries", said) for said in (-1, 1.5, "many", True, 101)),
        *(("when_busy", said) for said in ("often", True)),
        *(("session", said) for said in (5, b"s", ["s"])),
        ("request_id", 5),
    ],
)
def test_any_option_that_cannot_be_meant_is_an_error_at_once(core: ClientCore, name: str, said: Any) -> None:
    options: Any = {name: said}
    with pytest.raises(ValueError, match=f"^{name}: "):
        core.request("hello", options, stream=False)


@pytest.mark.parametrize("name", ["on_accepted", "on_retry"])
def test_what_is_called_must_be_callable(core: ClientCore, name: str) -> None:
    options: Any = {name: "print"}
    with pytest.raises(TypeError, match=name):
        core.request("hello", options, stream=False)


def test_none_is_as_good_as_not_said(core: ClientCore) -> None:
    nothing: Any = dict.fromkeys(AskOptions.__annotations__)
    with pytest.raises(NotConnectedError):  # and nothing else
        core.request("hello", nothing, stream=False)


def test_trace_headers_travel_beside_the_payload(core: ClientCore, monkeypatch: pytest.MonkeyPatch) -> None:
    errands: list[Call] = []
    monkeypatch.setattr(core, "_errand", lambda call, *_: errands.append(call))
    headers = {"Traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=1"}
    core.request("hello", {"trace_headers": headers}, stream=False)
    core.request("hello", {"trace_headers": None}, stream=False)
    core.request("hello", {"trace_headers": {}}, stream=False)
    assert [call.trace for call in errands] == [TraceContext(headers["Traceparent"], "a=1"), None, None]
    assert all(b"trace" not in call.payload(1) for call in errands)


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-nonsense"},
        {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "no"},
        {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "a=1"},
        {"tracestate": "a=1"},
    ],
    ids=str,
)
def test_trace_headers_that_would_not_be_handed_on_are_an_error(core: ClientCore, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^trace_headers: "):
        core.request("hello", {"trace_headers": headers}, stream=False)


@pytest.mark.parametrize("headers", ["traceparent", {"traceparent": 1}, {b"traceparent": "x"}, [("a", "b")]], ids=str)
def test_trace_headers_of_another_kind_are_an_error(core: ClientCore, headers: Any) -> None:
    with pytest.raises(TypeError, match="trace_headers"):
        core.request("hello", {"trace_headers": headers}, stream=False)
