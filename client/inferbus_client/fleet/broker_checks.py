"""What the broker at hand can do for a group of workers, in words; none of it matters to a worker by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from inferbus_client.errors import BrokerError
from inferbus_client.fleet.share_trial import MESSAGES, WINDOW, Dealing, ShareTrial
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.options import LinkOptions

_HALF: Final = MESSAGES // 2
_NOTHING_COMES: Final = (
    "the broker grants a shared subscription and delivers nothing for it (or this login may not use inferbus/doctor/#)"
)
_ONE_BY_ONE: Final = "For one worker that is fine; several that share one store need a broker that can."

#: What was found, and what to do about it where there is anything.
Found = tuple[str, str]


def tried_for_groups(options: LinkOptions) -> Iterator[Found]:
    """Try it, for some seconds.

    Args:
        options: how to reach the broker, as a client whose id is free.
    """
    try:
        with ShareTrial(options) as trial:
            yield _about_packets(trial.link), ""
            if not trial.link.shares:
                yield "the broker says that it has no shared subscriptions", _ONE_BY_ONE
            elif not trial.is_delivered():
                yield _NOTHING_COMES, _ONE_BY_ONE
            else:
                yield "shared subscriptions are delivered: a group of workers can serve here (--state)", ""
                clean = trial.deals(persistent=False)
                yield from ((text, "") for text in about_dealing(clean))
                yield about_persistent(trial.deals(persistent=True)), ""
    except BrokerError as error:
        yield f"what the broker can do for a group of workers cannot be tried with this login: {error.reason}", ""


def _about_packets(link: Link) -> str:
    version = "MQTT 5" if link.is_v5 else "MQTT 3.1.1, which has no words for what a broker can do"
    most = link.max_packet_size
    largest = "names no largest packet" if most is None else f"takes packets of {most} bytes at most"
    return f"the broker speaks {version}; it {largest}, and {link.receive_maximum} unacknowledged messages of a client"


def about_dealing(seen: Dealing) -> Iterator[str]:
    if seen.to_quick <= _HALF + 1:
        yield (
            f"it deals blindly: a member that acknowledged nothing was dealt {MESSAGES - seen.to_quick} of {MESSAGES} "
            "requests; what a worker cannot run at once the others take from the group's store"
        )
    else:
        yield (f"it deals to who keeps up: a quick member got {seen.to_quick} of {MESSAGES} requests")
    if seen.most_open is None:
        yield ("over MQTT 3.1.1 no worker can say how many requests it takes unacknowledged (Receive Maximum)")
    elif seen.most_open > WINDOW:
        yield (
            f"it does not keep to a Receive Maximum ({seen.most_open} unacknowledged messages, {WINDOW} were allowed): "
            "a burst reaches a worker at once, and its bounds refuse what is too much"
        )
    else:
        yield (f"it keeps to a Receive Maximum ({seen.most_open} of {WINDOW}): a burst waits at the broker")
    if seen.handed_over >= seen.open:
        yield ("what a member without a session had not acknowledged when it died was handed to another")
    else:
        yield (
            f"{seen.open - seen.handed_over} of {seen.open} requests were lost with a member without a session that "
            "died: workers of a group should acknowledge after the reply (--ack after-reply)"
        )


def about_persistent(seen: Dealing) -> str:
    if seen.handed_over >= seen.open:
        return "what a member with a session had not acknowledged when it died was handed to another at once"
    kept = f"{seen.kept} of {seen.open - seen.handed_over + seen.to_dead}"
    goes_on = (
        f", and it was dealt {seen.to_dead} of {MESSAGES} more while it was away: bring a dead worker back under its id"
        if seen.to_dead
        else ", and it was dealt nothing more while it was away"
    )
    return f"requests of a member with a session that died wait until it comes back ({kept} came then){goes_on}"
