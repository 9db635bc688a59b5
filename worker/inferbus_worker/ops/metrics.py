"""The worker's figures in Prometheus's text format, with vLLM's own beside them where it runs in this process.

Names and labels follow https://prometheus.io/docs/practices/naming. A label's value comes from the configuration, or
from a list of our own: nothing that a client says becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from inferbus_client.contract.histogram import BOUNDS_MS, LABELS, Histogram
from inferbus_client.contract.presence import GroupStats, SlotStats, Stats
from inferbus_client.contract.wire import FAILURES

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Whose own metrics stand beside ours.
_BESIDE: Final = "vllm"
_BREAKER_STATES: Final = ("closed", "half-open", "open")
#: By the names that a reply's timing has.
_TIMES: Final = {
    "totalMs": ("request_duration_seconds", "From admission to the terminal reply."),
    "queueMs": ("queue_wait_seconds", "From admission until a worker thread took the request."),
    "firstTokenMs": ("time_to_first_token_seconds", "From admission to the first token, of streamed requests."),
}


def exposition(stats: Stats, *, is_ready: bool, threads: int) -> tuple[bytes, str]:
    """What a scrape gets, and its content type.

    Args:
        stats: the worker's figures.
        is_ready: whether it answers requests.
        threads: how many worker threads there are.
    """
    from prometheus_client import REGISTRY, CollectorRegistry, ProcessCollector  # noqa: PLC0415
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(_Collected(lambda: _worker(stats, is_ready=is_ready, threads=threads)))
    registry.register(_Collected(lambda: _slots(stats)))
    registry.register(_Collected(lambda: _group(stats.group)))
    registry.register(_Collected(lambda: (one for one in REGISTRY.collect() if one.name.startswith(_BESIDE))))
    ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collected:
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> list[Any]:
        """Nothing in advance: else registering would collect once."""
        return []


def _worker(stats: Stats, *, is_ready: bool, threads: int) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily  # noqa: PLC0415

    yield InfoMetricFamily("inferbus_worker", "Which worker it is.", {"worker": stats.worker})
    gauges: dict[str, tuple[str, float | None]] = {
        "ready": ("Whether the worker answers requests now.", is_ready),
        "uptime_seconds": ("Since the start.", stats.uptime_s),
        "requests_running": ("Requests in the engines.", stats.active),
        "requests_waiting": ("Requests in the queue.", stats.queued),
        "queue_size": ("Requests that may wait.", stats.queue_size),
        "capacity": ("Requests that the engines run at once; missing while that is not known.", stats.capacity),
        "sessions": ("Conversations in memory.", stats.sessions),
        "worker_threads": ("Threads that run turns.", threads),
    }
    for name, (help_text, value) in gauges.items():
        if value is not None:
            yield GaugeMetricFamily(f"inferbus_{name}", help_text, value)
    counters = {
        "requests": ("Admitted requests that have ended.", stats.processed + stats.errors),
        "request_errors": ("Those of them that ended in a failure.", stats.errors),
        "repeated_requests": ("Repeats of requests that run or are remembered.", stats.repeated),
        "prompt_tokens": ("Of the requests answered.", stats.prompt_tokens),
        "generated_tokens": ("Of the requests answered.", stats.completion_tokens),
        "replies_dropped": ("Messages to the broker that were given up.", stats.replies_dropped),
        "unreadable_messages": ("Messages from the broker that were no legal packets.", stats.unreadable_messages),
    }
    for name, (help_text, count) in counters.items():
        yield CounterMetricFamily(f"inferbus_{name}", help_text, count)
    refused = CounterMetricFamily(
        "inferbus_admission_rejections", "Requests refused at admission, by failure code.", labels=["code"]
    )
    for code in FAILURES:
        refused.add_metric([code], stats.rejected.get(code, 0))
    yield refused
    level = GaugeMetricFamily("inferbus_level", "How full what is bounded is.", labels=["name"])
    bound = GaugeMetricFamily("inferbus_level_bound", "What it may hold.", labels=["name"])
    for name, one in stats.levels.items():
        level.add_metric([name], one.now)
        bound.add_metric([name], one.bound)
        if name == "outboundBytes":
            yield GaugeMetricFamily("inferbus_outbound_bytes", "Replies that wait for the broker.", one.now)
    yield from (level, bound)
    for key, (name, help_text) in _TIMES.items():
        yield _histogram(f"inferbus_{name}", help_text, stats.histograms.get(key, Histogram()))


def _histogram(name: str, help_text: str, counted: Histogram) -> Metric:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

    bounds = [*(f"{bound / 1000:.10g}" for bound in BOUNDS_MS), "+Inf"]
    counts = accumulate(counted.buckets.get(label, 0) for label in LABELS)
    return HistogramMetricFamily(name, help_text, list(zip(bounds, counts, strict=True)), counted.sum_ms / 1000)


def _slots(stats: Stats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    waiting = GaugeMetricFamily("inferbus_model_requests_waiting", "Requests that wait for a model.", labels=["model"])
    for name, model in stats.models.items():
        waiting.add_metric([name], model.queued)
    yield waiting
    where = ["model", "slot"]
    active = GaugeMetricFamily("inferbus_slot_active", "Requests that a slot runs.", labels=where)
    limit = GaugeMetricFamily("inferbus_slot_concurrency", "Requests that it may run at once now.", labels=where)
    up = GaugeMetricFamily("inferbus_slot_ready", "Whether it takes requests.", labels=where)
    memory = GaugeMetricFamily("inferbus_slot_memory_bytes", "What it has taken of memory.", labels=where)
    breaker = GaugeMetricFamily(
        "inferbus_breaker_state", "1 for the state that its breaker is in.", labels=[*where, "state"]
    )
    attempts = CounterMetricFamily("inferbus_slot_attempts", "Attempts that have ended there.", labels=where)
    retries = CounterMetricFamily("inferbus_slot_retries", "Those that were not a request's first.", labels=where)
    errors = CounterMetricFamily("inferbus_slot_errors", "Those that failed, by kind.", labels=[*where, "kind"])
    for model_name, slot_name, slot in _each_slot(stats):
        labels = [model_name, slot_name]
        active.add_metric(labels, slot.active)
        up.add_metric(labels, slot.state == "ready")
        if slot.limit is not None:
            limit.add_metric(labels, slot.limit)
        if slot.memory_measured is not None:
            memory.add_metric(labels, slot.memory_measured)
        for state in _BREAKER_STATES:
            breaker.add_metric([*labels, state], slot.breaker == state)
        attempts.add_metric(labels, slot.requests)
        retries.add_metric(labels, slot.retries)
        for kind, count in slot.errors.items():
            errors.add_metric([*labels, kind], count)
    yield from (active, limit, up, memory, breaker, attempts, retries, errors)


def _group(group: GroupStats | None) -> Iterator[Metric]:
    """What the worker shares; every worker of a group tells the same, so that they are not to be added up."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    if group is None:
        return
    gauges = {
        "workers": ("Workers of the group that are there.", group.workers),
        "leases": ("Requests that one of them has taken and not ended yet.", group.leases),
        "requests_waiting": ("Requests that wait for any of them.", group.queued),
        "sessions": ("Conversations in the store.", group.sessions),
        "store_reached": ("Whether this worker reaches the store.", group.reached),
    }
    for name, (help_text, value) in gauges.items():
        family = GaugeMetricFamily(f"inferbus_group_{name}", help_text, labels=["group"])
        family.add_metric([group.name], value)
        yield family


def _each_slot(stats: Stats) -> Iterator[tuple[str, str, SlotStats]]:
    for model_name, model in stats.models.items():
        for slot_name, slot in model.slots.items():
            yield model_name, slot_name, slot
