"""The bus as the page shows it: a look a second, the last minutes, what happened, and what is wrong, in words."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import Instance, Level, ModelStats, Presence, SlotStats, Stats
from inferbus_client.fleet.columns import WORKER_COLUMNS
from inferbus_client.fleet.live import Live, Look
from inferbus_client.fleet.watch import WorkerView

#: When these tests take place.
EPOCH: Final = 1_700_000_000.0
Many = dict[str, WorkerView]


def reading(uptime: float, *, quick: int = 0, slow: int = 0, active: int = 0, **more: Any) -> Stats:
    """Of a worker with one slot, which ran `quick` requests in 50 ms and `slow` ones in 4 s."""
    slot = SlotStats(state="ready", active=active, limit=8, requests=quick + slow)
    defaults: dict[str, Any] = {
        "models": {"phi": ModelStats(state="ready", slots={"phi/vllm": slot})},
        "histograms": {"totalMs": Histogram(buckets={"50": quick, "4000": slow})},
        "processed": quick + slow,
        "active": active,
        "capacity": 8,
        "queue_size": 100,
    }
    return Stats(worker="w", uptime_s=uptime, **{**defaults, **more})


def view(*readings: Stats, state: Any = "ready", at: float | None = 0.0, **presence: Any) -> WorkerView:
    return WorkerView(Presence(worker="w", state=state, **presence), readings, at)


class Page:
    """A page that looks, on a clock of its own."""

    def __init__(self) -> None:
        self.live = Live()
        self.now = 0.0
        self.seen: dict[str, Any] = {}

    def look(
        self, *, w: WorkerView | None = None, seconds: float = 1.0, is_up: bool = True, many: Many | None = None
    ) -> dict[str, Any]:
        self.now += seconds
        workers = many or ({} if w is None else {"w": w})
        look = Look(workers, is_up=is_up, at=EPOCH + self.now, now=self.now, asked_since=0.0)
        self.seen = self.live.tick(look)
        json.dumps(self.seen, allow_nan=False)
        return self.seen

    def words(self) -> str:
        return " ".join(one["words"] for one in self.seen["troubles"])

    def events(self) -> list[str]:
        return [event["words"] for event in self.live.all()["events"]]


def test_a_look_has_what_the_table_of_status_has() -> None:
    seen = Page().look(w=view(reading(10), reading(20, quick=100, active=3, queued=5)))
    (worker,) = seen["workers"]
    cells = dict(zip([column.name for column in WORKER_COLUMNS], worker["cells"], strict=True))
    assert (cells["active"], cells["queue"], cells["req/s"]) == ("3/8", "5/100", "10")
    assert cells["p99"].endswith("ms")
    assert seen["total"] == worker["cells"]
    assert worker["models"][0]["slots"][0]["name"] == "phi/vllm"
    assert seen["moment"]["requestsPerS"] == 10
    assert seen["troubles"] == []


def test_whoever_comes_later_sees_the_last_five_minutes_and_no_more() -> None:
    page = Page()
    for second in range(400):
        page.look(w=view(reading(10 + second), at=float(second)))
    known = page.live.all()
    assert len(known["history"]) == 300
    assert known["history"][-1]["at"] == round(EPOCH + 400)
    assert [column["name"] for column in known["columns"]][:2] == ["active", "queue"]


class TestWhatHappens:
    def test_who_was_there_already_has_not_come(self) -> None:
        page = Page()
        page.look(w=view())
        assert page.events() == []

    def test_who_comes_drains_ends_and_is_forgotten(self) -> None:
        page = Page()
        page.look()
        page.look(w=view(state="loading", model="phi"))
        page.look(w=view())
        page.look(w=view(state="draining"))
        page.look(w=view(state="offline"))
        assert "without a word" not in page.words()
        page.look()
        came, ready, draining, ended, forgotten = page.events()
        assert came == "w came: it is loading, with phi."
        assert (ready, ended, forgotten) == ("w is ready.", "w has ended.", "w was forgotten.")
        assert draining.startswith("w is draining")

    def test_who_goes_without_a_word_and_comes_back(self) -> None:
        page = Page()
        page.look(w=view())
        page.look(w=view(state="offline"))
        assert "w went without a word 0 s ago" in page.words()
        page.look(w=view(instance=Instance(mark="b", started=1)))
        assert page.words() == ""
        assert page.events()[-1] == "w came: it is ready."

    def test_who_is_started_again_and_whose_link_breaks(self) -> None:
        page = Page()
        page.look(w=view(instance=Instance(mark="a", started=1)))
        page.look(w=view(instance=Instance(mark="b", started=2)))
        assert page.events()[-1] == "w was started again: it is ready."
        page.look(w=view(instance=Instance(mark="b", started=2, connection=2)))
        assert page.events()[-1] == "w had lost the broker, and is connected again."
        assert "The link of w is bad: it lost the broker once in the last minute." in page.words()
        page.look(seconds=61, w=view(instance=Instance(mark="b", started=2, connection=2), at=page.now + 60))
        assert "link" not in page.words()

    def test_a_breaker_that_opens_and_closes(self) -> None:
        def of(breaker: str) -> WorkerView:
            slot = SlotStats(state="ready", breaker=breaker)
            return view(reading(20, models={"phi": ModelStats(state="ready", slots={"phi/gpu": slot})}))

        page = Page()
        page.look(w=of("closed"))
        page.look(w=of("open"))
        assert "Slot phi/gpu of w is open: it is left alone" in page.words()
        page.look(w=of("closed"))
        assert [words.partition(":")[0] for words in page.events()] == [
            "Slot phi/gpu of w is open",
            "Slot phi/gpu of w is well again.",
        ]
        assert page.words() == ""

    def test_a_thousand_at_once_are_a_few_lines(self) -> None:
        page = Page()
        page.look()
        page.look(many={f"w{number}": view() for number in range(1000)})
        assert len(page.events()) == 41
        assert page.events()[-1] == "And 960 events more at the same time."
        assert len(page.seen["workers"]) == 200
        assert page.seen["more"] == 800


class TestWhatIsWrong:
    def test_a_lost_broker(self) -> None:
        page = Page()
        page.look(w=view(reading(10)))
        page.look(w=view(reading(10)), is_up=False)
        page.look(w=view(reading(10)), is_up=False, seconds=3)
        assert page.words() == "The connection to the broker is lost for 3 s; what stands here was before."
        assert page.seen["moment"]["requestsPerS"] is None
        assert page.seen["workers"][0]["isOld"]
        page.look(w=view(reading(14), at=page.now))
        assert page.words() == "The connection to the broker was lost once in the last minute."
        assert page.events()[-1] == "The connection to the broker is back after 4 s."

    def test_nobody(self) -> None:
        page = Page()
        page.look()
        assert page.words() == "No worker has said anything on this broker."

    def test_silence_is_not_zero(self) -> None:
        page = Page()
        page.look(seconds=8, w=view(reading(10), reading(20, quick=5, queued=90)))
        assert page.words() == "w has not answered for 8 s: it hangs, or its link is bad."
        assert page.seen["total"] is None
        assert page.seen["moment"]["queued"] is None

    def test_old_figures_of_whom_nobody_asks_are_nobody_s_fault(self) -> None:
        look = Look({"w": view(reading(10))}, is_up=True, at=EPOCH, now=500.0)
        assert Live().tick(look)["troubles"] == []

    def test_a_model_at_which_nothing_ends_any_more(self) -> None:
        before = reading(100, quick=50)
        stuck = [reading(uptime, quick=60, active=4) for uptime in (102, 104, 106, 108)]
        page = Page()
        page.look(w=view(before, *stuck))
        assert page.words().startswith("On phi/vllm of w 4 run, and none has ended for 6 s; before, 19 of 20 took")
        assert page.seen["troubles"][0]["level"] == "fault"

    def test_what_was_before_is_all_that_was_before_it_stood_still(self) -> None:
        page = Page()
        page.look(w=view(reading(1), *[reading(uptime, quick=8, active=1) for uptime in (3, 5, 7, 9)]))
        assert page.words().endswith("The model is slow.")

    def test_a_first_answer_that_takes_its_time_is_no_fault(self) -> None:
        page = Page()
        page.look(w=view(*[reading(uptime, active=1) for uptime in (1, 3, 5, 7, 9)]))
        assert [one["level"] for one in page.seen["troubles"]] == ["note"]

    def test_a_model_that_has_become_slow(self) -> None:
        page = Page()
        page.look(w=view(reading(100, quick=50), reading(106, quick=50, slow=3)))
        assert page.words().startswith("w is slow: half of its answers take 3.")
        assert page.words().endswith("before; the model is slow.")

    def test_answers_that_wait_do_not_make_the_model_slow(self) -> None:
        waits = {"totalMs": Histogram(buckets={"50": 50, "4000": 3}), "queueMs": Histogram(buckets={"3000": 3})}
        page = Page()
        page.look(w=view(reading(100, quick=50), reading(106, quick=50, slow=3, histograms=waits)))
        assert page.words().endswith("they wait in the queue.")

    def test_a_flood(self) -> None:
        told = {"rate_limited": 100, "overloaded": 20, "made_up": 1}
        queued: dict[str, Any] = {"queued": 80, "queued_by_project": {"robots": 70, "general": 10}}
        page = Page()
        page.look(w=view(reading(10), reading(15, rejected=told, **queued)))
        assert (
            "w has refused 121 requests in the last 5 s: 100 rate_limited (somebody asks more than the limits allow), "
            "20 overloaded (the queue is full), 1 other." in page.words()
        )
        assert "The queue of w is 80% full: 80 requests wait, 70 of them project robots's." in page.words()
        assert page.seen["queues"] == [{"project": "robots", "queued": 70}, {"project": "general", "queued": 10}]
        assert page.seen["moment"]["refused"] == {"other": 0.2, "overloaded": 4.0, "rate_limited": 20.0}

    def test_of_one_it_is_told_as_of_one(self) -> None:
        page = Page()
        page.look(w=view(reading(10), reading(15, rejected={"overloaded": 1}, errors=1, replies_dropped=1)))
        assert "w has refused 1 request in the last 5 s" in page.words()
        assert "w: 1 request ended without an answer" in page.words()
        assert "w has dropped 1 reply in the last 5 s" in page.words()

    def test_a_burst_is_told_as_long_as_there_is_a_reading_from_before_it(self) -> None:
        told: dict[str, Any] = {"rejected": {"overloaded": 38}}
        page = Page()
        page.look(w=view(reading(10), reading(12, **told)))
        assert "w has refused 38 requests in the last 2 s" in page.words()
        page.look(w=view(reading(10), reading(12, **told), *[reading(uptime, **told) for uptime in (16, 20, 22)]))
        assert "w has refused 38 requests in the last 12 s" in page.words()

    def test_replies_that_are_dropped_and_what_fills(self) -> None:
        level = {"outboundBytes": Level(now=9, bound=10)}
        page = Page()
        page.look(w=view(reading(10), reading(15, replies_dropped=3, levels=level)))
        assert "w has dropped 3 replies in the last 5 s: its link is bad." in page.words()
        assert "w: outboundBytes 90% full, 3 replies dropped." in page.words()


EVIL: Final = "<script>\x1b[2J\u202e" + "x" * 5000


@pytest.mark.parametrize(
    "stats",
    [
        {"requests_per_s": 1.7e308, "processed": 2**63 - 1, "histograms": {}},
        {"rejected": {EVIL + str(number): 2**63 - 1 for number in range(100)}},
        {"active": -(2**63), "capacity": 2**63 - 1, "queued": 2**63 - 1, "queue_size": 1},
        {"queued_by_project": {EVIL[:100]: 2**63 - 1}},
        {
            "models": {
                EVIL[:100] + str(m): ModelStats(state=EVIL[:30], slots={EVIL[:100]: SlotStats()}) for m in range(90)
            }
        },
    ],
    ids=lambda stats: next(iter(stats)),
)
def test_what_strangers_say_is_bounded_and_text(stats: dict[str, Any]) -> None:
    page = Page()
    workers = {f"{EVIL}{number}": view(reading(1), reading(9, **stats), model=EVIL) for number in range(300)}
    page.look(many=workers)
    seen = page.look(many=workers)
    text = json.dumps(seen)
    assert len(text) < 600_000
    assert "\x1b" not in json.loads(text)["workers"][0]["name"]
    assert len(seen["workers"][0]["name"]) <= 70
    assert sum(max(len(model["slots"]), 1) for worker in seen["workers"] for model in worker["models"]) <= 400
    assert set(seen["moment"]["refused"] or ()) <= {"other"}
