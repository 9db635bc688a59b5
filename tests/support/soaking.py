"""What a soak looks at while it goes on, and how long it is given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import psutil

from support.trials import SOAK_VARIABLE

MB: Final = 1_000_000
#: Growth of a process in the second half that is still no growth: the allocator's noise.
NOISE: Final = 30 * MB
SAMPLES: Final = 20


@dataclass(frozen=True)
class Sample:
    rss: int
    threads: int
    files: int


def sample(process: psutil.Process) -> Sample:
    return Sample(process.memory_info().rss, process.num_threads(), process.num_fds())


def pace() -> float:
    """Seconds that the soak is to take; 0: as fast as it can."""
    return 60 * float(os.environ.get(SOAK_VARIABLE, "0"))
