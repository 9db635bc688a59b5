"""The worker's limits over the bus: what exactly a requester hears, and what the stats say of every bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Level, Stats, decode_announcement
from support.listener import Heard, Listener
from support.mosquitto import Mosquitto

StartWorker = Callable[..., Any]

LIMITED: Final = "Error: Rate limit exceeded. Please slow down your requests."
MINUTE: Final = 60_000
#: An answer of many tokens, by the simulated engine's count.
LONG: Final = "word " * 40
BUDGET: Final[dict[str, Any]] = {"token_budget": "140/60s", "max_tokens": 50, "max_history_tokens": 0}
LARGE_BUDGET: Final[dict[str, Any]] = {"token_budget": "4000/60s"}


def ask(listener: Listener, topic: str, message: str = "hello", **fields: Any) -> Heard:
    """A request, and the reply that ends it."""
    before = len(listener.heard)
    listener.publish(topic, json.dumps({"message": message, **fields}))
    return listener.wait(before + 1)[before]


def assert_limited(reply: Heard) -> None:
    """The text half's refusal, with how long to wait in MQTT 5's properties."""
    said = dict(reply.properties["UserProperty"])
    assert (reply.text, said["status"]) == (LIMITED, "rate_limited")
    assert 0 < int(said["retryAfterMs"]) <= MINUTE


def test_a_client_in_many_sessions(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="clients", client_rate_limit="2/60s")
    with Listener(broker, "clients/assistant_response/#") as listener:
        for session in "ab":
            assert ask(listener, f"clients/user_input/{session}", clientId="c").text == "hello"
        assert_limited(ask(listener, "clients/user_input/d", clientId="c"))
        for session in "ab":
            assert ask(listener, f"clients/user_input/{session}").text == "hello"
        assert_limited(ask(listener, "clients/user_input/d"))  # who names no client is one client
        assert ask(listener, "clients/user_input/d", clientId="another").text == "hello"


def test_a_user_whatever_client_it_says_it_is(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="owned", client_rate_limit="2/60s", identity="topic")
    with Listener(broker, "owned/users/+/assistant_response/#") as listener:
        for name in "ab":
            assert ask(listener, f"owned/users/eve/user_input/{name}", clientId=name).text == "hello"
        assert_limited(ask(listener, "owned/users/eve/user_input/c", clientId="c"))
        assert ask(listener, "owned/users/alice/user_input/a", clientId="a").text == "hello"


def test_a_project_and_all_together(broker: Mosquitto, start_worker: StartWorker, tmp_path: Path) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text("projects: {small: {project_rate_limit: 1/60s}, large: }\ntotal_rate_limit: 3/60s\n")
    start_worker(config=file)
    with Listener(broker, "small/assistant_response/#", "large/assistant_response/#") as listener:
        assert ask(listener, "small/user_input/a").text == "hello"
        assert_limited(ask(listener, "small/user_input/b"))
        for session in "ab":
            assert ask(listener, f"large/user_input/{session}").text == "hello"
        assert_limited(ask(listener, "large/user_input/c"))


def test_a_refusal_in_json_says_all(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="json-limits", total_rate_limit="1/60s")
    with Listener(broker, "json-limits/assistant_response/#") as listener:
        ask(listener, "json-limits/user_input/s1")
        refusal = json.loads(ask(listener, "json-limits/user_input/s1", reply="json", requestId="r1").payload)
    assert 0 < refusal.pop("retryAfterMs") <= MINUTE
    assert refusal == {
        "v": 1,
        "type": "error",
        "requestId": "r1",
        "sessionId": "s1",
        "seq": 0,
        "code": "rate_limited",
        "status": 429,
        "message": LIMITED,
        "retryable": True,
    }


def test_an_answer_longer_than_the_cap(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="capped", max_tokens_cap=5)
    with Listener(broker, "capped/assistant_response/#") as listener:
        refused = ask(listener, "capped/user_input/s1", LONG, maxTokens=6)
        assert refused.text == "Error: Invalid request. maxTokens: at most 5 are allowed in this project."
        assert ask(listener, "capped/user_input/s1", LONG, maxTokens=5).text == "word " * 5
        assert ask(listener, "capped/user_input/s1", LONG).text == "word " * 5  # the default of 512 is capped too


def test_a_token_budget(broker: Mosquitto, start_worker: StartWorker) -> None:
    """By the simulated engine's count the long message takes 51 tokens, and 8 for the template; its echo is 40."""
    start_worker(project="budget", **BUDGET)
    with Listener(broker, "budget/assistant_response/#") as listener:
        never = ask(listener, "budget/user_input/s1", LONG, maxTokens=82)
        assert never.text == (
            "Error: Invalid request. It can take 59 tokens of prompt and 82 of answer; a session has 140 in 1m."
        )
        assert ask(listener, "budget/user_input/s1", LONG, maxTokens=81).text == LONG
        assert_limited(ask(listener, "budget/user_input/s1"))  # what was used, about 91, and 60 more
        assert ask(listener, "budget/user_input/s1", maxTokens=10).text == "hello"
        assert ask(listener, "budget/user_input/s2").text == "hello"


def test_every_bound_is_in_the_stats(broker: Mosquitto, start_worker: StartWorker) -> None:
    worker = start_worker(
        project="levels",
        stats_interval="100ms",
        queue_size=11,
        max_outbound_bytes=1_000_001,
        max_intake_bytes=1_000_004,
        max_sessions=12,
        max_history_bytes=1_000_002,
        retry_memory_bytes=1_000_003,
        rate_limit_sessions=13,
        client_rate_limit="100/60s",
        **LARGE_BUDGET,
    )
    with Listener(broker, "levels/assistant_response/#") as listener:
        ask(listener, "levels/user_input/s1", clientId="c", requestId="r")
    with Listener(broker, topics.stats(worker.id)) as listener:
        stats = decode_announcement(Stats, listener.wait(1)[0].payload)
    assert stats is not None
    assert {name: level.bound for name, level in stats.levels.items()} == {
        "queue": 11,
        "outboundBytes": 1_000_001,
        "intakeBytes": 1_000_004,
        "sessions": 12,
        "historyBytes": 1_000_002,
        "retryMemoryBytes": 1_000_003,
        "rateLimitSessions": 13,
        "rateLimitClients": 13,
        "tokenBudgetSessions": 13,
    }
    for name in ("sessions", "rateLimitSessions", "rateLimitClients", "tokenBudgetSessions"):
        assert stats.levels[name] == Level(now=1, bound=stats.levels[name].bound)
    assert 0 < stats.levels["historyBytes"].now < 10_000
    assert 0 < stats.levels["retryMemoryBytes"].now < 10_000
    assert (stats.levels["queue"].now, stats.replies_dropped) == (0, 0)
