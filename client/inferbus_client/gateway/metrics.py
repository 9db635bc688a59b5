"""The gateway's own figures in Prometheus's text format. No label is a caller's word: paths, statuses and codes.

Names of groups and models are the workers' words, and there are no more of them than `fleet.groups` tells of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from inferbus_client.exchange.answer import Answer
from inferbus_client.fleet.groups import MOST_MODELS, Group

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_PREFIX: Final = "inferbus_gateway_"
#: Seconds, from a quick first token to an answer that takes its ten minutes.
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """Counts what goes through the door. For the tasks of one event loop.

    Args:
        held: bytes of bodies that are held now.
        is_connected: whether the broker is there.
        workers: how many workers there are, by state.
        groups: those that share their requests.
    """

    def __init__(
        self,
        held: Callable[[], int],
        is_connected: Callable[[], bool],
        workers: Callable[[], dict[str, int]],
        groups: Callable[[], Sequence[Group]] = tuple,
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector  # noqa: PLC0415

        self._registry = registry = CollectorRegistry()
        self.running = 0
        self._requests = Counter(
            _PREFIX + "requests", "Requests that have ended.", ["path", "status"], registry=registry
        )
        self._refusals = Counter(
            _PREFIX + "refusals", "Requests that got no answer, by why.", ["code"], registry=registry
        )
        self._tokens = Counter(_PREFIX + "tokens", "Tokens of the requests answered.", ["kind"], registry=registry)
        self._first = Histogram(
            _PREFIX + "time_to_first_token_seconds",
            "From a request's head to its first token, of streams.",
            registry=registry,
            buckets=_BUCKETS,
        )
        self._whole = Histogram(
            _PREFIX + "request_duration_seconds",
            "From a request's head to the end of its answer.",
            registry=registry,
            buckets=_BUCKETS,
        )
        for name, text, read in (
            ("requests_running", "Requests under way.", lambda: self.running),
            ("held_bytes", "Bodies of the requests under way.", held),
            ("broker_connected", "Whether the broker is there.", lambda: float(is_connected())),
        ):
            Gauge(_PREFIX + name, text, registry=registry).set_function(read)
        registry.register(_Workers(workers, groups))
        ProcessCollector(registry=registry)

    @contextmanager
    def request(self, path: str) -> Iterator[Passage]:
        """While inside, a request is under way."""
        passage = Passage()
        self.running += 1
        try:
            yield passage
        finally:
            self.running -= 1
            self._requests.labels(path, str(passage.status)).inc()
            if passage.code is not None:
                self._refusals.labels(passage.code).inc()
            if (answer := passage.answer) is not None:
                self._whole.observe(time.monotonic() - passage.since)
                if answer.usage is not None:  # a worker's word: less than nothing is none
                    self._tokens.labels("prompt").inc(max(answer.usage.prompt_tokens, 0))
                    self._tokens.labels("completion").inc(max(answer.usage.completion_tokens, 0))
            if passage.first_at is not None:
                self._first.observe(passage.first_at - passage.since)

    def exposition(self) -> tuple[bytes, str]:
        """What a scrape gets, and its content type."""
        from prometheus_client import disable_created_metrics  # noqa: PLC0415
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        # Else a gauge beside each counter says when it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class Passage:
    """What becomes of one request.

    Attributes:
        status: of HTTP; 499 where the requester has left.
        code: why there was no answer.
        answer: what it was, else.
        since: when it came.
        first_at: when the first token went out.
    """

    def __init__(self) -> None:
        self.status = 499
        self.code: str | None = "cancelled"
        self.answer: Answer | None = None
        self.since = time.monotonic()
        self.first_at: float | None = None

    def token(self) -> None:
        if self.first_at is None:
            self.first_at = time.monotonic()


class _Workers:
    """How many there are; a state in which there is none says 0."""

    def __init__(self, count: Callable[[], dict[str, int]], groups: Callable[[], Sequence[Group]]) -> None:
        self._count = count
        self._groups = groups

    def describe(self) -> list[Any]:
        """Nothing in advance: else registering would collect once."""
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        family = GaugeMetricFamily(_PREFIX + "workers", "Workers on the bus, by state.", labels=["state"])
        for state, number in self._count().items():
            family.add_metric([state], number)
        yield family
        serving = GaugeMetricFamily(
            _PREFIX + "group_workers", "Workers of a group that serve a model.", labels=["group", "model"]
        )
        for group in self._groups():
            for model, names in list(group.models.items())[:MOST_MODELS]:
                serving.add_metric([group.name, model], len(names))
        yield serving
