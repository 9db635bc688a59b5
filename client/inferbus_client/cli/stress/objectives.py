"""Objectives: what a run must reach, or the exit status says that it did not."""

from __future__ import annotations

from dataclasses import dataclass

from inferbus_client.cli.stress.report import format_seconds
from inferbus_client.cli.stress.result import Result


@dataclass(frozen=True, slots=True)
class Objectives:
    """Limits, each None where nothing is asked. Times are seconds, `max_failed` is a share (0.01 is 1 %)."""

    max_p95: float | None = None
    max_p99: float | None = None
    max_first_token: float | None = None
    max_failed: float | None = None
    min_throughput: float | None = None

    def missed(self, result: Result) -> list[str]:
        """A sentence for every objective that a result misses. What was not measured is missed, too."""
        uppers = (
            ("p95", self.max_p95, result.total.p95),
            ("p99", self.max_p99, result.total.p99),
            ("p95 of the first token", self.max_first_token, result.first_token.p95),
        )
        missed = [
            _too_slow(what, limit, value)
            for what, limit, value in uppers
            if limit is not None and (value is None or value > limit)
        ]
        if self.max_failed is not None and result.failed_share > self.max_failed:
            missed.append(f"{result.failed_share:.1%} went unanswered, more than {self.max_failed:.1%}")
        if self.min_throughput is not None and result.throughput < self.min_throughput:
            missed.append(f"{result.throughput:.3g} requests/s, less than {self.min_throughput:g}")
        return missed


def _too_slow(what: str, limit: float, value: float | None) -> str:
    measured = "nothing was measured" if value is None else format_seconds(value)
    return f"{what}: {measured}, objective {format_seconds(limit)}"


def parse_share(text: str) -> float:
    """`1%` or `0.01`.

    Raises:
        ValueError: it is neither.
    """
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise ValueError("must lie between 0% and 100%")
    return share
