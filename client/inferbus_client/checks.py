"""The way to an answer, checked step by step: what works, and in words what does not.

Plain functions that return results, for `inferbus doctor` and for programs. A worker's package adds checks of its
machine through the entry-point group `inferbus.checks`: each entry is a function of the client's settings that
returns `CheckResult`s.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, Literal

from inferbus_client import topics
from inferbus_client.client import Client
from inferbus_client.client_settings import ClientSettings
from inferbus_client.errors import BrokerError, InferbusError, RequestFailedError, RequestTimeoutError
from inferbus_client.link import Link
from inferbus_client.link_options import Incoming
from inferbus_client.presence import Presence
from inferbus_client.watch import Watch

Verdict = Literal["ok", "warning", "failed", "info"]

_ROUND_TRIP: Final = 5.0
_PRESENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked, in two or three words.
        verdict: `failed` means that requests cannot work; `info` judges nothing.
        text: what is so, or what is wrong and what to do about it.
    """

    name: str
    verdict: Verdict
    text: str


def check_all(settings: ClientSettings) -> Iterator[CheckResult]:
    """Every check in order; one that fails ends those that build on it."""
    for check in (check_connection, check_round_trip, check_worker, check_answer):
        result = check(settings)
        yield result
        if result.verdict == "failed":
            break
    yield from added_checks(settings)


def added_checks(settings: ClientSettings) -> Iterator[CheckResult]:
    """The checks of other packages. One that raises is reported, and does not end the others."""
    for entry in entry_points(group="inferbus.checks"):
        try:
            results: Iterable[CheckResult] = entry.load()(settings)
            yield from results
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this machine is what we are here to say
            yield CheckResult(entry.name, "failed", f"the check itself failed: {type(error).__name__}: {error}")


def check_connection(settings: ClientSettings) -> CheckResult:
    """Is the broker there, does it know us, does its certificate hold?"""
    name = "broker"
    link_options = settings.link_options(_client_id(settings))
    link = Link(link_options, on_message=lambda _message: None)
    try:
        link.connect(settings.connect_timeout)
        version = "MQTT 5" if link.is_v5 else "MQTT 3.1.1"
    except BrokerError as error:
        return CheckResult(name, "failed", error.reason)
    finally:
        link.close()
    encrypted = "encrypted" if link_options.url.tls else "not encrypted"
    return CheckResult(name, "ok", f"{settings.broker} accepts us ({version}, {encrypted})")


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
        return CheckResult(name, "failed", error.reason)
    finally:
        link.close()
    return CheckResult(
        name,
        "warning",
        f"our own message on {settings.scope}/assistant_response/… did not come back within {_ROUND_TRIP:g} s. "
        "Either only the worker may publish there (then all is well), or we may not hear it: look at the broker's ACL",
    )


def check_worker(settings: ClientSettings) -> CheckResult:
    """Does a worker say that it is ready to serve this project?"""
    name = "worker"
    try:
        with Watch(settings, _client_id(settings)) as watch:
            watch.wait_for(
                lambda workers: any(_serves(view.presence, settings) for view in workers.values()), _PRESENCE
            )
            found = [view.presence for view in watch.workers.values() if view.presence is not None]
    except BrokerError as error:
        return CheckResult(name, "failed", error.reason)
    ready = [presence for presence in found if _serves(presence, settings)]
    if ready:
        return CheckResult(name, "ok", ", ".join(f"{one.worker} is ready with {one.model}" for one in ready))
    return CheckResult(name, "warning", _why_not(found, settings.project))


def check_answer(settings: ClientSettings) -> CheckResult:
    """Does a request come back answered?"""
    name = "first answer"
    patient = settings.model_copy(update={"retries": 0, "client_id": _client_id(settings), "session": None})
    try:
        with Client(patient) as client:
            answer = client.ask("Hello", max_tokens=16)
    except RequestTimeoutError as error:
        return CheckResult(name, "failed", f"{error}: no worker answers for {settings.project}, or we may not ask it")
    except RequestFailedError as error:
        return CheckResult(name, "failed", f"the worker says {error.code}: {error}")
    except InferbusError as error:
        return CheckResult(name, "failed", str(error))
    return CheckResult(name, "ok", f"an answer of {len(answer.text)} characters after {answer.total_s * 1000:.0f} ms")


def _serves(presence: Presence | None, settings: ClientSettings) -> bool:
    return presence is not None and presence.state == "ready" and settings.project in presence.projects


def _why_not(found: list[Presence], project: str) -> str:
    if not found:
        return "no worker has announced itself on this broker; start one with `inferbus serve`"
    serving = [presence for presence in found if project in presence.projects]
    if serving:
        return ", ".join(f"{presence.worker} is {presence.state}" for presence in serving)
    others = sorted({name for presence in found for name in presence.projects})
    return f"no worker serves {project}; those on this broker serve {', '.join(others) or 'nothing'}"


def _client_id(settings: ClientSettings) -> str:
    return settings.client_id or f"inferbus-doctor-{uuid.uuid4().hex[:8]}"
