"""What goes wrong on the bus is said on the page within ten seconds, in words."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Final, cast

import pytest

from support.browser import Browser, open_page
from support.fault_proxy import Fault as NetworkFault
from support.fault_proxy import FaultProxy
from support.listener import Listener
from support.models import models_file, stub_slot
from support.mosquitto import Mosquitto
from support.stub_backend import Fault, StubBackend

pytestmark = [pytest.mark.timeout(700), pytest.mark.slow]  # npm may have to install what the tests need

#: Seconds within which what goes wrong is said.
SEEN: Final = 10.0


def test_a_worker_that_is_killed_and_comes_back(bus: Any, browser: Browser) -> None:
    open_page(browser, bus, "#bus")
    browser.see("#link", "One worker; all is well.")
    bus.worker.kill()
    browser.see("#troubles [data-level=fault]", "gpu-1 went without a word", SEEN)
    browser.see("#told", "gpu-1 went without a word")
    browser.see("#events", "gpu-1 is gone without a word")
    assert browser.do("axe") == []
    bus.worker.start()
    browser.see("#link", "One worker; all is well.", SEEN)
    browser.see("#events", "gpu-1 came: it is")
    browser.is_well()


def test_a_broker_that_is_lost_and_comes_back(bus: Any, browser: Browser) -> None:
    open_page(browser, bus, "#bus")
    bus.broker.kill()
    browser.see("#link", "The gateway has no connection to the broker.", SEEN)
    browser.see("#troubles [data-level=fault]", "what stands here was before", SEEN)
    bus.broker.start()
    browser.see("#events", "The connection to the broker is back", 60)
    browser.is_well()


def test_a_client_that_floods(bus: Any, browser: Browser) -> None:
    open_page(browser, bus, "#bus")
    with Listener(bus.broker, "nothing") as flood:
        for number in range(80):
            flood.publish(f"robots/user_input/flood-{number}", "word " * 50, qos=0)
        browser.see("#troubles [data-level=fault]", "gpu-1 has refused", SEEN)
        browser.see("#troubles [data-level=fault]", "of them project robots's", SEEN)
        browser.see("#queues", "robots")
    browser.is_well()


def test_a_model_that_becomes_slow(bus: Any, browser: Browser) -> None:
    open_page(browser, bus, "#bus")
    with Listener(bus.broker, "general/assistant_response/#") as heard:
        for number in range(8):
            heard.publish(f"general/user_input/s{number}", "quick")
        heard.wait(8)
        heard.publish("general/user_input/s9", "word " * 2000)
        browser.see("#troubles [data-level=fault]", "The model is slow.", SEEN)
    browser.is_well()


def test_a_worker_that_hangs(bus: Any, browser: Browser) -> None:
    open_page(browser, bus, "#bus")
    bus.worker.process.send_signal(signal.SIGSTOP)
    try:
        browser.see("#troubles [data-level=fault]", "gpu-1 has not answered for", SEEN)
    finally:
        bus.worker.process.send_signal(signal.SIGCONT)
    browser.see("#link", "all is well", 60)


def test_an_engine_that_is_dead(bus: Any, browser: Browser, start_worker: Any, tmp_path: Path) -> None:
    with StubBackend("vllm") as stub:
        file = models_file(tmp_path, {"phi": stub_slot(stub.url)}, {"lab": {"model": "phi"}})
        start_worker(broker=bus.broker, worker_id="gpu-2", config=file, rate_limit="off")
        open_page(browser, bus, "#bus")
        browser.see("#slots", "on gpu-2")
        stub.always = Fault(reset=True)
        with Listener(bus.broker, "lab/assistant_response/#") as heard:
            for number in range(8):
                heard.publish(f"lab/user_input/s{number}", f"hello {number}")
            browser.see("#troubles [data-level=fault]", "of gpu-2 is", SEEN)
    browser.see("#events [data-kind=bad]", "of gpu-2 is")
    browser.is_well()


def test_a_link_that_loses(bus: Any, browser: Browser, start_worker: Any) -> None:
    with FaultProxy(bus.broker.port) as proxy:
        start_worker(broker=cast("Mosquitto", proxy), worker_id="gpu-2", project="far", rate_limit="off", keepalive=5)
        open_page(browser, bus, "#bus")
        browser.see("#workers", "gpu-2")
        proxy.reset_all()
        browser.see("#troubles [data-level=fault]", "gpu-2", SEEN)
        browser.see("#troubles [data-level=fault]", "The link of gpu-2 is bad: it lost the broker", SEEN)
        proxy.fault = NetworkFault(swallow=True)
        browser.see("#troubles [data-level=fault]", "gpu-2 has not answered for", SEEN)
        proxy.fault = NetworkFault()
    browser.is_well()


def test_a_gateway_that_is_away(bus: Any, browser: Browser) -> None:
    open_page(browser, bus)
    browser.do("evaluate", code="window.fetch = () => Promise.reject(new TypeError('no')), null")
    browser.ask("anybody")
    browser.see("#messages .failure", "No connection to the gateway.")
    browser.see("#messages .failure button", "Try again")
    browser.do("evaluate", code="location.hash = '#bus'")
    browser.see("#link", "No connection to the gateway; trying again.", SEEN)
