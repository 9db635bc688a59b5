"""The wire contract: bytes become a request or one typed failure, and replies survive the way there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.wire import (
    FAILURES,
    Accepted,
    Code,
    Control,
    Delta,
    Done,
    ErrorReply,
    Failure,
    InvalidPayloadError,
    InvalidReplyError,
    Reply,
    ReplyWriter,
    Request,
    Timing,
    Usage,
    decode_control,
    decode_object,
    decode_reply,
    decode_request,
)
from inferbus_client.contract.wire.messages import CalledFunction, ToolCall

# Literals on purpose: clients that nobody can change match on these words.
SENTENCES = [
    ("invalid_request", 400, False, "Error: Invalid request."),
    ("context_too_long", 400, False, "Error: The message does not fit the model's context."),
    ("session_busy", 409, True, "Please wait, your previous message is still being processed..."),
    ("message_too_large", 413, False, "Error: Message too large."),
    ("rate_limited", 429, True, "Error: Rate limit exceeded. Please slow down your requests."),
    ("cancelled", 499, False, "Error: Request cancelled."),
    ("engine_error", 500, False, "Error: The model failed to answer."),
    ("overloaded", 503, True, "Server is overloaded. Please try again in a moment."),
    ("engine_unavailable", 503, True, "Error: The model is not available. Please try again later."),
    ("shutting_down", 503, True, "Error: The server is shutting down. Please try again in a moment."),
    ("deadline_exceeded", 504, True, "Error: Deadline exceeded."),
]


KEYS = st.sampled_from(
    [*(field.alias or name for name, field in Request.model_fields.items()), "reset", "type", "text", "params"]
) | st.text(max_size=10)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=140)
    | st.dictionaries(st.sampled_from(["stop", "seed", "top_k", "n"]), st.integers() | st.text(max_size=3), max_size=3)
    | st.lists(st.dictionaries(st.sampled_from(["type", "text"]), st.sampled_from(["text", "hello"])), max_size=3)
)
IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def refusal(payload: bytes | dict[str, Any]) -> InvalidPayloadError:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(InvalidPayloadError) as caught:
        decode_request(raw)
    return caught.value


def request(**fields: Any) -> Request:
    decoded = decode_request(json.dumps({"message": "hello", **fields}).encode())
    assert isinstance(decoded, Request)
    return decoded


class TestFailures:
    @pytest.mark.parametrize(("code", "status", "retryable", "sentence"), SENTENCES)
    def test_row_of_the_table(self, code: Code, status: int, *, retryable: bool, sentence: str) -> None:
        failure = Failure(code)
        assert (failure.status, failure.retryable) == (status, retryable)
        assert failure.sentence == sentence
        assert failure.message == sentence

    def test_the_table_has_no_other_row(self) -> None:
        assert set(FAILURES) == {code for code, *_ in SENTENCES} == set(get_args(Code))

    def test_only_an_invalid_request_adds_to_its_sentence(self) -> None:
        assert Failure("invalid_request", "It is blank.").sentence == "Error: Invalid request. It is blank."
        assert Failure("deadline_exceeded", "In the queue.").sentence == "Error: Deadline exceeded."
        assert Failure("deadline_exceeded", "In the queue.").message == "Error: Deadline exceeded. In the queue."

    @pytest.mark.parametrize("code", get_args(Code))
    def test_a_sentence_is_recognised(self, code: Code) -> None:
        assert Failure.from_sentence(Failure(code).sentence) == Failure(code)

    def test_an_answer_is_no_failure(self) -> None:
        assert Failure.from_sentence("Please wait, I am thinking.") is None


class TestRequests:
    def test_everything_it_can_say(self) -> None:
        fields = {
            "message": "hello",
            "sessionId": "s1",
            "requestId": "r1",
            "clientId": "c1",
            "replyTopic": "general/assistant_response/s1/r1",
            "temperature": 0.5,
            "topP": 0.25,
            "maxTokens": 7,
            "systemPrompt": "Be brief.",
            "reply": "json",
            "stream": True,
            "deadlineMs": 1500,
            "model": "organisation/a-model:4b_q4.0",
            "params": {"stop": ["x"], "seed": 1, "top_k": 5, "min_p": 0.5, "presence_penalty": 1.0},
        }
        decoded = request(**fields)
        assert json.loads(decoded.encode()) == fields
        assert decoded.wants_json

    def test_text_is_the_default(self) -> None:
        assert not request().wants_json

    def test_streaming_implies_json(self) -> None:
        assert request(stream=True, reply="text").wants_json

    def test_unknown_keys_are_ignored(self) -> None:
        assert request(timestamp=1, priority="high").message == "hello"

    @pytest.mark.parametrize(
        "text", ["hello", "[1, 2]", "17", '"quoted"', "null", "{not json", '{"a":1} trailing', "[" * 5]
    )
    def test_anything_but_an_object_is_plain_text(self, text: str) -> None:
        decoded = decode_request(text.encode())
        assert isinstance(decoded, Request)
        assert decoded.message == text

    @pytest.mark.parametrize(
        ("given_", "session"), [("a", "a"), (7, "7"), (0, "0"), ("", None), ("  ", None), (None, None)]
    )
    def test_session_ids(self, given_: object, session: str | None) -> None:
        assert request(sessionId=given_).session_id == session

    def test_an_explicit_zero_is_a_zero(self) -> None:
        decoded = request(temperature=0, params={"presence_penalty": 0, "seed": 0, "top_k": 0, "min_p": 0})
        assert decoded.temperature == 0
        assert decoded.params is not None
        assert decoded.params.model_dump(exclude_none=True) == {
            "presence_penalty": 0,
            "seed": 0,
            "top_k": 0,
            "min_p": 0,
        }

    @pytest.mark.parametrize(
        "fields",
        [
            {"message": ""},
            {"message": " \n"},
            {"message": None},
            {"message": 5},
            {"message": []},
            {"message": [{"type": "text", "text": " "}]},
            {"message": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]},
            {"message": [{"type": "video"}]},
            {"temperature": -0.1},
            {"temperature": 2.1},
            {"topP": 0},
            {"topP": 1.1},
            {"maxTokens": 0},
            {"maxTokens": -1},
            {"maxTokens": 1.5},
            {"maxTokens": 10**9},
            {"deadlineMs": 0},
            {"deadlineMs": -5},
            {"reply": "xml"},
            {"stream": "perhaps"},
            {"sessionId": True},
            {"sessionId": ["s"]},
            {"sessionId": 1e300},
            {"requestId": "x" * 129},
            {"requestId": "a\u0000b"},
            {"clientId": {"a": 1}},
            {"replyTopic": 7},
            {"params": {"n": 1_000_000}},
            {"params": {"min_tokens": 5}},
            {"params": {"chat_template_kwargs": {}}},
            {"params": {"guided_regex": ".*"}},
            {"params": {"top_k": 0.5}},
            {"params": "hot"},
            *({"model": name} for name in ["", " ", "-m", "/m", "m m", "m\n", "é", "m" * 129, 7, ["m"]]),
        ],
    )
    def test_what_is_wrong_is_an_invalid_request(self, fields: dict[str, Any]) -> None:
        refused = refusal({"message": "hello", **fields})
        assert refused.failure.code == "invalid_request"
        assert refused.failure.detail
        assert refused.failure.sentence.startswith("Error: Invalid request. ")

    def test_no_message_at_all(self) -> None:
        assert "message" in refusal({"sessionId": "s1"}).failure.detail

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
    @pytest.mark.parametrize("key", ["temperature", "topP", "maxTokens", "deadlineMs"])
    def test_numbers_that_are_none(self, key: str, number: str) -> None:
        assert refusal(f'{{"message":"x","{key}":{number}}}'.encode()).failure.code == "invalid_request"

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"message": ""}, "message: must not be empty."),
            ({"message": []}, "message: must not be empty."),
            ({"message": 5}, "message: must be text."),
            ({"temperature": 5}, "temperature: must be at most 2."),
            ({"temperature": "hot"}, "temperature: must be a number."),
            ({"topP": 0}, "topP: must be more than 0."),
            ({"maxTokens": 0}, "maxTokens: must be at least 1."),
            ({"maxTokens": 1.5}, "maxTokens: must be a whole number."),
            ({"reply": "xml"}, "reply: must be 'text' or 'json'."),
            ({"stream": "maybe"}, "stream: must be true or false."),
            ({"params": {"warmth": 1}}, "params.warmth: is not known."),
            ({"params": {"stop": ["x"] * 17}}, "params.stop: must have at most 16 elements."),
            ({"params": []}, "params: must be an object."),
            ({"message": [{"type": "audio"}]}, "message.0: 'type' must be one of 'text', 'image_url'."),
        ],
    )
    def test_what_is_wrong_is_said_in_everybodys_words(self, fields: dict[str, Any], words: str) -> None:
        assert refusal({"message": "x", **fields}).failure.detail == words

    def test_a_refusal_still_says_whom_to_answer(self) -> None:
        refused = refusal(
            {"message": "", "sessionId": "s1", "requestId": "r1", "replyTopic": "t", "reply": "json", "clientId": 5}
        )
        envelope = refused.envelope
        assert (envelope.session_id, envelope.request_id, envelope.reply_topic) == ("s1", "r1", "t")
        assert envelope.wants_json

    def test_a_refusal_leaves_out_of_the_envelope_what_is_wrong_in_it(self) -> None:
        envelope = refusal({"message": "x", "sessionId": "a/b", "requestId": "r1"}).envelope
        assert (envelope.session_id, envelope.request_id) == (None, "r1")

    def test_the_detail_is_one_short_printable_line(self) -> None:
        detail = refusal({"message": "x", "params": {"evil\nkey\u0000" + "y" * 5000: 1}}).failure.detail
        assert detail.isprintable()
        assert len(detail) <= 300

    def test_the_detail_does_not_repeat_the_input(self) -> None:
        assert "hunter2" not in refusal({"message": "x", "temperature": "hunter2"}).failure.detail


class TestControls:
    def test_reset_in_json(self) -> None:
        decoded = decode_request(b'{"reset": true, "sessionId": "s1", "requestId": "r1", "reply": "json"}')
        assert isinstance(decoded, Control)
        assert (decoded.reset, decoded.session_id, decoded.request_id) == (True, "s1", "r1")

    def test_a_message_that_mentions_reset_is_a_message(self) -> None:
        assert isinstance(decode_request(b'{"reset": true, "message": "hello"}'), Request)

    @pytest.mark.parametrize("payload", [b"", b"anything", b"[1]"])
    def test_other_control_payloads_say_nothing(self, payload: bytes) -> None:
        assert decode_control(decode_object(payload)) == Control()


def nested(depth: int) -> bytes:
    return b'{"message":' + b"[" * depth + b"]" * depth + b"}"


class TestPayloadBombs:
    """Promise 25."""

    @pytest.mark.parametrize(
        ("payload", "words"),
        [
            (nested(100_000), "nests too deep"),
            (b'{"a":' * 50_000, "nests too deep"),
            (b'{"message":"x","sessionId":' + b"9" * 5000 + b"}", "too many digits"),
            (b'{"message":"\\ud800"}', "lone surrogate"),
            (b'{"message":"\\ud800x"}', "lone surrogate"),
            (b"\xff\xfe", "not UTF-8"),
            (b'{"message":"\xff"}', "not UTF-8"),
        ],
    )
    def test_is_one_typed_failure(self, payload: bytes, words: str) -> None:
        refused = refusal(payload)
        assert refused.failure.code == "invalid_request"
        assert words in refused.failure.detail

    @given(st.binary(max_size=400))
    def test_bytes_never_raise_anything_else(self, payload: bytes) -> None:
        self.decode(payload)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
            max_leaves=20,
        )
    )
    def test_json_never_raises_anything_else(self, value: object) -> None:
        self.decode(json.dumps(value).encode())

    @given(st.dictionaries(KEYS, VALUES, max_size=12))
    def test_objects_with_our_keys_never_raise_anything_else(self, fields: dict[str, object]) -> None:
        self.decode(json.dumps(fields).encode())

    def decode(self, payload: bytes) -> None:
        """Whatever else this raises fails the test."""
        with suppress(InvalidPayloadError):
            decoded = decode_request(payload)
            assert decoded.encode() if isinstance(decoded, Request) else decoded.reset
            return
        refused = refusal(payload)
        assert refused.failure.code == "invalid_request"
        assert refused.failure.sentence.encode()


@given(
    st.fixed_dictionaries(
        {"message": TEXTS.filter(str.strip)},
        optional={
            "session_id": IDS,
            "request_id": IDS,
            "client_id": IDS,
            "reply_topic": TEXTS,
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1, exclude_min=True),
            "max_tokens": st.integers(1, 1_000_000),
            "system_prompt": TEXTS,
            "reply": st.sampled_from(["text", "json"]),
            "stream": st.booleans(),
            "deadline_ms": st.integers(1, 86_400_000),
            "params": st.fixed_dictionaries(
                {}, optional={"seed": st.integers(-(2**63), 2**63 - 1), "stop": st.just("x")}
            ),
        },
    )
)
def test_requests_survive_the_way_there_and_back(fields: dict[str, Any]) -> None:
    sent = Request(**fields)
    assert decode_request(sent.encode()) == sent


HEAD = {"request_id": IDS, "session_id": IDS, "seq": st.integers(0, 10**6)}
MILLISECONDS = st.floats(0, 1e9)
COUNTS = st.integers(0, 2**63 - 1)


def made(model: Callable[..., Any], /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Like `st.builds`, which would make up a second value under each field's name on the wire."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


RUNS = st.integers(0, 3)
CALLS = st.lists(
    made(
        ToolCall,
        id=IDS,
        type=st.just("function"),
        function=made(CalledFunction, name=st.just("look"), arguments=TEXTS),
    ),
    min_size=1,
    max_size=2,
)
WRITTEN = st.one_of(
    made(
        Accepted,
        **HEAD,
        run=RUNS,
        queue_position=st.integers(0, 10**6),
        eta_ms=st.none() | st.integers(0, 10**9),
        worker=st.none() | IDS,
    ),
    made(Delta, **HEAD, run=RUNS, text=TEXTS, reasoning=st.none() | TEXTS),
    made(
        Done,
        **HEAD,
        run=RUNS,
        text=TEXTS,
        finish_reason=st.sampled_from(["stop", "length"]),
        usage=st.none() | made(Usage, prompt_tokens=COUNTS, completion_tokens=COUNTS),
        timing=st.none()
        | made(Timing, queue_ms=MILLISECONDS, first_token_ms=st.none() | MILLISECONDS, total_ms=MILLISECONDS),
        reasoning=st.none() | TEXTS,
        model=st.none() | TEXTS,
        tool_calls=st.none() | CALLS,
    ),
)


REPLIES = WRITTEN | st.builds(
    ErrorReply.of,
    st.builds(Failure, st.sampled_from(get_args(Code)), TEXTS, st.none() | st.integers(0, 10**9)),
    **HEAD,
)


@given(WRITTEN)
def test_a_reply_is_written_as_its_model_says(reply: Accepted | Delta | Done) -> None:
    writer = ReplyWriter(reply.request_id, reply.session_id, reply.run)
    match reply:
        case Accepted():
            written = writer.accepted(reply.seq, reply.queue_position, reply.eta_ms, reply.worker)
        case Delta():
            written = writer.delta(reply.seq, reply.text, reply.reasoning)
        case Done(usage=usage, timing=timing, tool_calls=calls):
            written = writer.done(
                reply.seq,
                reply.text,
                reply.finish_reason,
                usage=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
                timing=None if timing is None else (timing.queue_ms, timing.first_token_ms, timing.total_ms),
                reasoning=reply.reasoning,
                model=reply.model,
                tool_calls=None if calls is None else [call.model_dump() for call in calls],
            )
    assert written == reply.encode()


@given(REPLIES)
def test_replies_survive_the_way_there_and_back(sent: Reply) -> None:
    assert decode_reply(sent.encode()) == sent


@given(st.binary(max_size=300))
def test_other_bytes_are_no_reply(payload: bytes) -> None:
    with pytest.raises(InvalidReplyError):
        decode_reply(payload)


def test_every_reply_has_the_contract_s_keys() -> None:
    head: dict[str, Any] = {"request_id": "r", "session_id": "s", "seq": 0}
    common = {"v", "type", "requestId", "sessionId", "seq"}
    keys = {
        "accepted": {"queuePosition", "etaMs"},
        "delta": {"text"},
        "done": {"text", "finishReason", "usage", "timing"},
        "error": {"code", "status", "message", "retryable", "retryAfterMs"},
    }
    said: list[Reply] = [
        Accepted(**head, queue_position=0),
        Delta(**head, text="x"),
        Done(**head, text="x", usage=Usage(prompt_tokens=1, completion_tokens=1)),
        ErrorReply.of(Failure("overloaded"), **head),
    ]
    for reply in said:
        fields = json.loads(reply.encode())
        assert set(fields) == common | keys[fields["type"]]
        assert fields["v"] == 1


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (ErrorReply.of(Failure("overloaded"), request_id="r", session_id="s", seq=0), "retryAfterMs"),
        (Accepted(request_id="r", session_id="s", seq=0, queue_position=0), "etaMs"),
        (Delta(request_id="r", session_id="s", seq=0, text="x"), "seq"),
    ],
)
def test_a_number_that_nobody_can_reckon_with_is_no_reply(reply: Reply, name: str) -> None:
    fields = json.loads(reply.encode())
    assert decode_reply(json.dumps({**fields, name: 2**63 - 1}).encode())
    with pytest.raises(InvalidReplyError):
        decode_reply(json.dumps({**fields, name: 10**400}).encode())


def test_another_version_is_no_reply() -> None:
    fields = json.loads(Delta(request_id="r", session_id="s", seq=0, text="x").encode())
    with pytest.raises(InvalidReplyError):
        decode_reply(json.dumps({**fields, "v": 2}).encode())
