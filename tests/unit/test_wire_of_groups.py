"""What a group of workers adds to the contract; the words of a worker that is in none do not change."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from inferbus_client.contract import topics
from inferbus_client.contract.presence import GroupStats, Presence, Stats, decode_announcement
from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, Failure, decode_reply
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import instead_of
from inferbus_worker.replies.stream import Backlog, ReplyStream

WHOSE = {"request_id": "r", "session_id": "s", "seq": 1}
IDS = b'"v":1,"requestId":"r","sessionId":"s","seq":'
OF_A_GROUP = ReplyAddress("t", "r", "s", json=True, run=2, worker="gpu-2")


def payloads(address: ReplyAddress) -> list[bytes]:
    stream = ReplyStream(address, lambda _: None, Backlog())
    stream.accepted(3, None)
    stream.delta("Hel")
    stream.end(Answered("Hello"))
    return [message.payload for message in stream.outgoing()]


def test_what_a_worker_says_by_itself_is_what_it_always_said() -> None:
    assert payloads(ReplyAddress("t", "r", "s", json=True)) == [
        b"{" + IDS + b'0,"type":"accepted","queuePosition":3,"etaMs":null}',
        b"{" + IDS + b'1,"type":"delta","text":"Hel"}',
        b"{" + IDS + b'2,"type":"done","text":"Hello","finishReason":"stop","usage":null,"timing":null}',
    ]


def test_a_second_run_is_named_in_every_reply_and_its_worker_in_the_first() -> None:
    said = [json.loads(payload) for payload in payloads(OF_A_GROUP)]
    assert [reply["run"] for reply in said] == [2, 2, 2]
    assert [reply.get("worker") for reply in said] == ["gpu-2", None, None]


def test_a_first_run_names_its_worker_and_no_run() -> None:
    said = [json.loads(payload) for payload in payloads(OF_A_GROUP._replace(run=0))]
    assert said[0]["worker"] == "gpu-2"
    assert not any("run" in reply for reply in said)


def test_who_answers_goes_on_after_the_accepted_of_another_worker() -> None:
    stream = ReplyStream(OF_A_GROUP._replace(run=0, first_seq=1), lambda _: None, Backlog())
    stream.delta("Hel")
    stream.end(Answered("Hello"))
    assert [decode_reply(message.payload).seq for message in stream.outgoing()] == [1, 2]


def test_a_text_reply_says_nothing_of_a_run() -> None:
    assert payloads(OF_A_GROUP._replace(json=False)) == [b"Hello"]


def test_an_answer_that_is_too_large_ends_in_an_error_of_its_own_run() -> None:
    stream = ReplyStream(OF_A_GROUP, lambda _: None, Backlog())
    stream.end(Answered("Hello"))
    (message,) = stream.outgoing()
    smaller = instead_of(message)
    assert smaller is not None
    assert (decode_reply(smaller.payload).run, decode_reply(smaller.payload).seq) == (2, 0)


@pytest.mark.parametrize(
    "reply",
    [
        Accepted(**WHOSE, run=1, queue_position=0, worker="gpu-1"),
        Done(**WHOSE, run=1, text="Hello"),
        ErrorReply.of(Failure("overloaded"), request_id="r", session_id="s", seq=1, run=1),
    ],
    ids=lambda reply: reply.type,
)
def test_a_run_comes_over_the_wire(reply: Accepted | Done | ErrorReply) -> None:
    assert decode_reply(reply.encode()) == reply


def test_a_reply_of_an_older_worker_is_of_the_first_run() -> None:
    reply = decode_reply(b'{"v":1,"type":"accepted","requestId":"r","sessionId":"s","seq":0,"queuePosition":2}')
    assert isinstance(reply, Accepted)
    assert (reply.run, reply.worker) == (0, None)


def test_no_run_is_before_the_first_one() -> None:
    with pytest.raises(ValidationError):
        Delta(**WHOSE, text="", run=-1)


def test_a_presence_says_with_whom_its_worker_shares() -> None:
    told = Presence(worker="gpu-1", state="ready", group="inferbus")
    assert decode_announcement(Presence, told.encode()) == told
    before = decode_announcement(Presence, b'{"v":1,"worker":"gpu-1","state":"ready"}')
    assert before is not None
    assert before.group is None


def test_a_group_of_any_length_is_no_presence() -> None:
    assert decode_announcement(Presence, b'{"v":1,"worker":"w","state":"ready","group":"%s"}' % (b"g" * 200)) is None


def test_the_figures_say_how_the_group_does() -> None:
    group = GroupStats(name="inferbus", workers=3, leases=7, queued=12, sessions=40, reached=False, reason="timed out")
    told = Stats(worker="gpu-1", group=group)
    assert decode_announcement(Stats, told.encode()) == told
    assert Stats(worker="gpu-1").group is None


def test_a_worker_is_probed_and_drained_on_topics_of_its_own() -> None:
    assert topics.probe("gpu-1") == "inferbus/workers/gpu-1/probe"
    assert topics.drain("gpu-1") == "inferbus/workers/gpu-1/drain"
    assert all(topics.is_announcement(topic("gpu-1")) for topic in (topics.probe, topics.drain))
