"""A batch's files: what is a request, what is none, what an earlier run has left behind."""

from __future__ import annotations

import io
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from inferbus_client.cli.batch import lines
from inferbus_client.cli.batch.lines import Line, Requests
from inferbus_client.cli.batch.records import Outcome, Records, answer_record, error_record
from inferbus_client.errors import SettingsError
from inferbus_client.exchange.answer import Answer
from support.batch_files import read, request, write


def requests(content: bytes, salt: str = "") -> Requests:
    return Requests(io.BytesIO(content), "requests.jsonl", salt)


def line(custom_id: str = "a") -> Line:
    return Line(1, custom_id, custom_id.encode().rjust(16, b"0"), {})


def written(path: Path, *custom_ids: str) -> Path:
    with closing(Records(path)) as records:
        for custom_id in custom_ids:
            one = line(custom_id)
            records.write(answer_record(one, Answer("hi", "s", one.digest.hex()), "m"))
    return path


class TestRequests:
    def test_blank_lines_and_a_byte_order_mark_are_nothing(self) -> None:
        content = b'\xef\xbb\xbf{"custom_id": "a"}\n\n  \r\n{"custom_id": "b"}'
        assert [(one.number, one.custom_id) for one in requests(content).read() if isinstance(one, Line)] == [
            (1, "a"),
            (4, "b"),
        ]

    def test_a_digest_is_of_the_line_s_own_words(self) -> None:
        first, again, other = b'{"custom_id": "a"}', b'  {"custom_id": "a"}\r', b'{"custom_id":  "a"}'
        (one, two, three) = requests(b"\n".join((first, again, other))).read()
        (salted,) = requests(first, "phi").read()
        assert isinstance(one, Line)
        assert isinstance(two, Line)
        assert isinstance(three, Line)
        assert isinstance(salted, Line)
        assert one.digest == two.digest
        assert len({one.digest, three.digest, salted.digest}) == 3

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "has no requests in it"),
            (b"\n \n", "has no requests in it"),
            (b'{"custom_id": "a"}\n{"custom', "line 2: is no JSON"),
            (b"[]", "line 1: is no JSON object"),
            (b'"a"', "line 1: is no JSON object"),
            (b"[" * 100_000, "line 1: is no JSON"),
            (b'{"custom_id": "\\ud800"}', "line 1: is no JSON"),
            (b"{}", "line 1: custom_id must be a text"),
            (b'{"custom_id": 7}', "line 1: custom_id must be a text"),
            (b'{"custom_id": ""}', "line 1: custom_id must be a text"),
            (b'{"custom_id": "' + b"a" * 513 + b'"}', "line 1: custom_id must be a text of 1 to 512"),
            (b'{"custom_id": "a"}\n\n{"custom_id": "a", "x": 1}', "line 3: custom_id 'a' stands on an earlier line"),
            (b'{"custom_id": "\\u001b[2J"}\n' * 2, r"custom_id '\x1b[2J' stands"),
            (b"\x1f\x8b\x08\x00\x00\n\x00\xff", "line 1: is no text"),
            (b'{"custom_id": "Gr\xfcn"}', "line 1: is not UTF-8"),
            ('{"custom_id": "a"}'.encode("utf-16"), "line 1: is no text"),
        ],
    )
    def test_what_is_none(self, content: bytes, words: str) -> None:
        with pytest.raises(SettingsError) as refused:
            requests(content).check(set())
        assert words in str(refused.value)
        assert "\x1b" not in str(refused.value)

    def test_of_many_faults_a_few_are_told(self) -> None:
        with pytest.raises(SettingsError, match=r"line 5: (.*\n)+  and 95 more") as refused:
            requests(b"{}\n" * 100).check(set())
        assert len(str(refused.value).splitlines()) == 7

    def test_an_over_long_line_is_told_by_its_number_and_never_held_as_a_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        most = 1024 * 1024
        monkeypatch.setattr(lines, "MAX_LINE", most)
        path = tmp_path / "long"
        with path.open("wb") as file:
            file.write(b'{"custom_id": "a"}\n{"custom_id": "')
            file.write(b"b" * (20 * most))
            file.write(b'"}\n{"custom_id": "a"}\n')
        tracemalloc.start()
        with path.open("rb") as file, pytest.raises(SettingsError) as refused:
            Requests(file, "long").check(set())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "line 2: has more than 1 MiB" in str(refused.value)
        assert "line 3: custom_id 'a' stands on an earlier line" in str(refused.value)
        assert peak < 5 * most

    def test_a_long_file_costs_no_more_memory_than_the_ids(self, tmp_path: Path) -> None:
        path = write(tmp_path / "r", (request(f"r{n}", "word " * 400) for n in range(20_000)))
        tracemalloc.start()
        with path.open("rb") as file:
            contents = Requests(file, "r").check(set())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert contents.total == 20_000
        assert peak < 300 * contents.total < path.stat().st_size / 4

    def test_the_same_lines_are_the_same_batch(self) -> None:
        content = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
        one = requests(content).check(set())
        assert one.total == 2
        assert requests(content).check(set()) == one
        assert requests(content, "phi").check(set()).identity != one.identity
        assert requests(content + b'{"custom_id": "c"}').check(set()).identity != one.identity

    def test_what_has_an_answer_is_counted_and_what_has_none_here_is_found(self) -> None:
        asked = requests(b'{"custom_id": "a"}\n{"custom_id": "b"}\n')
        known = {one.digest for one in asked.read() if isinstance(one, Line) and one.custom_id == "a"}
        assert asked.check({*known, b"another"}).answered == 1
        assert asked.unknown({*known, b"another"}) == {b"another"}


