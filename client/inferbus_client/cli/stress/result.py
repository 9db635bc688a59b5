"""What a run showed, in figures."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from statistics import fmean, pstdev
from typing import Any, Final

from inferbus_client import __version__
from inferbus_client.cli.stress.ledger import Ledger, Outcome, percentile
from inferbus_client.cli.stress.plan import Plan

SHARES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Spread:
    """How values are spread; None where nothing was measured."""

    mean: float | None
    std: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, measured: Iterable[float | None]) -> Spread:
        values = sorted(value for value in measured if value is not None)
        if not values:
            return cls(None, None, None, None, None, None)
        shares = {name: percentile(values, share) for name, share in SHARES.items()}
        return cls(fmean(values), pstdev(values), **shares, max=values[-1])

    def as_dict(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in ("mean", "std", *SHARES, "max")}


@dataclass(frozen=True, slots=True)
class Result:
    """One level of load and what became of it.

    Attributes:
        wall: seconds from the first send to the last answer.
        refused: refusals at admission, by code.
        failed: failures after it, by code.
        duplicated: terminal replies beyond the first of a request.
        gaps: messages of streams that never arrived.
        restarted: requests answered that another worker of a group had to begin anew.
        good: answers that met the plan's goodput.
        prompt_tokens, tokens: of all answers together, in and out.
        first_token, inter_token, per_token, total: seconds; `inter_token` between two parts of a stream, of which the
            worker makes one every `--delta-interval` at most.
        input_lengths, output_lengths: tokens of an answered request.
    """

    plan: Plan
    wall: float
    sent: int
    answered: int
    refused: dict[str, int]
    failed: dict[str, int]
    lost: int
    late: int
    duplicated: int
    unfinished: int
    gaps: int
    restarted: int
    good: int
    prompt_tokens: int
    tokens: int
    first_token: Spread
    inter_token: Spread
    per_token: Spread
    total: Spread
    input_lengths: Spread
    output_lengths: Spread

    @classmethod
    def of(cls, plan: Plan, ledger: Ledger, wall: float) -> Result:
        rows, counts = ledger.rows, ledger.count()
        counted = [row for row in rows if row.tokens]
        return cls(
            plan=plan,
            wall=wall,
            sent=len(rows),
            answered=counts[Outcome.ANSWERED],
            refused=dict(ledger.codes(Outcome.REFUSED)),
            failed=dict(ledger.codes(Outcome.FAILED)),
            lost=counts[Outcome.LOST],
            late=counts[Outcome.LATE],
            duplicated=sum(row.copies for row in rows),
            unfinished=counts[Outcome.UNFINISHED],
            gaps=sum(row.gaps for row in rows),
            restarted=sum(row.runs > 0 for row in rows),
            good=sum(plan.goodput.is_met_by(row) for row in rows),
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            tokens=sum(row.tokens for row in rows),
            first_token=Spread.of(row.first_token for row in rows),
            inter_token=Spread.of(chain.from_iterable(row.intervals for row in rows)),
            per_token=Spread.of(row.per_token for row in rows),
            total=Spread.of(row.total for row in rows),
            input_lengths=Spread.of(row.prompt_tokens for row in counted),
            output_lengths=Spread.of(row.tokens for row in counted),
        )

    @property
    def throughput(self) -> float:
        """Answers per second."""
        return self.answered / self.wall if self.wall else 0.0

    @property
    def goodput(self) -> float | None:
        """Answers per second that met their objectives; None where there were none."""
        if not self.plan.goodput.asked:
            return None
        return self.good / self.wall if self.wall else 0.0

    @property
    def token_throughput(self) -> float:
        """Generated tokens per second."""
        return self.tokens / self.wall if self.wall else 0.0

    @property
    def time_per_request(self) -> float | None:
        """Seconds of wall time for each answer: what a further request costs at this load."""
        return self.wall / self.answered if self.answered else None

    @property
    def failed_share(self) -> float:
        """The share of requests that ended without an answer; those we broke off ourselves do not count."""
        ended = self.sent - self.unfinished
        return (ended - self.answered) / ended if ended else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds and tokens."""
        plan = self.plan
        return {
            "clients": None if plan.is_open else plan.clients,
            "requestRate": _finite(plan.request_rate),
            "wall": self.wall,
            "sent": self.sent,
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "lost": self.lost,
            "late": self.late,
            "duplicated": self.duplicated,
            "unfinished": self.unfinished,
            "gaps": self.gaps,
            "restarted": self.restarted,
            "throughput": self.throughput,
            "goodput": self.goodput,
            "tokenThroughput": self.token_throughput,
            "timePerRequest": self.time_per_request,
            "inputTokens": self.prompt_tokens,
            "outputTokens": self.tokens,
            "firstToken": self.first_token.as_dict(),
            "interToken": self.inter_token.as_dict(),
            "perOutputToken": self.per_token.as_dict(),
            "total": self.total.as_dict(),
            "inputLengths": self.input_lengths.as_dict(),
            "outputLengths": self.output_lengths.as_dict(),
        }


def versions() -> dict[str, str]:
    """What measured."""
    python = platform.python_version()
    return {"inferbus-client": __version__, "paho-mqtt": version("paho-mqtt"), "python": python}


def about(plan: Plan) -> dict[str, Any]:
    """What belongs to a run as a whole, for JSON."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "seed": plan.seed if plan.has_schedule else None,
        "burstiness": _finite(plan.burstiness) if plan.has_schedule else None,
        "maxConcurrency": plan.max_concurrency if plan.is_open else None,
        "duration": plan.ends_after,
        "stream": plan.stream,
        "goodput": plan.goodput.asked or None,
    }


def _finite(value: float | None) -> float | str | None:
    """JSON has no infinity; `vllm bench serve` writes the word."""
    return "inf" if value is not None and math.isinf(value) else value
