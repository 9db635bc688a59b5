"""What a run showed, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from inferbus_client.cli.stress.ledger import Ledger, Outcome, percentile
from inferbus_client.cli.stress.plan import Plan

SHARES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds; None where nothing was measured."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: list[float]) -> Latency:
        mean = sum(values) / len(values) if values else None
        return cls(
            mean, **{name: percentile(values, share) for name, share in SHARES.items()}, max=max(values, default=None)
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One level of load and what became of it.

    Attributes:
        wall: seconds from the first send to the last answer.
        refused: refusals at admission, by code.
        failed: failures after it, by code.
        duplicated: terminal replies beyond the first of a request.
        gaps: messages of streams that never arrived.
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
    tokens: int
    first_token: Latency
    total: Latency

    @classmethod
    def of(cls, plan: Plan, ledger: Ledger, wall: float) -> Result:
        rows, counts = ledger.rows, ledger.count()
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
            tokens=sum(row.tokens for row in rows),
            first_token=Latency.of([row.first_token for row in rows if row.first_token is not None]),
            total=Latency.of([row.total for row in rows if row.total is not None]),
        )

    @property
    def throughput(self) -> float:
        """Answers per second."""
        return self.answered / self.wall if self.wall else 0.0

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
        """For JSON; seconds."""
        plan = self.plan
        return {
            "clients": None if plan.is_open else plan.clients,
            "requestRate": plan.request_rate,
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
            "throughput": self.throughput,
            "tokenThroughput": self.token_throughput,
            "timePerRequest": self.time_per_request,
            "firstToken": _as_dict(self.first_token),
            "total": _as_dict(self.total),
        }


def _as_dict(latency: Latency) -> dict[str, float | None]:
    return {name: getattr(latency, name) for name in ("mean", *SHARES, "max")}
