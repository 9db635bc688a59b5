"""A gateway speaks for many: its `clientId` says who asks. Of everybody else that is a word, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.errors import SettingsError
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from support.rooms import NOTHING, Rooms, replies, texts

pytestmark = pytest.mark.usefixtures("state")

GATEWAY: Final = "inferbus-gateway"
LIMITED: Final = "Error: Rate limit exceeded. Please slow down your requests."


def rooms(**settings: Any) -> Rooms:
    return Rooms(identity="topic", gateways=[GATEWAY, "inferbus-gateway-2"], **settings)


def ask(rooms: Rooms, client: str | None, user: str = GATEWAY, session: str = "s1", **fields: Any) -> list[str]:
    """What is said at once to a request."""
    asked = {"message": "hello"} if fields.keys().isdisjoint({"messages", "reset"}) else {}
    named = {} if client is None else {"clientId": client}
    return texts(rooms.receive(f"general/users/{user}/user_input/{session}", {**asked, **named, **fields}))


def answer(rooms: Rooms, client: str | None, user: str = GATEWAY, session: str = "s1", **fields: Any) -> list[str]:
    return [*ask(rooms, client, user, session, **fields), *texts(rooms.work())]


class TestSettings:
    def test_are_written_as_other_lists_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "inferbus.yaml"
        file.write_text("identity: topic\ngateways: [a, b]\n")
        assert Settings.load({}, file).gateways == ["a", "b"]
        assert Settings.load({"gateways": ("c", "d")}, file).gateways == ["c", "d"]
        monkeypatch.setenv("INFERBUS_GATEWAYS", "e,f")
        assert Settings.load({}, file).gateways == ["e", "f"]

    def test_need_topics_that_say_who_asks(self, tmp_path: Path) -> None:
        file = tmp_path / "inferbus.yaml"
        file.write_text("gateways: [a]\n")
        with pytest.raises(SettingsError, match=r"--gateway needs --identity topic.*\(gateways: .*line 1\)"):
            Settings.load({}, file)

    @pytest.mark.parametrize("name", ["a/b", "+", "a b", "x" * 129])
    def test_name_users(self, name: str) -> None:
        with pytest.raises(SettingsError, match=r"gateways: .* is no user"):
            Settings.load({"identity": "topic", "gateways": [name]})


class TestOwner:
    def test_is_never_another_user_nor_another_gateway_s_client(self) -> None:
        owners = [
            SessionKey("p", "s", user, client).owner("ignored")
            for user, client in (("g", None), ("g", "alice"), ("h", "alice"), ("alice", None), ("g", "h/alice"))
        ]
        assert len(set(owners)) == len(owners)
        assert SessionKey("p", "s", "g", "a/b").owner(None) == SessionKey("other", "s", "g", "a/b").owner(None)

    def test_behind_a_gateway_is_whom_it_names(self) -> None:
        under_test = rooms()
        for client in ("alice", "bob", None):
            ask(under_test, client, session=f"s-{client}")
        ask(under_test, "alice", user="alice")
        owners = [under_test.take().owner for _ in range(4)]
        assert len(set(owners)) == 4
        assert {GATEWAY, "alice"} < set(owners)


class TestLimits:
    def test_of_one_client_leave_the_others_alone(self) -> None:
        under_test = rooms(client_rate_limit="2/60s")
        for client in ("alice", "bob"):
            for session in ("a", "b"):
                assert answer(under_test, client, session=session) == ["fine"]
            assert ask(under_test, client, session="c") == [LIMITED]
        assert answer(under_test, None) == ["fine"]  # the gateway itself
        assert answer(under_test, "alice", user="alice") == ["fine"]
        assert answer(under_test, "alice", user="inferbus-gateway-2") == ["fine"]

    def test_of_a_stranger_are_no_others_for_the_names_that_it_makes_up(self) -> None:
        under_test = rooms(client_rate_limit="2/60s")
        said = [answer(under_test, f"client {number}", user="eve") for number in range(3)]
        assert said == [["fine"], ["fine"], [LIMITED]]

    def test_a_blank_name_is_the_gateway_s_own(self) -> None:
        under_test = rooms(client_rate_limit="1/60s")
        assert answer(under_test, " ") == ["fine"]
        assert ask(under_test, None) == [LIMITED]


class TestConversations:
    def test_of_two_clients_are_two_whatever_their_sessions_are_called(self) -> None:
        under_test = rooms()
        for client in ("alice", "bob", "alice"):
            answer(under_test, client)
        assert [len(call.messages) for call in under_test.engine.calls] == [1, 1, 3]
        assert len({call.cache_salt for call in under_test.engine.calls}) == 2

    def test_that_are_brought_along_have_a_salt_for_each_client(self) -> None:
        under_test = rooms()
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
        for user, client in ((GATEWAY, "a"), (GATEWAY, "b"), (GATEWAY, None), ("inferbus-gateway-2", "a"), ("a", "a")):
            answer(under_test, client, user, **asked)
            answer(under_test, client, user, **asked)
        salts = [call.cache_salt for call in under_test.engine.calls]
        assert salts[::2] == salts[1::2]
        assert len(set(salts)) == 5

    def test_are_no_others_for_the_names_that_a_stranger_makes_up(self) -> None:
        under_test = rooms()
        for client in ("a", "b", None):
            answer(under_test, client, user="eve")
        assert [len(call.messages) for call in under_test.engine.calls] == [1, 3, 5]
        assert len({call.cache_salt for call in under_test.engine.calls}) == 1

    def test_are_reset_for_the_client_that_is_named(self) -> None:
        under_test = rooms()
        for client in ("alice", "bob"):
            answer(under_test, client)
        ask(under_test, "alice", reset=True)
        for client in ("alice", "bob"):
            answer(under_test, client)
        assert [len(call.messages) for call in under_test.engine.calls[2:]] == [1, 3]


class TestCancels:
    @pytest.mark.parametrize("client", ["alice", None])
    def test_reach_what_the_gateway_has_asked_for_its_clients(self, client: str | None) -> None:
        under_test = rooms()
        ask(under_test, client, reply="json", requestId="r1")
        ask(under_test, "bob", reply="json", requestId="r2")
        (cancelled,) = replies(
            under_test.receive(f"general/users/{GATEWAY}/cancel/s1", {"requestId": "r1", "clientId": "whoever"})
        )
        assert (cancelled["requestId"], cancelled["code"]) == ("r1", "cancelled")
        under_test.work()
        assert under_test.left_behind == NOTHING

    def test_of_another_user_reach_nothing(self) -> None:
        under_test = rooms()
        ask(under_test, "eve")
        assert under_test.receive("general/users/eve/cancel/s1") == []
        assert texts(under_test.work()) == ["fine"]


def test_a_repeat_is_one_client_s_alone() -> None:
    under_test = rooms(client_rate_limit="3/60s")
    for client in ("alice", "alice", "bob"):
        assert answer(under_test, client, requestId="r1") == ["fine"]
    assert len(under_test.engine.calls) == 2
    assert answer(under_test, "alice", requestId="r1") == ["fine"]  # from memory, which counts
    assert ask(under_test, "alice", requestId="r1") == [LIMITED]
    assert answer(under_test, "bob", requestId="r1") == ["fine"]


def test_nothing_is_left_behind() -> None:
    under_test = rooms(client_rate_limit="9/60s")
    for client in ("alice", None):
        answer(under_test, client, requestId="r1")
    assert under_test.left_behind == NOTHING
