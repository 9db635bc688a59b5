"""Three workers do whatever they can, some are lost, answers get lost: nothing leaks, and each job has one end."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.redis.bids import Charging
from inferbus_worker.state.redis.holdings import Ending, Taken, Written
from inferbus_worker.state.redis.verdicts import Admitted, Granted
from support.redis_calls import Store, bid, group

_PROJECTS: Final = {"p": ProjectSettings(), "q": ProjectSettings(weight=2, priority=1)}
_MODELS: Final = ("m", "n")
_CHARGE: Final = Charging(5, 5, 10, 100, 400, 30.0)
#: What stays when all has ended: nothing of it belongs to one job.
_LASTING: Final = {"turns", "sessions", "kept", "workers", "mark"}
_LASTING_KINDS: Final = ("confirmed:", "gone:", "session:", "retry:", "window:", "budget:", "tomb:", "bell:", "worker:")


class Fleet:
    """Three workers that share a store, and what each believes to hold."""

    def __init__(self, store: Store) -> None:
        store.clear()
        self.store = store
        self.groups = [
            group(f"w{number}", projects=_PROJECTS, models=_MODELS, queue_size=8, max_sessions=3, max_attempts=2)
            for number in range(3)
        ]
        self.held: list[dict[str, Taken]] = [{}, {}, {}]
        #: With those that were granted, which are held when they are confirmed.
        self.unconfirmed: list[dict[str, Taken | None]] = [{}, {}, {}]
        self.count = 0
        self.ends: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.owed: set[str] = set()

    def step(self, worker: int, what: str, number: int) -> None:
        getattr(self, f"_{what}")(worker, number)
        self.check()

    def _mark(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def _hold(self, worker: int, jobs: Any) -> None:
        """Note jobs; now and then the answer is lost, and nobody knows of them."""
        if self.count % 7:
            self.held[worker].update({taken.job: taken for taken in jobs})

    def _admit(self, worker: int, number: int) -> None:
        self.count += 1
        job, session = f"j{self.count:04}", f"s{number % 4}"
        request = bid(
            job,
            project="pq"[number % 2],
            model=_MODELS[number // 2 % 2],
            owner=[None, "a", "b"][number % 3],
            session=None if number % 5 == 0 else session,
            flying=session,
            names=f"n{number}",
            retry=f"r{number % 9}" if number % 2 else None,
            windows=(("w", 30, 60.0),),
            deadline=5 if number % 4 == 0 else None,
            form_limit=2 if number % 3 == 0 else None,
            charge=_CHARGE if number % 7 else None,
        )
        token = self._mark() if number // 4 % 2 else None
        call = self.groups[worker].admit(request, self.store.now_ms, token)
        match self.store.ask(call):
            case Admitted():
                self.unconfirmed[worker][job] = None
            case Granted(version) as verdict:
                assert token is not None
                assert self.store.ask(call) == verdict, "the answer was lost"
                self.unconfirmed[worker][job] = Taken(
                    job, token, 0, b"", request.session, version, 0.0, request.deadline, None, is_poison=False
                )

    def _confirm(self, worker: int, _: int) -> None:
        jobs, self.unconfirmed[worker] = self.unconfirmed[worker], {}
        became = self.store.ask(self.groups[worker].confirm(list(jobs)))
        there = {job: taken for job, taken in jobs.items() if job not in {*became.gone, *became.elsewhere}}
        self.accepted.update(there)
        self.held[worker].update({job: taken for job, taken in there.items() if taken is not None})

    def _withdraw(self, worker: int, _: int) -> None:
        jobs, self.unconfirmed[worker] = self.unconfirmed[worker], {}
        self.store.ask(self.groups[worker].withdraw(list(jobs)))

    def _take(self, worker: int, number: int) -> None:
        wanted = [("m", number % 3), ("n", number // 3 % 3)]
        self._hold(worker, self.store.ask(self.groups[worker].take(self._mark(), wanted)).jobs)

    def _commit(self, worker: int, number: int) -> None:
        """Of everything that it holds; twice, as if the first answer had been lost."""
        for taken in self.held[worker].values():
            if taken.owed is not None:
                continue
            change = Written(taken.version + 1, b"c", 20, number, 10) if taken.session and number % 3 else None
            outcome = b"o" if number % 2 else None
            ending = Ending(taken.job, taken.token, b"reply", outcome, change, number or None)
            first, again = (self.store.ask(self.groups[worker].commit(ending)) for _ in range(2))
            assert (first is None) == (again is None)
            if first is not None and taken.job not in self.owed:
                self.ends[taken.job] += 1
                self.owed.add(taken.job)

    def _settle(self, worker: int, number: int) -> None:
        held = [(taken.job, taken.token, number % 2 == 0) for taken in self.held[worker].values()]
        ended = [one for one in held if one[0] in self.owed]
        self.store.ask(self.groups[worker].settle(ended))
        for job, *_ in ended:
            del self.held[worker][job]

    def _renew(self, worker: int, _: int) -> None:
        held = [(taken.job, taken.token) for taken in self.held[worker].values()]
        for job in self.store.ask(self.groups[worker].renew(held)).lost:
            del self.held[worker][job]

    def _give_back(self, worker: int, _: int) -> None:
        self.store.ask(self.groups[worker].give_back([(one.job, one.token) for one in self.held[worker].values()]))
        self.held[worker] = {}

    def _die(self, worker: int, _: int) -> None:
        self.held[worker], self.unconfirmed[worker] = {}, {}

    def _reap(self, worker: int, _: int) -> None:
        self._hold(worker, self.store.ask(self.groups[worker].reap(self._mark())).mine)

    def _overdue(self, worker: int, number: int) -> None:
        for taken in self.store.ask(self.groups[worker].overdue(self._mark())):
            if number % 2:
                self.held[worker][taken.job] = taken
            else:
                call = self.groups[worker].put_back(taken.job, taken.token, _MODELS[number // 2 % 2], 1.0)
                assert self.store.ask(call)

    def _cancel(self, worker: int, number: int) -> None:
        call = self.groups[worker].cancel(f"s{number % 4}", f"n{number}" if number % 2 else None, self._mark())
        self._hold(worker, self.store.ask(call).mine)

    def _reset(self, worker: int, number: int) -> None:
        self.store.ask(self.groups[worker].reset(f"s{number % 4}", b"reset"))

    def _beat(self, worker: int, _: int) -> None:
        self.store.ask(self.groups[worker].beat(b"", {}))

    def _pass(self, _: int, number: int) -> None:
        self.store.pass_([0.02, 1.5, 4, 11][number % 4])

    def check(self) -> None:
        """What holds after every step, as one who looks at all keys sees it."""
        client: Any = self.store.client
        prefix, names = self.groups[0].prefix, self.store.names()
        jobs: dict[str, dict[bytes, bytes]] = {
            name[4:]: client.hgetall(prefix + name) for name in names if name.startswith("job:")
        }
        unconfirmed = {name: job for name, job in jobs.items() if job[b"state"] == b"unconfirmed"}
        granted = {name for name, job in unconfirmed.items() if job[b"token"]}
        waiting = {
            name: job
            for name, job in jobs.items()
            if job[b"state"] in {b"queued", b"unconfirmed"} and name not in granted
        }
        queued = {name for name, job in waiting.items() if job[b"state"] == b"queued"}
        working = {name for name, job in jobs.items() if job[b"state"] in {b"running", b"owed"}}
        unended = {name for name, job in jobs.items() if job[b"state"] != b"owed"}

        def members(kind: str) -> list[str]:
            found = (client.zrange(prefix + name, 0, -1) for name in names if name.startswith(kind))
            return sorted(member.decode() for some in found for member in some)

        def counts(name: str) -> Counter[str]:
            return Counter({key.decode(): int(value) for key, value in client.hgetall(prefix + name).items()})

        assert members("lane:") == members("ages:") == sorted(queued)
        assert set(members("looks")) <= queued
        assert set(members("unconfirmed")) == set(unconfirmed)
        assert set(members("leases")) == working
        holders = [member for name in names if name.startswith("held:") for member in client.smembers(prefix + name)]
        assert sorted(member.decode() for member in holders) == sorted(working)
        assert counts("lengths") == Counter(job[b"lane"].decode() for job in waiting.values())
        forms = (job[b"model"].decode() for name, job in jobs.items() if name in unended and job[b"form"])
        assert counts("forms") == Counter(forms)
        assert sorted(member.partition("/")[2] for member in members("flying:")) == sorted(unended)
        self._check_owners(waiting)
        claims = {
            claim.decode(): name
            for name in names
            if name.startswith("session:") and (claim := client.hget(prefix + name, "claim"))
        }
        # One that was cancelled while it ran has let its session go, perhaps to another.
        of_sessions = {name for name in unended if jobs[name][b"session"]}
        assert set(claims) <= of_sessions
        assert {name for name in of_sessions if b"cancelled" not in jobs[name]} <= set(claims)
        in_flight = [
            value[2:].decode()
            for name in names
            if name.startswith("retry:") and (value := client.get(prefix + name)).startswith(b"j:")
        ]
        assert sorted(in_flight) == sorted(name for name in unended if jobs[name][b"retry"])
        kept = members("sessions")
        sizes = (int(client.hget(f"{prefix}session:{name}", "bytes") or 0) for name in kept)
        assert sum(sizes) == int(client.hget(prefix + "kept", "bytes") or 0)
        assert all(count == 1 for count in self.ends.values())

    def _check_owners(self, waiting: dict[str, dict[bytes, bytes]]) -> None:
        client: Any = self.store.client
        prefix = self.groups[0].prefix
        expected: dict[str, Counter[bytes]] = {}
        for job in waiting.values():
            lane = expected.setdefault(job[b"lane"].decode(), Counter())
            if job.get(b"returned") != b"1":
                lane[b"n" + job[b"owner"]] += 1
            if job[b"state"] == b"unconfirmed":
                lane[b"unconfirmed"] += 1
        for lane_name in {name for name in self.store.names() if name.startswith("owners:")} | {
            f"owners:{name}" for name in expected
        }:
            fields = client.hgetall(prefix + lane_name)
            found = Counter({name: int(value) for name, value in fields.items() if not name.startswith(b"v")})
            assert found == expected.get(lane_name.removeprefix("owners:"), Counter())
            named = {name[1:] for name in fields if name.startswith(b"v")}
            assert named == {name[1:] for name in found if name.startswith(b"n")}

    def finish(self) -> None:
        """Everybody is lost but one, who does what is left to do."""
        for worker in range(3):
            self._die(worker, 0)
        self.count = 1000 * 7
        for _ in range(60):
            self.store.pass_(11)
            taken = [
                *self.store.ask(self.groups[0].reap("x")).mine,
                *self.store.ask(self.groups[0].take("x", [("m", 9), ("n", 9)])).jobs,
            ]
            for one in taken:
                if one.owed is None:
                    assert self.store.ask(self.groups[0].commit(Ending(one.job, "x", b"reply"))) is not None
                    self.ends[one.job] += 1
                    self.owed.add(one.job)
            self.store.ask(self.groups[0].settle([(one.job, "x", True) for one in taken]))
            self.check()
            if not any(name.startswith("job:") for name in self.store.names()):
                break
        left = {name for name in self.store.names() - _LASTING if not name.startswith(_LASTING_KINDS)}
        assert left == set()
        # Who was told that it was accepted got one end, and nobody else any.
        assert set(self.ends) == self.accepted


_STEPS: Final = (
    *("admit",) * 5,
    *("confirm", "take", "commit") * 3,
    *("withdraw", "settle", "renew", "give_back", "die", "reap", "overdue", "cancel", "reset", "beat", "pass", "pass"),
)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(_STEPS), st.integers(0, 40)), min_size=20, max_size=80))
@trials(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_leaks_and_each_accepted_request_has_one_end(store: Store, steps: list[tuple[int, str, int]]) -> None:
    fleet = Fleet(store)
    for worker, what, number in steps:
        fleet.step(worker, what, number)
    fleet.finish()
