"""How many requests vLLM's scheduler has in its batch: what the engine does, not what its front believes."""

from __future__ import annotations

from typing import Any


class RunningCount:
    """A maker of stat loggers of vLLM's, each of which notes this one figure of an engine's process."""

    def __init__(self) -> None:
        self._by_rank: dict[int, int] = {}

    def __call__(self, config: Any, rank: int) -> _Logger:  # noqa: ARG002 - vLLM's signature
        return _Logger(self._by_rank, rank)

    @property
    def now(self) -> int:
        """The figure, of all processes."""
        return sum(self._by_rank.values())


class _Logger:
    def __init__(self, by_rank: dict[int, int], rank: int) -> None:
        self._by_rank = by_rank
        self._rank = rank

    def record(self, scheduler_stats: Any, *_: object, **__: object) -> None:
        if scheduler_stats is not None:
            self._by_rank[self._rank] = scheduler_stats.num_running_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def log(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, *_: object) -> None:
        """The worker never puts the engine to sleep."""
