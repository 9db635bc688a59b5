"""How long things took, counted in fixed buckets since the start: two readings tell of all that lies between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from inferbus_client.units import Int64

_STEPS: Final = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
#: The upper bounds of the buckets in milliseconds: ten to a decade, from 1 ms to 1000 s.
BOUNDS_MS: Final = (*(step * 10.0**decade for decade in range(6) for step in _STEPS), 1e6)
#: What the buckets are called: their bounds, and `more` for what is over the last.
LABELS: Final = (*(f"{bound:.7g}" for bound in BOUNDS_MS), "more")


class Histogram(BaseModel):
    """A reading.

    Attributes:
        sum_ms: of all that was counted, in milliseconds.
        buckets: how many there are in each bucket, by its label; empty ones are left out. A bucket holds what is at
            most its bound, and more than the bound before.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True)

    sum_ms: Annotated[float, Field(ge=0, alias="sumMs")] = 0.0
    buckets: dict[str, Annotated[Int64, Field(ge=0)]] = Field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.buckets.get(label, 0) for label in LABELS)

    def percentile(self, share: float) -> float | None:
        """How many milliseconds the fastest `share` took at most, right to a bucket; None where nothing was counted."""
        rank, before, least = math.ceil(share * self.count), 0, 0.0
        for label, most in zip(LABELS, (*BOUNDS_MS, BOUNDS_MS[-1]), strict=True):
            here = self.buckets.get(label, 0)
            if here and before + here >= rank:
                return least + (most - least) * (rank - before) / here
            before, least = before + here, most
        return None

    def since(self, earlier: Histogram) -> Histogram:
        """What was counted after an earlier reading of the same worker."""
        return Histogram(
            sum_ms=max(self.sum_ms - earlier.sum_ms, 0.0),
            buckets={label: max(self.buckets.get(label, 0) - earlier.buckets.get(label, 0), 0) for label in LABELS},
        )

    @staticmethod
    def sum_of(readings: Sequence[Histogram]) -> Histogram:
        """Several workers' together. Each is within its bounds, all of them need not be."""
        return Histogram.model_construct(
            sum_ms=sum(reading.sum_ms for reading in readings),
            buckets={label: sum(reading.buckets.get(label, 0) for reading in readings) for label in LABELS},
        )
