"""The figures of `inferbus stress`: ledger, percentiles, arrivals, verdict, objectives."""

from __future__ import annotations

import math
from functools import partial
from itertools import islice, pairwise
from random import Random
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.cli.stress.arrivals import arrivals
from inferbus_client.cli.stress.goodput import Goodput, parse_objective
from inferbus_client.cli.stress.ledger import Ledger, Outcome, Row, percentile
from inferbus_client.cli.stress.objectives import Objectives, parse_share
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.result import Result
from inferbus_client.cli.stress.sweep import judge
from inferbus_client.contract.wire import Accepted, Done, ErrorReply, Failure, Usage
from inferbus_client.exchange.answer import Answer

SEEDED = partial(Random, 1)


def done(request_id: str) -> Done:
    return Done(text="x", request_id=request_id, session_id="s", seq=1)


def ledger_of(*outcomes: str) -> Ledger:
    now = [0.0]
    ledger = Ledger(clock=lambda: now[0])
    for number, outcome in enumerate(outcomes):
        request_id = str(number)
        ledger.sent(request_id, scheduled=now[0])
        now[0] += 1.0
        if outcome == "answered":
            answer = Answer("x", "s", request_id, usage=Usage(prompt_tokens=1, completion_tokens=7), total_s=0.75)
            ledger.answered(request_id, answer, streamed=False)
        elif outcome == "lost":
            ledger.lost(request_id)
        elif outcome:
            ledger.refused_or_failed(request_id, outcome)
    return ledger


def result_of(ledger: Ledger, wall: float = 10.0, clients: int = 1) -> Result:
    return Result.of(Plan(clients=clients), ledger, wall)


def test_every_request_is_accounted_for_once() -> None:
    outcomes = ("answered", "overloaded", "rate_limited", "overloaded", "engine_error", "lost", "lost", "")
    ledger = ledger_of(*outcomes)
    ledger.stray(done("5"))
    ledger.stray(done("0"))
    ledger.stray(done("0"))
    ledger.stray(done("unknown"))
    ledger.stray(Accepted(queue_position=0, request_id="0", session_id="s", seq=0))
    result = result_of(ledger)
    assert result.refused == {"overloaded": 2, "rate_limited": 1}
    assert result.failed == {"engine_error": 1}
    assert (result.sent, result.answered, result.lost, result.late) == (8, 1, 1, 1)
    assert (result.duplicated, result.unfinished) == (2, 1)
    parts = (result.answered, *result.refused.values(), *result.failed.values(), result.lost, result.late)
    assert sum(parts) + result.unfinished == result.sent


def test_a_late_answer_counts_once_and_its_repeat_as_a_duplicate() -> None:
    ledger = ledger_of("lost")
    ledger.stray(done("0"))
    ledger.stray(ErrorReply.of(Failure("cancelled"), request_id="0", session_id="s", seq=2))
    assert (ledger.count()[Outcome.LATE], result_of(ledger).duplicated) == (1, 1)


