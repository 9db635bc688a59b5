"""The gateway's keys: who is let in, how much each may have, and what becomes of a file that changes."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml

from inferbus_client.errors import SettingsError
from inferbus_client.gateway.errors import KeyLimitError
from inferbus_client.gateway.keys import ApiKey, ApiKeys, _Stamp
from inferbus_client.gateway.keys_file import Content, KeysFile, hash_of, new_token
from support.rooms import FakeClock
from support.waiting import until

#: The same in every process of a run: they are part of the tests' names.
TOKENS: Final = {"alice": "ib-" + "a1" * 24, "bob": "ib-" + "b2" * 24}
ALICE: Final = f"keys: {{alice: {{hash: '{hash_of(TOKENS['alice'])}'}}}}"
NONE: Final = "keys: {}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def written(file: Path, **keys: dict[str, object]) -> Path:
    """The file, with keys of these names and settings."""
    said = {name: {"hash": hash_of(TOKENS[name]), **settings} for name, settings in keys.items()}
    return replaced(file, yaml.safe_dump({"keys": said}))


def replaced(file: Path, text: str) -> Path:
    """The file, put in the place of what was there, as editors do it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(file)
    return file


def found(keys: ApiKeys, name: str = "alice") -> ApiKey:
    key = keys.find(TOKENS[name])
    assert key is not None
    return key


def wait(keys: ApiKeys, name: str = "alice") -> float:
    """Seconds that a request of this key is told to wait."""
    with pytest.raises(KeyLimitError) as refused:
        keys.admit(found(keys, name))
    return refused.value.retry_after