class TestRecords:
    def test_what_earlier_runs_have_written_is_known_by_its_request(self, tmp_path: Path) -> None:
        path = written(written(tmp_path / "answers", "a"), "b")
        with closing(Records(path)) as records:
            assert records.past() == {line("a").digest, line("b").digest}
            assert records.called({line("b").digest}) == "b"

    def test_a_second_try_is_the_same_request(self, tmp_path: Path) -> None:
        one = line()
        with closing(Records(tmp_path / "errors")) as records:
            records.write(error_record(one, f"{one.digest.hex()}-1a2b", Outcome("engine_error", "no", 500)))
            assert records.past() == {one.digest}

    @pytest.mark.parametrize("cut", [1, 5, 20, 100, 200])
    def test_a_line_that_was_torn_goes_and_what_stands_before_it_stays(self, tmp_path: Path, cut: int) -> None:
        path = written(tmp_path / "answers", "a", "b")
        whole = path.read_bytes()
        first, second = whole.splitlines(keepends=True)
        path.write_bytes(first + second[:cut])
        with closing(Records(path)) as records:
            assert records.past() == {line("a").digest}
        assert path.read_bytes() == first

    def test_a_power_cut_s_zeroes_go_too(self, tmp_path: Path) -> None:
        path = written(tmp_path / "answers", "a")
        whole = path.read_bytes()
        path.write_bytes(whole + b"\0" * 4096)
        with closing(Records(path)) as records:
            assert len(records.past()) == 1
        assert path.read_bytes() == whole

    def test_a_whole_record_that_lacks_its_end_of_line_gets_it(self, tmp_path: Path) -> None:
        path = written(tmp_path / "answers", "a")
        whole = path.read_bytes()
        path.write_bytes(whole.rstrip())
        with closing(Records(path)) as records:
            assert len(records.past()) == 1
        assert path.read_bytes() == whole

    @pytest.mark.parametrize("content", [b"dear diary", b"dear diary\n", b'{"id": "x"}\n', b"{}", b"\xff\xfe\n"])
    def test_what_is_something_else_is_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "answers"
        path.write_bytes(content)
        with closing(Records(path)) as records, pytest.raises(SettingsError, match="line 1 is no record of a batch"):
            records.past()
        assert path.read_bytes() == content

    def test_two_runs_never_write_to_one_file(self, tmp_path: Path) -> None:
        path = tmp_path / "answers"
        with closing(Records(path)), pytest.raises(SettingsError, match="another run is writing to"):
            Records(path)
        with closing(Records(path)):
            pass

    def test_an_empty_file_is_not_left_behind(self, tmp_path: Path) -> None:
        with closing(Records(written(tmp_path / "errors", "a"))) as records:
            records.clear()
        assert not (tmp_path / "errors").exists()

    def test_errors_say_what_is_known(self, tmp_path: Path) -> None:
        one = line("mine")
        with closing(Records(tmp_path / "errors")) as records:
            records.write(error_record(one, "1", Outcome("invalid_request", "no")))
            records.write(error_record(one, "2", Outcome("engine_error", "oh", 500)))
        first, second = read(tmp_path / "errors")
        assert first == {
            "id": "batch_req_1",
            "custom_id": "mine",
            "response": None,
            "error": {"code": "invalid_request", "message": "no"},
        }
        assert second["error"] == {"code": "engine_error", "message": "oh"}
        assert second["response"]["status_code"] == 500
        assert second["response"]["body"]["error"]["message"] == "oh"
