"""State in this process: nothing is shared, nothing outlives it, and nothing waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.budgets import MemoryBudgets
from inferbus_worker.state.memory.idempotency import RecentRequests
from inferbus_worker.state.memory.sessions import MemorySessions
from inferbus_worker.state.memory.windows import MemoryWindows
from inferbus_worker.state.protocols import Stores


def memory_stores(settings: Settings, clock: Callable[[], float] = time.monotonic) -> Stores:
    """Every store in memory, bounded as the settings say."""
    keys, budget = settings.rate_limit_sessions, settings.token_budget
    return Stores(
        MemorySessions(settings.max_sessions, settings.session_ttl, max_bytes=settings.max_history_bytes, clock=clock),
        MemoryWindows(keys, clock=clock),
        None if budget is None else MemoryBudgets(budget, clock=clock, max_keys=keys),
        RecentRequests(settings.retry_memory_bytes, settings.retry_memory, clock=clock),
    )