class TestFinding:
    def test_a_key_has_what_its_file_says(self, file: Path) -> None:
        limits = {"projects": ["a", "b"], "rate_limit": "60/1m", "max_concurrent": 3, "operator": True}
        keys = ApiKeys(written(file, alice=limits, bob={}))
        alice, bob = found(keys), found(keys, "bob")
        assert (alice.name, alice.max_concurrent, alice.is_operator) == ("alice", 3, True)
        assert alice.rate_limit is not None
        assert (alice.rate_limit.limit, alice.rate_limit.window) == (60, 60.0)
        assert [alice.may_use(project) for project in "abc"] == [True, True, False]
        assert bob == ApiKey("bob")
        assert bob.may_use("anything")

    @pytest.mark.parametrize(
        "token",
        [
            *("", "ib-", "alice", "\0", "é" * 51, "ib-" + "0" * 48, "ib-" + "x" * 100_000),
            *(TOKENS["alice"][:-1], TOKENS["alice"] + "0", TOKENS["alice"].upper(), f" {TOKENS['alice']}"),
            hash_of(TOKENS["alice"]),
        ],
        ids=lambda token: token[:8],
    )
    def test_what_is_no_key_finds_none(self, file: Path, token: str) -> None:
        assert ApiKeys(written(file, alice={})).find(token) is None

    def test_a_word_that_somebody_chose_is_none_even_where_its_hash_stands_in_the_file(self, file: Path) -> None:
        replaced(file, f"keys: {{alice: {{hash: '{hash_of('swordfish')}'}}}}")
        assert ApiKeys(file).find("swordfish") is None

    def test_json_will_do_too(self, file: Path) -> None:
        replaced(file, f'{{"keys": {{"alice": {{"hash": "{hash_of(TOKENS["alice"])}", "max_concurrent": 2}}}}}}')
        assert found(ApiKeys(file)).max_concurrent == 2

    def test_keys_are_random_and_all_of_one_form(self) -> None:
        made = {new_token() for _ in range(100)}
        assert len(made) == 100
        assert {len(token) for token in made} == {3 + 2 * 192 // 8}


class TestComplaints:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "says nothing of keys"),
            ("# nothing", "says nothing of keys"),
            ("- alice", "line 1: must hold a mapping"),
            ("keys: [alice]", "line 1: keys: must be a mapping, NAME: VALUE"),
            ("keys: {alice: }", r"line 1: keys.alice: must be a mapping"),
            ("keys: {alice: {projects: [a]}}", r"line 1: keys.alice.hash: field required"),
            ("keys: {alice: {hash: 'sha256:12'}}", r"line 1: keys.alice.hash: must match \^sha256:"),
            ("keys: {alice: {hash: 'md5:12'}}", r"line 1: keys.alice.hash: must match \^sha256:"),
            (f"{ALICE}\nkey: 1", "line 2: there is no setting key; is keys meant"),
            (f"{ALICE}\nkeys: {{}}", "line 2: keys stands in line 1 already"),
            ("keys:\n  a: {hash: x}\n  a: {hash: y}", "line 3: a stands in line 2 already"),
            (ALICE.replace("}}", ", rate_limits: 1/1s}}"), r"keys.alice.rate_limits; is rate_limit meant"),
            (ALICE.replace("}}", ", rate_limit: 60}}"), r"keys.alice.rate_limit: must be a number per time"),
            (ALICE.replace("}}", ", rate_limit: }}"), r"keys.alice.rate_limit: must not be empty"),
            (ALICE.replace("}}", ", projects: }}"), r"keys.alice.projects: must not be empty"),
            (ALICE.replace("}}", ", projects: [a/b]}}"), r"keys.alice.projects: 'a/b' is no project name"),
            (ALICE.replace("}}", ", max_concurrent: 0}}"), r"keys.alice.max_concurrent: must be at least 1"),
            (ALICE.replace("}}", ", operator: maybe}}"), r"keys.alice.operator: must be true or false"),
            (ALICE.replace("alice", "a/b"), r"a key's name must match"),
            (ALICE.replace("}}", f"}}, bob: {{hash: '{hash_of(TOKENS['alice'])}'}}}}"), "alice and bob have the same"),
        ],
    )
    def test_a_wrong_file_is_one_sentence_with_file_line_and_key(self, file: Path, text: str, complaint: str) -> None:
        with pytest.raises(SettingsError, match=complaint) as caught:
            ApiKeys(replaced(file, text))
        assert str(caught.value).startswith(str(file))
        assert "\n" not in str(caught.value)

    def test_a_key_that_stands_there_by_mistake_is_not_repeated(self, file: Path) -> None:
        for text in (f"keys: {{alice: {{hash: {TOKENS['alice']}}}}}", f"keys: {{alice: {TOKENS['alice']}}}"):
            with pytest.raises(SettingsError) as caught:
                ApiKeys(replaced(file, text))
            assert TOKENS["alice"] not in str(caught.value)

    def test_one_that_is_not_there(self, file: Path) -> None:
        with pytest.raises(SettingsError, match=r"^cannot read .*No such file"):
            ApiKeys(file)

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_one_that_others_may_write_is_refused(self, file: Path, mode: int) -> None:
        written(file, alice={}).chmod(mode)
        with pytest.raises(SettingsError, match="others may write it"):
            ApiKeys(file)

    @pytest.mark.parametrize(("mode", "warnings"), [(0o644, 1), (0o640, 0), (0o400, 0)])
    def test_one_that_everybody_may_read_is_warned_of(
        self, file: Path, mode: int, warnings: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        written(file, alice={}).chmod(mode)
        found(ApiKeys(file))
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings

    def test_one_that_is_too_large_is_not_parsed(self, file: Path) -> None:
        with pytest.raises(SettingsError, match="more than"):
            ApiKeys(replaced(file, "#" * 2_000_001))


class TestLimits:
    def test_no_more_than_so_many_in_any_window(self, file: Path) -> None:
        clock = FakeClock()
        keys = ApiKeys(written(file, alice={"rate_limit": "2/60s"}, bob={"rate_limit": "2/60s"}), clock)
        keys.admit(found(keys)).release()
        clock.pass_(20)
        keys.admit(found(keys)).release()
        assert wait(keys) == 40
        keys.admit(found(keys, "bob")).release()
        clock.pass_(39)
        assert wait(keys) == 1
        clock.pass_(1)
        keys.admit(found(keys)).release()
        assert wait(keys) == 20

    def test_no_more_than_so_many_at_once(self, file: Path) -> None:
        keys = ApiKeys(written(file, alice={"max_concurrent": 2}))
        first, second = (keys.admit(found(keys)) for _ in range(2))
        assert wait(keys) > 0
        first.release()
        first.release()
        third = keys.admit(found(keys))
        assert wait(keys) > 0
        second.release()
        third.release()
        with keys.admit(found(keys)), keys.admit(found(keys)), pytest.raises(KeyLimitError):
            keys.admit(found(keys))
        keys.admit(found(keys))

    def test_what_is_refused_is_not_counted(self, file: Path) -> None:
        clock = FakeClock()
        keys = ApiKeys(written(file, alice={"rate_limit": "2/60s", "max_concurrent": 1}), clock)
        with keys.admit(found(keys)):
            for _ in range(10):
                wait(keys)
        keys.admit(found(keys)).release()
        assert wait(keys) == 60

    def test_what_is_remembered_is_bounded_by_the_limit(self, file: Path) -> None:
        clock = FakeClock()
        keys = ApiKeys(written(file, alice={"rate_limit": "3/1s"}, bob={}), clock)
        for _ in range(1000):
            clock.pass_(0.5)
            keys.admit(found(keys, "bob")).release()
            try:
                keys.admit(found(keys)).release()
            except KeyLimitError:
                continue
        assert {name: len(counts.times) <= 3 for name, counts in keys._counts.items()} == {"alice": True, "bob": True}

    def test_threads_never_get_more_than_there_is(self, file: Path) -> None:
        keys = ApiKeys(written(file, alice={"max_concurrent": 5, "rate_limit": "100/1h"}))
        most, under_way, admitted, lock = 0, 0, 0, threading.Lock()

        def ask() -> None:
            nonlocal most, under_way, admitted
            for _ in range(200):
                try:
                    hold = keys.admit(found(keys))
                except KeyLimitError:
                    continue
                with lock:
                    under_way, admitted = under_way + 1, admitted + 1
                    most = max(most, under_way)
                    under_way -= 1
                hold.release()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most <= 5
        assert admitted == 100


class TestChanges:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def keys(self, file: Path, clock: FakeClock) -> ApiKeys:
        return ApiKeys(written(file, alice={}), clock)

    @pytest.fixture(params=["replaced", "in place"])
    def write(self, request: pytest.FixtureRequest, file: Path) -> Callable[[str], object]:
        return (lambda text: replaced(file, text)) if request.param == "replaced" else file.write_text

    def test_a_removed_key_holds_no_more(self, keys: ApiKeys, clock: FakeClock, write: Callable[[str], object]) -> None:
        found(keys)
        write(NONE)
        clock.pass_(1)
        assert keys.find(TOKENS["alice"]) is None
        write(ALICE)
        clock.pass_(1)
        found(keys)

    def test_one_of_the_same_length_in_the_same_instant_is_seen(
        self, keys: ApiKeys, clock: FakeClock, file: Path, write: Callable[[str], object]
    ) -> None:
        times = file.stat()
        write(file.read_text().replace("alice", "carol"))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        clock.pass_(1)
        assert found(keys).name == "carol"

    def test_one_that_is_written_twice_within_a_tick_of_the_system_s_clock_is_seen(
        self, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        same = _Stamp(0, 0, 0, 0, time.time_ns())
        monkeypatch.setattr(_Stamp, "of", lambda _path: same)
        keys = ApiKeys(written(file, alice={}), clock)
        replaced(file, NONE)
        clock.pass_(1)
        assert keys.find(TOKENS["alice"]) is None

    def test_the_file_is_looked_at_once_a_second_at_most(
        self, keys: ApiKeys, clock: FakeClock, write: Callable[[str], object]
    ) -> None:
        clock.pass_(1)
        found(keys)
        write(NONE)
        clock.pass_(0.9)
        found(keys)
        clock.pass_(0.1)
        assert keys.find(TOKENS["alice"]) is None

    def test_an_old_file_that_stays_as_it_is_is_not_read_again(
        self, file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(file, alice={})
        real = time.time_ns
        monkeypatch.setattr("inferbus_client.gateway.keys.time.time_ns", lambda: real() + 10_000_000_000)
        keys = ApiKeys(file, clock)
        monkeypatch.setattr("inferbus_client.gateway.keys.Content.read", lambda _: pytest.fail("read again"))
        for _ in range(10):
            clock.pass_(1)
            found(keys)

    @pytest.mark.parametrize("text", ["", "keys: [", "keys: {alice: {}}", "keys: {a: {hash: b}}", "\0"])
    def test_a_broken_file_changes_nothing_and_is_complained_of_once(
        self,
        keys: ApiKeys,
        clock: FakeClock,
        write: Callable[[str], object],
        text: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        for broken in (text, f"{text}\n# changed"):
            caplog.clear()
            write(broken)
            for _ in range(5):
                clock.pass_(1)
                found(keys)
            (record,) = caplog.records
            assert record.getMessage().startswith("the keys stay as they were: ")
            assert "keys.yaml" in record.getMessage()
        write(NONE)
        clock.pass_(1)
        assert keys.find(TOKENS["alice"]) is None

    def test_so_is_one_that_is_gone_or_that_others_may_write(
        self, keys: ApiKeys, clock: FakeClock, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file.unlink()
        for _ in range(3):
            clock.pass_(1)
            found(keys)
        written(file, bob={}).chmod(0o666)
        for _ in range(3):
            clock.pass_(1)
            found(keys)
            assert keys.find(TOKENS["bob"]) is None
        gone, open_to_others = (record.getMessage() for record in caplog.records)
        assert "No such file" in gone
        assert "others may write" in open_to_others
        file.chmod(0o600)
        clock.pass_(1)
        found(keys, "bob")

    def test_what_came_in_before_counts_on(self, keys: ApiKeys, clock: FakeClock, file: Path) -> None:
        written(file, alice={"rate_limit": "5/60s", "max_concurrent": 3})
        clock.pass_(1)
        holds = [keys.admit(found(keys)) for _ in range(2)]
        written(file, alice={"rate_limit": "4/60s", "max_concurrent": 2, "operator": True})
        clock.pass_(1)
        assert found(keys).is_operator
        assert wait(keys) == 1  # two are under way
        for hold in holds:
            hold.release()
        for _ in range(2):
            keys.admit(found(keys)).release()
        assert wait(keys) == 59

    def test_under_a_smaller_limit_the_latest_count(self, keys: ApiKeys, clock: FakeClock, file: Path) -> None:
        written(file, alice={"rate_limit": "5/60s"})
        for _ in range(4):
            clock.pass_(10)
            keys.admit(found(keys)).release()
        written(file, alice={"rate_limit": "2/60s"})
        clock.pass_(1)
        assert wait(keys) == 49

    def test_of_removed_keys_nothing_is_kept(self, keys: ApiKeys, clock: FakeClock, file: Path) -> None:
        hold = keys.admit(found(keys))
        for text in (NONE, ALICE, NONE):
            replaced(file, text)
            clock.pass_(1)
            keys.find("")
        assert keys._counts["alice"].running == 1
        hold.release()
        replaced(file, f"{NONE} # changed")
        clock.pass_(1)
        keys.find("")
        assert keys._counts == {}

    def test_nobody_waits_for_a_long_one(
        self, keys: ApiKeys, clock: FakeClock, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = {f"other-{number}": {"hash": hash_of(new_token())} for number in range(200)}
        readers: set[int] = set()
        read = Content.read

        def noted(path: Path) -> Content:
            readers.add(threading.get_ident())
            return read(path)

        monkeypatch.setattr(Content, "read", noted)
        replaced(file, yaml.safe_dump({"keys": others}))
        clock.pass_(2)
        until(lambda: keys.find(TOKENS["alice"]) is None)
        assert threading.get_ident() not in readers
        replaced(file, ALICE)
        clock.pass_(2)
        found(keys)

    def test_a_real_clock_sees_a_removal_within_two_seconds(self, file: Path) -> None:
        keys = ApiKeys(written(file, alice={}))
        began = time.monotonic()
        replaced(file, NONE)
        while keys.find(TOKENS["alice"]) is not None:
            assert time.monotonic() - began < 2
            time.sleep(0.01)


def test_nothing_shows_a_key_or_its_hash(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    keys = ApiKeys(written(file, alice={}), clock)
    said = KeysFile.parse(file.read_bytes(), file)
    shown = [repr(thing) for thing in (keys, found(keys), said, said.keys, keys._content, keys.admit(found(keys)))]
    written(file, alice={"max_concurrent": 1}, bob={})
    clock.pass_(1)
    keys.find("ib-" + secrets.token_hex(24))
    text = "\n".join([*shown, caplog.text])
    assert "was read again: 2 keys" in text
    for token in TOKENS.values():
        assert token not in text
        assert hash_of(token)[7:] not in text