def test_latency_counts_from_when_a_request_was_due() -> None:
    row = ledger_of("answered").rows[0]
    assert (row.total, row.tokens) == (1.0, 7)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_lies_within_the_values(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found is not None
    assert min(values) <= found <= max(values)


def test_percentiles_interpolate() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("burstiness", [1e13, 1e308, math.inf])
def test_what_comes_as_evenly_as_can_be_comes_at_all(burstiness: float) -> None:
    times = list(islice(arrivals(10.0, burstiness=burstiness, random=SEEDED()), 3))
    assert times == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_arrivals_have_the_rate_and_the_burstiness_asked_for(burstiness: float) -> None:
    times = list(islice(arrivals(50.0, burstiness=burstiness, random=SEEDED()), 20_000))
    gaps = [after - before for before, after in pairwise(times)]
    assert mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    # The coefficient of variation of a gamma distribution of shape k is 1/sqrt(k).
    assert pstdev(gaps) / mean(gaps) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_one_is_not_many() -> None:
    assert Plan(clients=1, messages=1).describe() == "closed loop, 1 client, 1 message each"
    assert Plan(clients=2, messages=2).describe() == "closed loop, 2 clients, 2 messages each"


def test_infinite_burstiness_is_a_fixed_interval() -> None:
    assert list(islice(arrivals(4.0, burstiness=math.inf, random=SEEDED()), 3)) == [0.25, 0.5, 0.75]


def test_an_infinite_rate_is_all_at_once() -> None:
    assert list(islice(arrivals(math.inf, ramp_up=0.0, random=SEEDED()), 3)) == [0.0, 0.0, 0.0]


def row(first_token: float | None, total: float | None, tokens: int) -> Row:
    return Row(0.0, first_token=first_token, total=total, tokens=tokens)


@pytest.mark.parametrize(
    ("measured", "per_token"),
    [(row(1.0, 3.0, 5), 0.5), (row(1.0, 3.0, 1), None), (row(None, 3.0, 5), None), (row(1.0, None, 0), None)],
)
def test_the_time_per_output_token_leaves_out_the_first(measured: Row, per_token: float | None) -> None:
    assert measured.per_token == per_token


@pytest.mark.parametrize(
    ("measured", "good"),
    [
        (row(1.0, 3.0, 5), True),
        (row(1.1, 3.0, 5), False),
        (row(1.0, 3.1, 5), False),
        (row(0.5, 3.0, 5), False),  # 0.625 s for each further token
        (row(1.0, 3.0, 1), True),  # no further token
        (row(None, 3.0, 5), False),
        (row(None, None, 0), False),
    ],
)
def test_a_good_answer_meets_every_objective(measured: Row, good: bool) -> None:  # noqa: FBT001
    assert Goodput(ttft=1.0, tpot=0.6, e2el=3.0).is_met_by(measured) is good


@pytest.mark.parametrize(
    ("text", "objective"), [("ttft:200", ("ttft", 0.2)), ("tpot:50ms", ("tpot", 0.05)), ("e2el:2s", ("e2el", 2.0))]
)
def test_objectives_of_goodput(text: str, objective: tuple[str, float]) -> None:
    assert parse_objective(text) == objective


def test_a_ramp_reaches_half_the_load_on_average() -> None:
    times = list(islice(arrivals(100.0, burstiness=math.inf, ramp_up=10.0, random=SEEDED()), 2000))
    assert sum(time <= 10.0 for time in times) == pytest.approx(500, abs=2)
    assert sum(10.0 < time <= 20.0 for time in times) == pytest.approx(1000, abs=2)
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("walls", "kind", "words"),
    [
        ((10.0, 4.0, 2.0, 1.0), "batches", "falls at every step"),
        ((10.0, 9.9, 10.1, 10.0), "queues", "does not fall"),
        ((10.0, 4.0, 4.1, 4.0), "partly", "batches up to"),
        ((10.0, 11.0, 4.0, 2.0), "partly", "not at every step"),
    ],
)
def test_the_verdict_of_a_sweep(walls: tuple[float, ...], kind: str, words: str) -> None:
    levels = zip((1, 5, 10, 50), walls, strict=True)
    verdict = judge([result_of(ledger_of("answered"), wall, clients) for clients, wall in levels])
    assert verdict.kind == kind
    assert words in verdict.text


def test_no_verdict_without_answers_at_every_level() -> None:
    assert judge([result_of(ledger_of("answered")), result_of(ledger_of("lost"))]).kind == "unknown"
    assert judge([result_of(ledger_of("answered"))]).kind == "unknown"


def test_objectives_are_missed_one_by_one() -> None:
    result = result_of(ledger_of("answered", "lost"))
    assert Objectives(max_p95=2.0, max_failed=0.5, min_throughput=0.1).missed(result) == []
    missed = Objectives(max_p95=0.5, max_first_token=1.0, max_failed=0.4, min_throughput=1.0).missed(result)
    assert [sentence.split(":")[0] for sentence in missed[:2]] == ["p95", "p95 of the first token"]
    assert len(missed) == 4
    assert missed[0] == "p95: 1.00 s, objective 500 ms"  # as the table above it writes times


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("100%", 1.0), ("0", 0.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["101%", "-1%", "2", "many"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"must lie|could not convert"):
        parse_share(text)
