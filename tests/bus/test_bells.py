"""Sleeping until the store has something, on a real one."""

from __future__ import annotations

import signal
import threading
from os import kill

from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.state.redis.bells import Bells
from inferbus_worker.state.redis.connection import Store
from support.couriers import KEY, refusal
from support.redis_server import RedisServer

_NAMES = [f"{KEY}bell:a", f"{KEY}bell:b"]


def test_a_bell_that_rings_wakes_and_silence_ends_by_itself() -> None:
    with RedisServer() as server, server.client() as client:
        store = Store(StoreUrl.parse(server.url))
        bells = Bells(store, KEY, 0.05)
        assert bells.wait(_NAMES) is None
        bells.close()
        bells = Bells(store, KEY, 30)
        ringing = threading.Timer(0.1, lambda: client.rpush(_NAMES[1], 1))
        ringing.start()
        assert bells.wait(_NAMES) == _NAMES[1]
        ringing.join()
        bells.close()


def test_a_store_that_goes_away_ends_the_wait_and_is_found_again() -> None:
    with RedisServer() as server:
        bells = Bells(Store(StoreUrl.parse(server.url)), KEY, 0.2)
        assert bells.wait(_NAMES) is None
        kill(server.pid, signal.SIGSTOP)
        _, waited = refusal(lambda: bells.wait(_NAMES))
        kill(server.pid, signal.SIGCONT)
        assert waited < 3
        assert bells.wait(_NAMES) is None
        server.kill()
        refusal(lambda: bells.wait(_NAMES))
        refusal(lambda: bells.wait(_NAMES))
        server.start()
        assert bells.wait(_NAMES) is None
        bells.close()
