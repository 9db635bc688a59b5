"""Which `traceparent` and `tracestate` are handed on: those of the W3C's grammar, and nothing else that is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inferbus_client.contract.trace import LONGEST_TRACESTATE, TraceContext, read_trace
from support.steps import steps_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def read(parent: str, *states: str) -> TraceContext | None:
    return read_trace([("traceparent", parent), *(("tracestate", state) for state in states)])


def test_what_is_by_the_grammar_is_handed_on_as_it_is() -> None:
    assert read(PARENT) == TraceContext(PARENT)
    assert read(PARENT, "rojo=00f067aa0ba902b7,tenant@congo=t61rcWkgMzE") == TraceContext(
        PARENT, "rojo=00f067aa0ba902b7,tenant@congo=t61rcWkgMzE"
    )
    assert read(f"00-{TRACE}-{SPAN}-00") == TraceContext(f"00-{TRACE}-{SPAN}-00")


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read(f"cc-{TRACE}-{SPAN}-ff-what-the-future-brings") == TraceContext(PARENT)
    assert read(f"01-{TRACE}-{SPAN}-02") == TraceContext(f"00-{TRACE}-{SPAN}-00")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}-more",
        f"{PARENT}\n",
        f" {PARENT}",
        f"cc-{TRACE}-{SPAN}-01more",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
        f"00-{TRACE}{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-\n",
    ],
)
def test_a_traceparent_that_is_none_is_ignored_with_its_tracestate(parent: str) -> None:
    assert read(parent, "a=1") is None


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "a=",
        "=1",
        "a=1,b",
        "a=1,a=2",
        "A=1",
        "a=1=2",
        "a=\u00fc",
        "a=1\n",
        "a=\x7f",
        "a@b@c=1",
        ",".join(f"k{number}=1" for number in range(33)),
        "a=" + "x" * 257,
        "a=" + "x" * 250 + ",b=" + "x" * 250 + ",c=1234567",
    ],
)
def test_a_tracestate_that_is_none_is_ignored_and_the_traceparent_stays(state: str) -> None:
    assert read(PARENT, state) == TraceContext(PARENT)


def test_several_tracestates_are_one_and_two_traceparents_none() -> None:
    assert read(PARENT, "a=1", " b=2\t,, c=3 ") == TraceContext(PARENT, "a=1,b=2,c=3")
    assert read(PARENT, "a=1", "a=2") == TraceContext(PARENT)
    assert read_trace([("traceparent", PARENT), ("traceparent", PARENT)]) is None
    assert read_trace([("Traceparent", PARENT), ("other", "x")]) is None
    assert read_trace([]) is None


def test_what_is_handed_on_is_what_user_properties_and_headers_hold() -> None:
    assert TraceContext(PARENT).pairs == (("traceparent", PARENT),)
    assert TraceContext(PARENT, "a=1").headers == {"traceparent": PARENT, "tracestate": "a=1"}
    assert read_trace(TraceContext(PARENT, "a=1").pairs) == TraceContext(PARENT, "a=1")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["traceparent", "tracestate"]),
            st.text() | st.sampled_from([PARENT, "a=1", f"01{PARENT[2:]}"]),
        ),
        max_size=4,
    )
)
def test_whatever_comes_is_a_context_by_the_grammar_or_none(pairs: list[tuple[str, str]]) -> None:
    context = read_trace(pairs)
    if context is not None:
        assert len(context.traceparent) == len(PARENT)
        assert context.traceparent.startswith("00-")
        assert len(context.tracestate) <= LONGEST_TRACESTATE
        assert all(" " <= letter <= "~" for letter in context.tracestate)
        assert read_trace(context.pairs) == context


@given(st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_opentelemetry_reads_the_same_as_we_do(parent: str) -> None:
    theirs: SpanContext = get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": parent})
    ).get_span_context()
    assert theirs.is_valid == (read(parent) is not None)


@pytest.mark.parametrize("text", ["a=1," * 250_000, "," * 1_000_000, "a" * 1_000_000, " " * 1_000_000, "0" * 1_000_000])
def test_a_long_one_costs_no_more_than_a_look_at_its_length(text: str) -> None:
    assert steps_of(lambda: read(text, text)) < 200
    assert steps_of(lambda: read(PARENT, text)) < 200
