"""The way to an answer, checked step by step: what works, and in words what does not.

Plain functions that return results, for `inferbus doctor` and for programs. A worker's package adds checks of its
machine through the entry-point group `inferbus.checks`: each entry is a function of the client's settings, and of what
the command line said besides, that returns `CheckResult`s.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Final, Literal

from inferbus_client.client import Client
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import BrokerError, InferbusError, RequestFailedError, RequestTimeoutError
from inferbus_client.exchange.announced import ready_for, why_nobody
from inferbus_client.fleet.broker_checks import tried_for_groups
from inferbus_client.fleet.groups import group_of, groups_of
from inferbus_client.fleet.remedies import remedy
from inferbus_client.fleet.watch import Watch, WorkerView
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings
from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.settings.sources import unknown_variables

Verdict = Literal["ok", "warning", "failed", "info"]

_ADDED: Final = "inferbus.checks"
_ROUND_TRIP: Final = 5.0
_PRESENCE: Final = 2.0
_LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
#: By failure code.
_ANSWERS: Final = {
    "rate_limited": "Wait, or raise the worker's limits (--rate-limit and the others).",
    "overloaded": "Wait, or give the worker a longer queue or more slots (--queue-size, --workers).",
    "engine_unavailable": "The model is still loading, or gone: `inferbus status` and the worker's log say which.",
    "engine_error": "The worker's log says why.",
    "shutting_down": "Wait until the worker is back, or start another.",
    "deadline_exceeded": "Allow more time with --timeout, or look at the worker's load with `inferbus status`.",
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked, in two or three words.
        verdict: `failed` means that requests cannot work; `info` judges nothing.
        text: what is so, or what is wrong.
        remedy: what to do about it, where that is known.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


def check_all(settings: ClientSettings, others: Mapping[str, str] | None = None) -> Iterator[CheckResult]:
    """Every check in order; one that fails ends those that build on it.

    Args:
        settings: the client's.
        others: what the command line said besides, by names of settings, for the checks of other packages.
    """
    yield from check_environment()
    for check in (check_connection, check_round_trip, check_worker, check_answer):
        result = check(settings)
        yield result
        if result.verdict == "failed":
            break
        if check is check_worker and result.verdict == "ok":
            yield from check_groups(settings)
        if check is check_connection:
            yield from check_broker_for_groups(settings)
    yield from added_checks(settings, others or {})


def added_checks(settings: ClientSettings, others: Mapping[str, str]) -> Iterator[CheckResult]:
    """The checks of other packages. One that raises is reported, and does not end the others."""
    for entry in entry_points(group=_ADDED):
        try:
            results: Iterable[CheckResult] = entry.load()(settings, others)
            yield from results
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine is what we are here to say
            yield CheckResult(entry.name, "failed", f"the check itself failed: {type(error).__name__}: {error}")


def check_environment() -> Iterator[CheckResult]:
    """Does anybody read what looks like our variables? A package that adds checks has its own, and looks itself."""
    if not entry_points(group=_ADDED):
        for sentence in unknown_variables((GatewaySettings,)):
            yield CheckResult("environment", "warning", sentence)


def check_connection(settings: ClientSettings) -> CheckResult:
    """Is the broker there, does it know us, does its certificate hold?"""
    name = "broker"
    link_options = settings.link_options(_client_id(settings))
    link = Link(link_options, on_message=lambda _message: None)
    try:
        link.connect(settings.connect_timeout)
        version, url = "MQTT 5" if link.is_v5 else "MQTT 3.1.1", link.url
    except BrokerError as error:
        return CheckResult(name, "failed", error.reason, remedy(replace(link_options, url=link.url), error))
    finally:
        link.close()
    encrypted = "encrypted" if url.tls else "not encrypted"
    text = f"{url} accepts us ({version}, {encrypted})"
    if link_options.password is not None and not url.tls and url.host not in _LOOPBACK:
        return CheckResult(name, "warning", text, "The password is sent in the clear: use mqtts:// where you can.")
    return CheckResult(name, "ok", text)


def check_broker_for_groups(settings: ClientSettings) -> Iterator[CheckResult]:
    """Could workers that share their state serve here? Nothing that is found speaks against one worker."""
    options = settings.link_options(f"inferbus-doctor-{uuid.uuid4().hex[:8]}")
    for text, advice in tried_for_groups(options):
        yield CheckResult("group", "info", text, advice)


def check_round_trip(settings: ClientSettings) -> CheckResult:
    """May we publish, and hear, where replies go? A broker may grant a subscription and deliver nothing."""
    name = "round trip"
    heard = threading.Event()
    topic = f"{topics.assistant_response(settings.scope, f'doctor-{uuid.uuid4().hex}')}/{uuid.uuid4().hex}"

    def on_message(_message: Incoming) -> None:
        heard.set()

    link = Link(settings.link_options(_client_id(settings)), on_message=on_message)
    try:
        link.connect(settings.connect_timeout)
        link.subscribe({topic: 1})
        link.publish(topic, b"round trip", qos=1)
        if heard.wait(_ROUND_TRIP):
            return CheckResult(name, "ok", f"what is published below {settings.scope}/assistant_response is heard")
    except BrokerError as error:
        return CheckResult(name, "failed", error.reason, _about_access(settings))
    finally:
        link.close()
    return CheckResult(
        name,
        "warning",
        f"our own message on {settings.scope}/assistant_response/… did not come back within {_ROUND_TRIP:g} s",
        "Either only the worker may publish there (then all is well), or we may not hear it: look at the broker's ACL.",
    )


def check_worker(settings: ClientSettings) -> CheckResult:
    """Does a worker say that it is ready to serve this project?"""
    name = "worker"
    try:
        with Watch(settings, _client_id(settings)) as watch:
            watch.wait_for(lambda workers: bool(ready_for(settings, _presences(workers))), _PRESENCE)
            found = _presences(watch.workers)
    except BrokerError as error:
        who = "Without that nobody can tell who serves here: the login needs to read inferbus/workers/+/status."
        return CheckResult(name, "warning", error.reason, who)
    if ready := ready_for(settings, found):
        return CheckResult(name, "ok", ", ".join(map(_ready, ready)))
    return CheckResult(name, "warning", *why_nobody(settings, found))


def check_groups(settings: ClientSettings) -> Iterator[CheckResult]:
    """What do the workers share that are ready for us, and does each of them reach it?"""
    try:
        with Watch(settings, _client_id(settings)) as watch:
            watch.gather()
            ours = {one.group for one in ready_for(settings, _presences(watch.workers)) if one.group is not None}
            members = [name for name, view in watch.workers.items() if group_of(view) in ours]
            if not members:
                return
            watch.answered(watch.ask(), _PRESENCE, members)
            found = groups_of({name: watch.workers[name] for name in members})
    except BrokerError:
        return  # `check_worker` has said what there is to say
    for group in found:
        text = "; ".join([f"{group.name}: {group.summary}", *group.lines()])
        if group.unreached:
            why = "It refuses requests meanwhile: see that the store runs, and that this worker may reach it."
            yield CheckResult("group", "warning", text, why)
        else:
            yield CheckResult("group", "ok", text)


def check_answer(settings: ClientSettings) -> CheckResult:
    """Does a request come back answered?"""
    name = "first answer"
    patient = settings.model_copy(update={"retries": 0, "client_id": _client_id(settings), "session": None})
    try:
        with Client(patient) as client:
            answer = client.ask("Hello", max_tokens=16)
    except RequestTimeoutError as error:
        nobody = (
            f"Either no worker serves {settings.scope}/user_input, or the broker does not let this login publish there."
        )
        return CheckResult(name, "failed", str(error), nobody)
    except RequestFailedError as error:
        return CheckResult(name, "failed", f"the worker says {error.code}: {error}", _ANSWERS.get(error.code, ""))
    except InferbusError as error:
        return CheckResult(name, "failed", str(error))
    return CheckResult(name, "ok", f"an answer of {len(answer.text)} characters after {answer.total_s * 1000:.0f} ms")


def _ready(presence: Presence) -> str:
    group = "" if presence.group is None else f", in group {presence.group}"
    return f"{presence.worker} is ready with {presence.model}{group}"


def _presences(workers: Mapping[str, WorkerView]) -> list[Presence]:
    return [view.presence for view in workers.values() if view.presence is not None]


def _about_access(settings: ClientSettings) -> str:
    if settings.identity == "topic":
        return f"Look at what the broker lets this login do below {settings.scope}."
    return (
        f"Look at what the broker lets this login do below {settings.scope}. One that binds the topics to the logins "
        "wants --identity topic."
    )


def _client_id(settings: ClientSettings) -> str:
    return settings.client_id or f"inferbus-doctor-{uuid.uuid4().hex[:8]}"
