"""The reply topics that a connection listens to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container
from concurrent.futures import Future
from typing import Final

from paho.mqtt.client import topic_matches_sub

from inferbus_client.mqtt.link import Link

_REPLY_QOS: Final = 1
#: Reply topics that stay subscribed although nobody waits there. The oldest go first.
_MAX_IDLE_TOPICS: Final = 1024


class ReplyTopics:
    """Subscribes to each when it is first asked for, and gives up the oldest of those where nobody waits any more.

    Args:
        link: the connection.
        in_use: where somebody waits. To put a topic there before it is asked for here keeps it.
    """

    def __init__(self, link: Link, in_use: Container[str]) -> None:
        self._link = link
        self._in_use = in_use
        # Re-entrant: a future that is done already calls back at once.
        self._lock = threading.RLock()
        self._granted: OrderedDict[str, Future[None]] = OrderedDict()
        self._wildcard: str | None = None

    def hears(self, topic: str) -> bool:
        """Whether the broker has granted what delivers this topic."""
        with self._lock:
            if self._wildcard is not None and topic_matches_sub(self._wildcard, topic):
                return True
            granted = self._granted.get(topic)
            if granted is None or not granted.done():
                return False
            self._granted.move_to_end(topic)
            return granted.exception() is None

    def listen(self, topic: str) -> Future[None]:
        """Subscribe, unless that is done or under way; the future hears the broker's answer.

        Raises:
            ConnectionLostError: there has been no connection yet.
        """
        with self._lock:
            granted = self._granted.get(topic)
            if granted is None:
                granted = self._granted[topic] = self._link.start_subscribing({topic: _REPLY_QOS})
                granted.add_done_callback(lambda granted: self._forget_if_refused(topic, granted))
                self._give_up_idle()
            return granted

    def rely_on(self, topic_filter: str) -> None:
        """Take a subscription that was granted for every topic that it matches."""
        self._wildcard = topic_filter

    def forget(self, topic: str) -> bool:
        """The broker does not let us hear this topic any more; whether it was the one that stands for all."""
        with self._lock:
            self._granted.pop(topic, None)
            everywhere = topic == self._wildcard
            if everywhere:
                self._wildcard = None
            return everywhere

    def ask_again(self) -> Future[None] | None:
        """Ask for one of them again. A broker reads in order: when it answers, it has read all that went before."""
        with self._lock:
            topic = next(reversed(self._granted), None)
        return None if topic is None else self._link.start_subscribing({topic: _REPLY_QOS})

    def _forget_if_refused(self, topic: str, granted: Future[None]) -> None:
        with self._lock:
            if granted.exception() is not None and self._granted.get(topic) is granted:
                del self._granted[topic]

    def _give_up_idle(self) -> None:
        idle = [topic for topic in self._granted if topic not in self._in_use and topic != self._wildcard]
        for topic in idle[: max(len(idle) - _MAX_IDLE_TOPICS, 0)]:
            del self._granted[topic]
            self._link.unsubscribe(topic)
