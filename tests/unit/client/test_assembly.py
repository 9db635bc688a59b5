"""Assembly: whatever is lost or repeated, what is handed on joins to the answer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, Failure
from inferbus_client.exchange.assembly import AnyReply, Assembly

IDS: dict[str, Any] = {"request_id": "r", "session_id": "s"}


def replies(words: list[str]) -> list[AnyReply]:
    """The whole stream of one healthy request."""
    stream: list[AnyReply] = [Accepted(queue_position=0, seq=0, **IDS)]
    stream += [Delta(text=word, seq=number, **IDS) for number, word in enumerate(words, 1)]
    return [*stream, Done(text="".join(words), seq=len(words) + 1, **IDS)]


def handed_on(assembly: Assembly, stream: list[AnyReply]) -> str:
    return "".join(part.text for reply in stream for part in assembly.take(reply) if isinstance(part, Delta))


def test_a_whole_stream_is_handed_on_as_it_comes() -> None:
    assembly = Assembly()
    stream = replies(["one ", "two ", "three"])
    seen = [list(assembly.take(reply)) for reply in stream]
    assert [[type(part) for part in parts] for parts in seen] == [[Accepted], [Delta], [Delta], [Delta], []]
    assert assembly.answer is stream[-1]
    assert (assembly.lost, assembly.duplicates) == (0, 0)


def test_after_a_lost_delta_the_rest_comes_with_the_end() -> None:
    assembly = Assembly()
    stream = replies(["one ", "two ", "three ", "four"])
    del stream[2]
    seen = [handed_on(assembly, [reply]) for reply in stream]
    assert seen == ["", "one ", "", "", "two three four"]
    assert assembly.lost == 1


def test_a_lost_accepted_leaves_no_hole_in_the_text() -> None:
    assembly = Assembly()
    seen = [handed_on(assembly, [reply]) for reply in replies(["one ", "two"])[1:]]
    assert seen == ["one ", "two", ""]
    assert assembly.lost == 0  # of the answer nothing is


def test_a_lost_last_delta_shows_at_the_end() -> None:
    assembly = Assembly()
    stream = replies(["one ", "two"])
    del stream[2]
    assert handed_on(assembly, stream) == "one two"
    assert assembly.lost == 1


def test_nothing_is_taken_after_the_end() -> None:
    assembly = Assembly()
    stream = replies(["one"])
    assert handed_on(assembly, [*stream, *stream]) == "one"
    assert assembly.duplicates == len(stream)


def test_a_restarted_worker_cannot_mix_two_answers() -> None:
    assembly = Assembly()
    first, second = replies(["one ", "two ", "three"]), replies(["uno ", "dos ", "tres ", "cuatro"])
    assert handed_on(assembly, [*first[:2], *second]) == "one "
    assert assembly.answer is second[-1]
    assert assembly.lost >= 1


def test_an_error_keeps_its_code_detail_and_wait() -> None:
    assembly = Assembly()
    failure = Failure("invalid_request", "temperature: too hot.", retry_after_ms=250)
    list(assembly.take(ErrorReply.of(failure, seq=0, **IDS)))
    assert assembly.failure == failure


@given(
    words=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12),
    copies=st.lists(st.integers(0, 3), min_size=14, max_size=14),
)
def test_losses_and_repeats_never_spoil_the_text(words: list[str], copies: list[int]) -> None:
    *stream, done = replies(words)
    arriving = [reply for reply, times in zip(stream, copies, strict=False) for _ in range(times)]
    assembly = Assembly()
    assert handed_on(assembly, [*arriving, done]) == "".join(words)
    # The first is `accepted`, which is no part of the answer.
    assert assembly.lost == sum(not times for _, times in list(zip(stream, copies, strict=False))[1:])
