"""Who stays of several workers on one project, in whatever order things happen and however their clocks differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Instance, Presence, State, Stats
from inferbus_client.errors import AlreadyServedError
from inferbus_worker.bus.company import Company
from support.rooms import FakeClock

Message = tuple[str, bytes]


def presence(worker: str, state: State = "ready", started: float = 1000.0, **more: object) -> Presence:
    instance = Instance(mark=f"mark-{worker}", started=started, host="kitchen", pid=42)
    fields = {"worker": worker, "state": state, "projects": ("shop",), "identity": "none", "instance": instance, **more}
    return Presence.model_validate(fields)


class Look:
    """One worker that looks around, and what a test tells it."""

    def __init__(self, **me: object) -> None:
        self.clock = FakeClock()
        self.asked: list[str] = []
        self._answered = 0
        self.me = presence("me", "loading", **me)  # type: ignore[arg-type]
        self.company = Company(self.me, self.asked.append, clock=self.clock)

    def hears(self, *said: Presence) -> None:
        for one in said:
            self.company.heard(topics.presence(one.worker), one.encode())

    def hears_itself(self) -> None:
        self.hears(self.me)

    def hears_stats(self, worker: str, *, joining: bool = False) -> None:
        self.company.heard(topics.stats(worker), Stats(worker=worker, joining=joining).encode())

    def answers_itself(self) -> None:
        """As the main thread does, if it was asked, once a second at most."""
        if "me" in self.asked[self._answered :]:
            self._answered = len(self.asked)
            self.hears_stats("me")

    def is_over(self) -> bool:
        return self.company.look()


class TestAlone:
    def test_looking_is_over_when_its_own_presence_has_come_back(self) -> None:
        look = Look()
        assert not look.is_over()
        look.hears_itself()
        assert look.is_over()

    def test_looking_is_over_when_its_own_presence_does_not_come(self, caplog: pytest.LogCaptureFixture) -> None:
        look = Look()
        look.clock.pass_(2)
        assert look.is_over()
        assert "not known" in caplog.text

    @pytest.mark.parametrize(
        "other",
        [
            presence("other", "draining"),
            presence("other", "offline"),
            presence("other", projects=("garden",)),
            presence("other", identity="topic"),
            presence("me", started=1.0),  # our own id: a run of before, or one that `rivals` is for
        ],
        ids=["draining", "offline", "another project", "other topics", "our own id"],
    )
    def test_whoever_does_not_serve_what_we_do_is_not_asked(self, other: Presence) -> None:
        look = Look()
        look.hears(other, look.me)
        assert look.is_over()
        assert not look.asked

    def test_whoever_is_of_our_group_is_welcome(self) -> None:
        look = Look(group="fleet")
        look.hears(presence("other", group="fleet"), look.me)
        assert look.is_over()
        assert not look.asked

    @pytest.mark.parametrize("store", [None, "here"])
    def test_whoever_has_the_same_store_or_does_not_say(self, store: str | None) -> None:
        look = Look(group="fleet", store="here")
        look.hears(presence("other", group="fleet", store=store), look.me)
        assert look.is_over()

    def test_whoever_keeps_the_state_of_our_group_elsewhere_is_not(self) -> None:
        look = Look(group="fleet", store="here")
        look.hears(presence("other", group="fleet", store="there"), look.me)
        assert not look.is_over()
        look.hears_stats("other")
        with pytest.raises(AlreadyServedError, match="in group fleet but with another --state"):
            look.is_over()

    @pytest.mark.parametrize(("ours", "theirs"), [("fleet", "other"), ("fleet", None), (None, "fleet")])
    def test_whoever_is_of_another_group_or_of_none_is_not(self, ours: str | None, theirs: str | None) -> None:
        look = Look(group=ours)
        look.hears(presence("other", group=theirs), look.me)
        assert not look.is_over()
        look.hears_stats("other")
        with pytest.raises(AlreadyServedError, match="or both the same --group and --state"):
            look.is_over()

    def test_whoever_leaves_meanwhile_is_not_waited_for(self) -> None:
        look = Look()
        look.hears(presence("other"), look.me)
        assert not look.is_over()
        look.hears(presence("other", "offline"))
        assert look.is_over()

    def test_whoever_does_not_answer_has_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        look = Look()
        look.hears(presence("other"), look.me)
        while not look.is_over():
            look.answers_itself()
            look.clock.pass_(0.1)
        assert set(look.asked) == {"other", "me"}
        assert len(look.asked) <= 8
        assert "'other', which is ready by its presence, does not answer" in caplog.text

    def test_whoever_does_not_answer_has_not_gone_while_nothing_comes_through(self) -> None:
        """The network was away for some seconds, or the broker."""
        look = Look()
        look.hears(presence("other"), look.me)
        assert not look.is_over()
        look.clock.pass_(5)
        assert not look.is_over()
        look.answers_itself()
        look.hears_stats("other")
        with pytest.raises(AlreadyServedError):
            look.is_over()

    def test_where_not_even_we_can_be_asked_it_is_over_in_time(self, caplog: pytest.LogCaptureFixture) -> None:
        look = Look()
        look.hears(presence("other"), look.me)
        while not look.is_over():
            look.clock.pass_(0.1)
        assert look.clock.now < 1020
        assert "not known" in caplog.text

    def test_nothing_that_is_announced_holds_it_for_long(self) -> None:
        look = Look()
        look.hears(look.me)
        for number in range(1000):
            look.hears(presence("again", started=5000.0), presence(f"invented-{number}"))
            look.hears_stats("again", joining=True)
            if look.is_over():
                break
            look.clock.pass_(0.1)
        assert number < 200
        assert len({*look.asked} - {"me"}) <= 64


class TestNotAlone:
    @pytest.mark.parametrize("state", ["ready", "loading"])
    def test_whoever_serves_stays_whatever_the_clocks_say(self, state: State) -> None:
        look = Look(started=1.0)
        look.hears(presence("other", state, started=5000.0, projects=("shop", "garden")), look.me)
        assert not look.is_over()
        look.hears_stats("other")
        with pytest.raises(AlreadyServedError) as refused:
            look.is_over()
        assert (refused.value.worker, refused.value.projects) == ("other", ("shop",))
        assert "started 1970-01-01 01:23:20 UTC on 'kitchen', process 42" in refused.value.reason

    def test_figures_that_nobody_asked_for_are_no_answer(self) -> None:
        look = Look()
        look.hears(presence("other"))
        look.hears_stats("other")
        look.hears_itself()
        assert not look.is_over()

    def test_an_earlier_one_that_also_looks_stays(self) -> None:
        look = Look(started=1000.0)
        look.hears(presence("other", "loading", started=999.0), look.me)
        look.is_over()
        look.hears_stats("other", joining=True)
        with pytest.raises(AlreadyServedError):
            look.is_over()

    def test_a_later_one_that_also_looks_is_waited_for(self) -> None:
        look = Look(started=1000.0)
        look.hears(presence("other", "loading", started=1001.0), look.me)
        look.is_over()
        look.hears_stats("other", joining=True)
        look.clock.pass_(1)
        assert not look.is_over()
        look.hears(presence("other", "draining", started=1001.0))
        assert look.is_over()


# --- several at once, on a broker that keeps the order ---


@dataclass
class Worker:
    """One that starts: what it does next is in `steps`; what it hears waits in `inbox`."""

    name: str
    started: float
    bus: Bus
    inbox: deque[Message] = field(default_factory=deque)
    fate: str = "looks"
    is_asked: bool = False
    answered_at: float = -10.0
    company: Company | None = None

    @property
    def presence(self) -> Presence:
        state: State = "offline" if self.fate == "refused" else "loading"
        return presence(self.name, state, self.started)

    def joins(self) -> None:
        self.company = Company(self.presence, self.bus.ask, clock=self.bus.clock)
        self.bus.join(self)
        self.bus.announce(self)

    def hears(self) -> None:
        if self.inbox:
            topic, payload = self.inbox.popleft()
            if topic == topics.stats_request(self.name):
                self.is_asked = True
            elif self.company is not None and self.fate == "looks":
                self.company.heard(topic, payload)

    def looks(self) -> None:
        """What the main thread does: it answers, and looks."""
        if self.company is None:
            return self.joins()
        if self.is_asked and self.fate != "refused" and self.bus.clock() >= self.answered_at + 1:
            self.is_asked, self.answered_at = False, self.bus.clock()
            stats = Stats(worker=self.name, joining=self.fate == "looks")
            self.bus.publish(topics.stats(self.name), stats.encode())
        if self.fate == "looks":
            try:
                self.fate = "serves" if self.company.look() else "looks"
            except AlreadyServedError:
                self.fate = "refused"
                self.bus.announce(self)
        return None


@dataclass
class Bus:
    clock: FakeClock = field(default_factory=FakeClock)
    joined: list[Worker] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)

    def join(self, worker: Worker) -> None:
        self.joined.append(worker)
        worker.inbox.extend(self.retained.items())

    def announce(self, worker: Worker) -> None:
        self.retained[topics.presence(worker.name)] = worker.presence.encode()
        self.publish(topics.presence(worker.name), worker.presence.encode())

    def ask(self, worker: str) -> None:
        self.publish(topics.stats_request(worker), b"")

    def publish(self, topic: str, payload: bytes) -> None:
        for worker in self.joined:
            worker.inbox.append((topic, payload))


@given(
    st.lists(st.floats(0, 10), min_size=2, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["hears", "looks", "waits"])), max_size=150),
)
def test_exactly_one_stays(started: list[float], steps: list[tuple[int, str]]) -> None:
    bus = Bus()
    workers = [Worker(f"w{number}", at, bus) for number, at in enumerate(started)]
    for number, step in steps:
        worker = workers[number % len(workers)]
        act: dict[str, Callable[[], None]] = {
            "hears": worker.hears,
            "looks": worker.looks,
            "waits": lambda: bus.clock.pass_(0.02),
        }
        act[step]()
    for _ in range(2000):  # from here on everybody has his turn
        for worker in workers:
            worker.looks()
            for _message in range(len(worker.inbox)):
                worker.hears()
        bus.clock.pass_(0.02)
    assert sorted(worker.fate for worker in workers) == ["refused"] * (len(workers) - 1) + ["serves"]
