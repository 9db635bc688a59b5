"""Trial 24: many requests, each in a session of its own. Memory, threads and open files reach a plateau."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psutil
import pytest

from support.ledger import Ledger
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.soaking import MB, NOISE, SAMPLES, pace, sample
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_WINDOW: Final = 200


@pytest.mark.timeout(0)  # the long form is given its minutes; every wait in it has a limit
def test_soak(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 24, with the limits as they are by default, so that every table fills up."""
    count, seconds = size(10_000, 1_000_000), pace()
    with (
        WorkerProcess(broker, project="soak", workers=8) as worker,  # the most, too: their number stays
        Requester(broker, "soak", Ledger(keep=False)) as requester,
    ):
        process, samples, began = psutil.Process(worker.pid), [], time.monotonic()
        for number in range(count):
            requester.send()
            if number % _WINDOW == _WINDOW - 1:
                until(lambda: requester.ledger.unanswered < _WINDOW, every=0.002)
                time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
            if number % (count // SAMPLES) == count // SAMPLES - 1:
                samples.append(sample(process))
        requester.settle()
        samples.append(sample(process))
        took = time.monotonic() - began
        growth = samples[-1].rss - samples[len(samples) // 2].rss
        last = samples[-1]
        report(
            24,
            f"{count} session ids in {took / 60:.1f} min: RSS {samples[0].rss / MB:.0f} MB at first, "
            f"{last.rss / MB:.0f} MB at last, second half {growth / MB:+.1f} MB "
            f"({growth / MB / (took / 7200):+.1f} MB/h), threads {last.threads}, files {last.files}",
            requester.ledger,
        )
        tally = requester.ledger.tally()
    assert (tally["terminal"], tally["lost"], tally["corrupt"], tally["leaked"]) == (count, 0, 0, 0)
    assert growth < NOISE
    assert (last.threads, last.files) == (samples[0].threads, samples[0].files)
