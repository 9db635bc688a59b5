"""Rate limits per session, client, project and for all together: a request that one refuses counts in none."""

from __future__ import annotations

import pytest

from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.windows import MemoryWindows
from support.rooms import FakeClock

TWO = RateLimit(2, 60)


def limits(clock: FakeClock | None = None, **settings: object) -> RateLimits:
    """Limits of the projects `a` and `b`; the one per session is off unless it is given."""
    given = {"projects": ("a", "b"), "rate_limit": None, **settings}
    made = Settings.model_validate(given)
    return RateLimits(made, MemoryWindows(made.rate_limit_sessions, clock=clock or FakeClock()))


def key(session: str = "s", project: str = "a", user: str | None = None) -> SessionKey:
    return SessionKey(project, session, user)


def test_all_are_off_or_on_by_themselves() -> None:
    off = limits()
    assert [off.admit(key(), None) for _ in range(1000)] == [None] * 1000
    assert off.levels() == {}


def test_sessions_do_not_share_a_window() -> None:
    under_test = limits(rate_limit="1/60s")
    assert under_test.admit(key("s"), None) is None
    assert under_test.admit(key("t"), None) is None
    assert under_test.admit(key("s", "b"), None) is None
    assert under_test.admit(key("s"), None) == 60


class TestClients:
    def test_are_the_payload_s_in_all_of_their_sessions(self) -> None:
        under_test = limits(client_rate_limit=TWO)
        assert [under_test.admit(key(f"s{number}"), "c") for number in range(4)] == [None, None, 60, 60]
        assert under_test.admit(key(), "d") is None

    def test_one_name_in_two_projects_is_two_clients(self) -> None:
        under_test = limits(client_rate_limit="1/60s")
        assert under_test.admit(key(project="a"), "c") is None
        assert under_test.admit(key(project="b"), "c") is None

    def test_who_names_none_shares_one_limit_in_the_project(self) -> None:
        under_test = limits(client_rate_limit=TWO)
        assert [under_test.admit(key(f"s{number}"), None) for number in range(3)] == [None, None, 60]
        assert under_test.admit(key(project="b"), None) is None
        assert under_test.admit(key(), "named") is None

    def test_are_the_topic_s_users_whatever_the_payload_says(self) -> None:
        under_test = limits(client_rate_limit=TWO)
        asked = [under_test.admit(key(f"s{n}", "ab"[n % 2], "eve"), f"made up {n}") for n in range(4)]
        assert asked == [None, None, 60, 60]
        assert under_test.admit(key(user="alice"), "made up 0") is None


class TestProjects:
    def test_as_a_whole(self) -> None:
        under_test = limits(project_rate_limit=TWO)
        assert [under_test.admit(key(f"s{n}"), f"c{n}") for n in range(3)] == [None, None, 60]
        assert under_test.admit(key(project="b"), None) is None

    def test_one_s_own_limit_stands_in_the_place_of_the_worker_s(self) -> None:
        projects = {"a": ProjectSettings.model_validate({"project_rate_limit": "1/60s"}), "b": ProjectSettings()}
        under_test = limits(projects=projects, project_rate_limit=TWO)
        assert [under_test.admit(key(project="a"), None) for _ in range(2)] == [None, 60]
        assert [under_test.admit(key(project="b"), None) for _ in range(3)] == [None, None, 60]

    def test_one_s_own_off_stands_in_the_place_of_the_worker_s(self) -> None:
        projects = {"a": ProjectSettings(project_rate_limit=None), "b": ProjectSettings()}
        under_test = limits(projects=projects, project_rate_limit="1/60s")
        assert [under_test.admit(key(project="a"), None) for _ in range(5)] == [None] * 5


def test_all_together() -> None:
    under_test = limits(total_rate_limit=TWO)
    assert under_test.admit(key("s", "a", "eve"), "c") is None
    assert under_test.admit(key("t", "b"), "d") is None
    assert under_test.admit(key("u", "a"), "e") == 60


@pytest.mark.parametrize("full", ["rate_limit", "client_rate_limit", "project_rate_limit", "total_rate_limit"])
def test_what_one_refuses_counts_in_none(full: str) -> None:
    """Ten are refused by one limit; the others have room for as many as if those had never been sent."""
    clock = FakeClock()
    names = ("rate_limit", "client_rate_limit", "project_rate_limit", "total_rate_limit")
    under_test = limits(clock, **{name: RateLimit(1, 10) if name == full else RateLimit(3, 1000) for name in names})
    assert under_test.admit(key(), "c") is None
    assert [under_test.admit(key(), "c") for _ in range(10)] == [10] * 10
    clock.pass_(10)
    assert under_test.admit(key(), "c") is None
    clock.pass_(10)
    assert under_test.admit(key(), "c") is None
    clock.pass_(10)
    assert under_test.admit(key(), "c") == 970  # now the others are full, by three requests and not by thirteen


def test_the_longest_wait_is_said() -> None:
    clock = FakeClock()
    under_test = limits(clock, rate_limit="1/10s", client_rate_limit="1/50s", total_rate_limit="1/30s")
    under_test.admit(key(), "c")
    clock.pass_(5)
    assert under_test.admit(key(), "c") == 45
    assert under_test.admit(key("t"), "d") == 25


def test_every_table_is_bounded() -> None:
    under_test = limits(
        rate_limit="5/60s", client_rate_limit="5/60s", total_rate_limit="9999/60s", rate_limit_sessions=7
    )
    for number in range(100):
        under_test.admit(key(f"s{number}"), f"c{number}")
    assert under_test.levels() == {"rateLimitSessions": (7, 7), "rateLimitClients": (7, 7)}


def test_every_table_empties_with_its_window() -> None:
    clock = FakeClock()
    under_test = limits(clock, rate_limit="5/60s", client_rate_limit="5/10s")
    under_test.admit(key(), "c")
    clock.pass_(30)
    assert {name: now for name, (now, _) in under_test.levels().items()} == {
        "rateLimitSessions": 1,
        "rateLimitClients": 0,
    }
