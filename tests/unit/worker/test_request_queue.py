"""The bounded fair queue: weights, equal shares, kept room, priority with ageing, removal and deadlines."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.places import Everywhere
from support.line import Line


class TestOrder:
    def test_first_come_first_served_within_a_project(self) -> None:
        line = Line(a={})
        jobs = line.put("a", 20)
        assert [line.queue.take() for _ in range(20)] == jobs

    def test_equal_projects_share_evenly_whoever_came_first(self) -> None:
        line = Line(a={}, b={})
        line.put("a", 50)
        line.put("b", 50)
        taken = line.take(40)
        assert Counter(taken) == {"a": 20, "b": 20}
        assert "aaa" not in "".join(taken)

    def test_weights(self) -> None:
        line = Line(a={"weight": 3}, b={"weight": 1})
        line.put("a", 100)
        line.put("b", 100)
        assert Counter(line.take(80)) == {"a": 60, "b": 20}

    def test_idling_earns_no_credit(self) -> None:
        line = Line(a={}, b={})
        line.put("a", 100)
        line.take(50)
        line.put("b", 50)
        assert Counter(line.take(20)) == {"a": 10, "b": 10}

    def test_idling_costs_no_turn(self) -> None:
        line = Line(a={}, b={})
        line.put("a", 30)
        line.take(30)
        line.put("b", 30)
        line.take(5)
        line.put("a", 30)
        shares = Counter(line.take(20))
        assert abs(shares["a"] - shares["b"]) <= 2  # one turn ahead at most

    def test_a_third_project_s_priority_does_not_upset_the_shares_of_the_others(self) -> None:
        """The urgent project's many turns once counted against whoever came next, of any priority."""
        line = Line(a={}, b={}, urgent={"priority": 5})
        line.put("a", 40)
        line.put("urgent", 100)
        assert Counter(line.take(100)) == {"urgent": 100}
        line.put("b", 40)
        assert Counter(line.take(40)) == {"a": 20, "b": 20}

    @given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.data())
    def test_nothing_is_lost_or_taken_twice(self, arrivals: list[str], data: st.DataObject) -> None:
        line = Line(a={"weight": 2}, b={"priority": 1}, c={})
        put: list[Job] = []
        taken: list[Job | None] = []
        for project in arrivals:
            put += line.put(project)
            line.clock.pass_(1)
            if data.draw(st.booleans()):
                taken.append(line.queue.take())
        taken += [line.queue.take() for _ in range(len(line.queue))]
        assert sorted(map(id, taken)) == sorted(map(id, put))


class TestPriority:
    def test_higher_goes_first(self) -> None:
        line = Line(low={}, high={"priority": 1})
        line.put("low", 3)
        line.put("high", 3)
        assert line.take(6) == ["high"] * 3 + ["low"] * 3

    def test_waiting_makes_up_for_it(self) -> None:
        line = Line(ageing=5, low={}, high={"priority": 2})
        line.put("low")
        line.clock.pass_(11)  # two steps are worth ten seconds
        line.put("high")
        assert line.take(2) == ["low", "high"]

    def test_waiting_makes_up_for_nothing_before_its_time(self) -> None:
        line = Line(ageing=5, low={}, high={"priority": 2})
        line.put("low")
        line.clock.pass_(9)
        line.put("high")
        assert line.take(2) == ["high", "low"]

    def test_nothing_waits_for_ever(self) -> None:
        line = Line(ageing=5, low={"priority": -100}, high={"priority": 100})
        line.put("low")
        waited = 0
        while True:
            line.put("high")
            if line.take(1) == ["low"]:
                break
            line.clock.pass_(1)
            waited += 1
        assert waited <= 200 * 5 + 1


