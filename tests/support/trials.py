"""The fault trials by their numbers in `docs/promises.md`: what is done, what must come of it, and which tests show it.

Each trial is one implementation in two sizes: the short one runs with every test run, the long one by `scripts/faults
--long`, which sets `INFERBUS_TRIALS`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

#: Set to `long` for the long form of every trial.
SIZE_VARIABLE: Final = "INFERBUS_TRIALS"
#: A file that takes each trial's figure, one JSON object a line.
FIGURES_VARIABLE: Final = "INFERBUS_FIGURES"
#: Minutes that the soak takes; without it, as long as its requests take.
SOAK_VARIABLE: Final = "INFERBUS_SOAK_MINUTES"
#: What the trial that draws at random draws from; without it, another each time, which it prints.
SEED_VARIABLE: Final = "INFERBUS_SEED"


def size(short: int, long: int) -> int:
    """How large a trial is: `short` seconds or repetitions, or `long` ones. `INFERBUS_TRIALS=7` asks for just that."""
    wanted = os.environ.get(SIZE_VARIABLE, "short")
    return int(wanted) if wanted.isdecimal() else {"short": short, "long": long}[wanted]


@dataclass(frozen=True)
class Trial:
    """One row: its number, the fault, what is expected, and the tests (pytest's node ids) that show it."""

    number: int
    fault: str
    expected: str
    where: tuple[str, ...]


_KILL: Final = "tests/faults/test_kill.py::"
_STOP: Final = "tests/faults/test_stop.py::"
_BROKER: Final = "tests/faults/test_broker.py::"
_LINK: Final = "tests/faults/test_link.py::"
_ENGINE: Final = "tests/faults/test_engine.py::"
_TOPICS: Final = "tests/faults/test_topics.py::"
_LIMITS: Final = "tests/faults/test_limits.py::"
_FAIRNESS: Final = "tests/faults/test_fairness.py::"
_COMPANY: Final = "tests/faults/test_company.py::"
_ISOLATION: Final = "tests/faults/test_isolation.py::"
_BACKENDS: Final = "tests/faults/test_backends.py::"
_SLOTS: Final = "tests/faults/test_slots.py::"
_MANAGED: Final = "tests/faults/test_managed.py::"
_GROUP_KILLS: Final = "tests/faults/test_group_kills.py::"
_ORPHANS: Final = "tests/engine/test_orphans.py::"
_DEPLOY: Final = "tests/bus/test_deploy_mosquitto_users.py"

TRIALS: Final = (
    Trial(
        1,
        "the broker is killed",
        "answers again at most 5 s after the return; what a broker without persistence forgot is lost",
        (f"{_BROKER}test_a_killed_broker", "tests/bus/test_worker_life.py::TestLostBroker"),
    ),
    Trial(
        2,
        "the broker stalls (SIGSTOP)",
        "outbound bytes are capped, drops are counted and end in an error",
        (f"{_BROKER}test_a_stalled_broker", f"{_LIMITS}test_outbound_bytes_of_a_stalled_broker"),
    ),
    Trial(
        3,
        "a half-open link: everything is swallowed",
        "noticed within twice the keepalive",
        (f"{_LINK}test_a_half_open_link",),
    ),
    Trial(
        4,
        "a slow, sliced, reset link",
        "nothing corrupt; with --ack after-reply nothing lost",
        (f"{_LINK}test_a_slow_sliced_and_reset_link", f"{_LINK}test_resets_with_acknowledgement_after_the_reply"),
    ),
    Trial(
        5,
        "parallel replies of 300 kB under back-pressure",
        "all intact",
        (f"{_BROKER}test_parallel_large_replies_under_back_pressure",),
    ),
    Trial(6, "two workers of one id", "the second ends, with the reason", (f"{_BROKER}test_two_workers_of_one_id",)),
    Trial(
        7,
        "a QoS 0 burst at a worker that does not read",
        "what the broker drops is lost, nothing else",
        (f"{_BROKER}test_a_burst_at_qos_0",),
    ),
    Trial(
        8,
        "a callback raises; the network thread dies",
        "the thread lives on; a dead one ends the worker, non-zero",
        (
            f"{_LINK}test_a_callback_that_raises_ends_no_thread",
            f"{_LINK}test_a_network_thread_that_ends_ends_the_worker",
        ),
    ),
    Trial(
        9,
        "SIGTERM with many in flight",
        "all answered, the end within the drain timeout + 2 s",
        (f"{_STOP}test_sigterm_with_many_in_flight", "tests/bus/test_worker_life.py::TestStopping"),
    ),
    Trial(
        10,
        "SIGTERM while the broker stalls",
        "the end within the drain timeout + 2 s",
        (f"{_STOP}test_sigterm_while_the_broker_stalls",),
    ),
    Trial(
        11,
        "signals to the group; a second SIGTERM",
        "an error, never a truncated success",
        (
            f"{_STOP}test_a_second_sigterm_to_the_group",
            f"{_ORPHANS}test_signals_to_the_group_truncate_nothing_and_sigkill_leaves_nothing",
        ),
    ),
    Trial(
        12,
        "SIGKILL at random points",
        "QoS 0: the client's timeout; QoS 1 with --ack after-reply: nothing lost; no orphan engine",
        (
            f"{_KILL}test_sigkill_at_random_points_loses_nothing",
            f"{_KILL}test_sigkill_at_qos_0_is_a_timeout_of_the_client",
            f"{_ENGINE}test_sigkill_leaves_no_engine",
            f"{_ORPHANS}test_sigkill_while_the_model_loads_leaves_nothing",
        ),
    ),
    Trial(
        13,
        "one of three workers of a group is killed at random points; all three are replaced one after the other",
        "nothing lost or answered differently twice; taken over within the lease + 2 s; a conversation goes on",
        (
            f"{_GROUP_KILLS}test_one_of_three_is_killed_at_random_points",
            f"{_GROUP_KILLS}test_a_rolling_restart_of_all_three",
            "tests/faults/test_group_chat.py",
            "tests/faults/test_group_gateway.py",
        ),
    ),
    Trial(
        14,
        "a message that kills its worker",
        "set aside after 3 turns, answered with an error",
        (f"{_KILL}test_a_poison_message_is_set_aside",),
    ),
    Trial(15, "absurd sampling parameters", "only that request fails", (f"{_ENGINE}test_absurd_sampling_fails_alone",)),
    Trial(
        16,
        "the engine dies (SIGKILL)",
        "all in flight fail, the process exits non-zero",
        (f"{_ENGINE}test_a_dying_engine",),
    ),
    Trial(
        17,
        "the engine hangs (SIGSTOP)",
        "deadlines hold, the watchdog ends the process",
        (f"{_ENGINE}test_a_hanging_engine",),
    ),
    Trial(
        18, "a prompt over the KV capacity", "refused before the engine", (f"{_ENGINE}test_a_prompt_over_the_capacity",)
    ),
    Trial(
        19,
        "cancel; deadline",
        "the engine stops computing",
        (
            f"{_ENGINE}test_cancel_and_deadline_stop_the_engine",
            "tests/engine/test_vllm_engine.py::test_cancelled_generations_leave_the_batch",
        ),
    ),
    Trial(
        20,
        "a backend refuses, fails, resets, cuts off, keeps silent, leaks its slot",
        "bounded retries, at most 1.2 attempts a request; the breaker; one terminal reply each, nothing twice",
        (
            f"{_BACKENDS}test_a_backend_that_fails_a_tenth_of_the_time",
            f"{_BACKENDS}test_a_backend_that_fails_all_the_time_and_comes_back",
            f"{_BACKENDS}test_a_backend_that_forgets_a_request_among_many",
            f"{_BACKENDS}test_a_backend_that_goes_on_with_what_was_given_up",
        ),
    ),
    Trial(
        21,
        "a group's store stalls, is killed, fails over, loses a node, or moves its slots",
        "refused within 1 s, nothing that was accepted is lost, recovers within 5 s, no live lease is reaped",
        ("tests/faults/test_group_store.py", "tests/unit/worker/test_redis_leases.py"),
    ),
    Trial(
        22,
        "a worker of a group is stopped past its lease, then continued",
        "what it had others answer; no terminal reply of its own",
        (f"{_GROUP_KILLS}test_a_worker_that_was_stopped_past_its_lease",),
    ),
    Trial(
        23,
        "the clock jumps",
        "the limiter runs on an injected monotonic clock",
        ("tests/unit/worker/test_rate_limit.py",),
    ),
    Trial(
        24,
        "soak: every request in a session of its own",
        "memory, threads and files reach a plateau",
        ("tests/faults/test_soak.py", f"{_LIMITS}test_a_level_stays_under_its_bound"),
    ),
    Trial(
        25,
        "payload bombs; mutated payloads",
        "one answer each, threads alive, memory flat",
        ("tests/faults/test_payloads.py",),
    ),
    Trial(
        26,
        "topic injection by session id",
        "refused, nobody disconnected",
        (f"{_TOPICS}test_topic_injection_by_session_id",),
    ),
    Trial(
        27,
        "confused deputy: replies sent elsewhere",
        "not used",
        (f"{_TOPICS}test_the_confused_deputy", "tests/unit/worker/test_reception.py::TestReplyTopics"),
    ),
    Trial(28, "leaks across sessions: 200 canaries", "none", (f"{_ISOLATION}test_canaries_stay_in_their_sessions",)),
    Trial(29, "group theft", "denied by the shipped broker configuration", (_DEPLOY,)),
    Trial(30, "client-id theft", "denied by the shipped broker configuration", (_DEPLOY,)),
    Trial(
        31,
        "retained requests, redelivered requests",
        "dropped; run once",
        (f"{_TOPICS}test_retained_requests_are_never_run", f"{_TOPICS}test_a_redelivered_request_runs_once"),
    ),
    Trial(
        32,
        "rate evasion: many session ids, made-up clients",
        "a limit per user where the topic has the identity, a total limit everywhere",
        (f"{_LIMITS}test_one_user_with_many_session_ids", f"{_LIMITS}test_made_up_clients_with_flat_topics"),
    ),
    Trial(
        33,
        "metrics, logs, secrets",
        "no session label, whole log lines, no secret, whatever fails and however it is logged",
        (
            f"{_ISOLATION}test_logs_metrics_and_secrets",
            "tests/faults/test_canaries.py",
            "tests/unit/worker/test_logs.py",
        ),
    ),
    Trial(
        34,
        "TLS: expired, wrong authority, wrong host",
        "no connection, no fall-back to plain text",
        ("tests/faults/test_tls.py",),
    ),
    Trial(
        35,
        "three workers behind a broker that deals blindly, one ten times slower",
        "the slow one runs what it can; the p99 is within 1.5 times that of three equal ones of the same capacity",
        ("tests/faults/test_group_shares.py",),
    ),
    Trial(
        36,
        "soak of three workers: every request in a session of its own",
        "the store's memory and every worker's reach a plateau; of what went nothing is left",
        ("tests/faults/test_group_soak.py",),
    ),
    Trial(
        37,
        "limits across workers: many requests at three workers at once",
        "all together admit exactly the limit: of a client, a session, a project, in all",
        ("tests/faults/test_group_limits.py",),
    ),
    Trial(
        38,
        "a worker of a group sees the broker and not the store; the store and not the broker; or is not heard",
        "refused in words; nothing lost, nothing answered differently twice",
        ("tests/faults/test_group_partitions.py", "tests/unit/worker/test_group_repeats.py"),
    ),
    Trial(
        39,
        "every MQTT 5 property in legal and illegal forms, 100,000 of them",
        "the message is served, or dropped and acknowledged; the link lives; others wait less than 0.1 s",
        ("tests/faults/test_properties.py", "tests/unit/client/test_publish_packet.py"),
    ),
    Trial(
        40,
        "SIGKILL in a burst, replies at QoS 1, --ack after-reply, a window of 20 and of 65,535",
        "nothing lost",
        ("tests/faults/test_burst.py",),
    ),
    Trial(
        41,
        "the way out is blocked or slow, while the worker drains, drops, reconnects",
        "one terminal reply each, or a redelivery; nothing open for ever",
        ("tests/faults/test_way_out.py",),
    ),
    Trial(
        42,
        "signals at every moment: connecting, subscribing, loading, serving, answering, reconnecting",
        "the end within the drain timeout + 2 s",
        ("tests/faults/test_signals.py",),
    ),
    Trial(
        43,
        "clients closed, taken over, never connected, interrupted; 200 threads, cancelled tasks",
        "an error in its type at once; what runs is cancelled; no slot, thread or executor leaks",
        ("tests/faults/test_clients.py", "tests/unit/client/test_interrupts.py"),
    ),
    Trial(
        44,
        "escape sequences and control characters in every field that a terminal shows",
        "shown as text; a pipe gets answers as they are",
        ("tests/faults/test_terminals.py",),
    ),
    Trial(
        45,
        "settings and faults drawn at random, together",
        "promises 1 to 5 hold",
        ("tests/faults/test_pairs.py",),
    ),
    Trial(
        46,
        "one user's flood of made-up sessions fills the queue",
        "other users find room and have their turns",
        (f"{_FAIRNESS}test_a_flood_of_one_user_s_sessions", "tests/unit/worker/test_request_queue_owners.py"),
    ),
    Trial(
        47,
        "several workers of one project start at once",
        "exactly one stays; every request has one answer",
        (f"{_COMPANY}test_workers_that_start_at_once", "tests/bus/test_worker_company.py"),
    ),
    Trial(
        48,
        "JSON schemas over the bounds, and as bad as these allow; a grammar that is never compiled",
        "refused in words, or answered; plain questions go on; an engine whose grammars hang is given up",
        (
            "tests/faults/test_answer_forms.py",
            "tests/engine/test_schema_costs.py",
            "tests/bus/test_worker_forms.py",
            "tests/engine/test_vllm_engine.py::test_a_grammar_that_compiles_for_long_ends_its_own_request_in_time",
        ),
    ),
    Trial(
        49,
        "64 sessions in a closed loop over a model in this process, the same on MLX and on llama.cpp",
        "nothing lost; each model runs as many as it may, and the status shows it",
        ("tests/faults/test_three_backends.py",),
    ),
    Trial(
        50,
        "SIGKILL of one of two slots of a model under load, and its return",
        "done where nothing was shown, else one error; p99 is back within 5 s; it takes its share again",
        (f"{_SLOTS}test_sigkill_of_one_of_two_slots_under_load",),
    ),
    Trial(
        51,
        "a backend refuses half of what comes (429, Retry-After)",
        "at most 1.2 attempts a request, 95% done within 60 s; the limit goes down and up again",
        (f"{_BACKENDS}test_a_backend_that_refuses_half_of_what_a_naive_client_would_send",),
    ),
    Trial(
        52,
        "two models with servers of our own in memory for one; SIGKILL",
        "asked in turns, both answer; none makes way while it is busy; nothing is left",
        (f"{_MANAGED}test_two_models_in_memory_for_one",),
    ),
    Trial(
        53,
        "a queue full of requests for a slow model, and a fast one beside it",
        "no fast request is refused or waits for a slow turn",
        (f"{_SLOTS}test_a_queue_full_of_slow_work_delays_no_fast_request",),
    ),
    Trial(
        54,
        "a batch whose worker is killed in the middle, and which is killed itself after that",
        "every request has one answer, and none has two",
        ("tests/faults/test_batch.py", "tests/bus/test_cli_batch.py"),
    ),
)