class TestRoom:
    def test_the_size_is_the_bound(self) -> None:
        line = Line(10, a={})
        assert line.fill("a") == 10
        assert len(line.queue) == 10
        assert line.queue.position("a") is None

    def test_taking_makes_room(self) -> None:
        line = Line(10, a={})
        line.fill("a")
        line.take(1)
        assert line.queue.position("a") == 9

    def test_a_flood_leaves_room_for_the_others(self) -> None:
        line = Line(100, flood={}, quiet={})
        assert line.fill("flood") == 75
        assert line.fill("quiet") == 25
        assert len(line.queue) == 100

    def test_room_is_kept_by_weight(self) -> None:
        line = Line(100, flood={"weight": 1}, quiet={"weight": 4})
        assert line.fill("flood") == 60
        assert line.fill("quiet") == 40

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_small_queues_hold_what_they_say(self, size: int) -> None:
        line = Line(size, a={}, b={}, c={})
        assert sum(line.fill(project) for project in "abc") == size

    @given(
        st.integers(1, 40),
        st.lists(st.floats(0.001, 1000), min_size=1, max_size=4),
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=120),
    )
    def test_never_more_than_its_size(self, size: int, weights: list[float], steps: list[tuple[int, bool]]) -> None:
        projects: dict[str, Any] = {f"p{number}": {"weight": weight} for number, weight in enumerate(weights)}
        line = Line(size, **projects)
        for number, takes in steps:
            project = f"p{number % len(weights)}"
            if line.queue.position(project) is not None:
                line.put(project)
            if takes and len(line.queue):
                line.take(1)
            assert len(line.queue) <= size

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "take", "remove", "give back"]), st.sampled_from("abc"), st.integers(0, 30)
            ),
            max_size=100,
        )
    )
    def test_what_it_counts_as_it_goes_is_what_a_count_of_all_lanes_comes_to(
        self, steps: list[tuple[str, str, int]]
    ) -> None:
        line = Line(12, a={"weight": 3}, b={"priority": 1}, c={})
        put: list[Job] = []
        taken: list[Job] = []
        for step, project, number in steps:
            if step == "put" and line.queue.position(project) is not None:
                put += line.put(project)
            elif step == "take" and len(line.queue):
                job = line.queue.take()
                assert job is not None
                taken.append(job)
            elif step == "remove" and number < len(put):
                line.queue.remove(put[number])
            elif step == "give back" and taken:
                line.queue.give_back(taken.pop())
            lanes = line.queue._lanes.values()
            assert len(line.queue) == sum(map(len, lanes))
            assert line.queue._beyond == sum(max(0, len(lane) - lane.reserved) for lane in lanes)
            assert {lane for each in line.queue._waiting.values() for lane in each} == {lane for lane in lanes if lane}


def test_where_no_place_is_free_no_lane_is_looked_into() -> None:
    """Each lane was, and all that were left gone through after each: 100 ms a take with 1,000 projects waiting."""
    projects: dict[str, Any] = {f"p{number}": {} for number in range(20)}
    line = Line(**projects)
    for project in projects:
        line.put(project)
    line.queue._places = full = Mock(spec=Everywhere)
    full.has_free.return_value = False
    assert line.queue.take(0) is None
    full.acquire.assert_not_called()


class TestLeaving:
    def test_a_removed_request_is_not_taken(self) -> None:
        line = Line(a={})
        first, second = line.put("a", 2)
        assert line.queue.remove(first)
        assert line.queue.take() is second
        assert len(line.queue) == 0

    def test_removing_what_was_taken_changes_nothing(self) -> None:
        line = Line(a={})
        (job,) = line.put("a")
        line.queue.take()
        assert not line.queue.remove(job)
        assert len(line.queue) == 0

    def test_deadlines(self) -> None:
        line = Line(a={})
        (late,) = line.put("a", deadline=line.clock() + 10)
        (soon,) = line.put("a", deadline=line.clock() + 5)
        line.put("a")
        assert line.queue.due() == []
        line.clock.pass_(5)
        assert line.queue.due() == [soon]
        line.clock.pass_(100)
        assert line.queue.due() == [late]
        assert line.queue.due() == []

    def test_far_deadlines_do_not_keep_finished_requests(self) -> None:
        """A day's deadline once kept a day's requests, with their text, in memory."""
        line = Line(a={})
        for _ in range(5000):
            line.put("a", deadline=line.clock() + 86_400)
            line.take(1)
        assert len(line.queue._looks) < 200

    def test_sweeping_out_finished_requests_loses_no_deadline_of_who_waits(self) -> None:
        line = Line(a={}, b={"priority": -1})
        waiting = line.put("b", 30, deadline=line.clock() + 50)
        for _ in range(500):
            line.put("a", deadline=line.clock() + 86_400)
            line.take(1)
        line.clock.pass_(51)
        assert [job for job in line.queue.due() if job.key.project == "b"] == waiting


class TestClosing:
    def test_takers_end_after_what_was_put_before(self) -> None:
        line = Line(a={})
        line.put("a", 3)
        line.queue.close()
        assert line.take(3) == ["a"] * 3
        assert line.queue.take() is None

    def test_a_waiting_taker_is_woken(self) -> None:
        line = Line(a={})
        taken: list[Job | None] = []
        threads = [threading.Thread(target=lambda: taken.append(line.queue.take())) for _ in range(4)]
        for thread in threads:
            thread.start()
        (job,) = line.put("a")
        line.queue.close()
        for thread in threads:
            thread.join(60)
        # One of the four got the job and one token is left, as for a thread that comes back for more.
        assert sorted(taken, key=id) == sorted([job, None, None, None], key=id)

    def test_removed_requests_do_not_end_takers_early(self) -> None:
        line = Line(a={})
        first, second = line.put("a", 2)
        line.queue.remove(first)
        line.queue.close()
        assert line.queue.take() is second
        assert line.queue.take() is None


class TestByProject:
    def test_only_where_something_waits_and_the_longest_first(self) -> None:
        line = Line(a={}, b={}, c={})
        line.put("a", 2)
        line.put("c", 5)
        assert line.queue.queued_by_project(9) == {"c": 5, "a": 2}
        assert list(line.queue.queued_by_project(9)) == ["c", "a"]
        assert line.queue.queued_by_project(1) == {"c": 5}
        line.take(7)
        assert line.queue.queued_by_project(9) == {}
