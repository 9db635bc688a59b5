"""The gateway's page in a real Chromium, before a real gateway, broker and worker."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.browser import Browser, open_page
from support.inferbus import inferbus
from support.listener import Listener
from support.mosquitto import mosquitto_pub
from support.node import run_node
from support.scripts import ROOT
from support.waiting import until

pytestmark = [pytest.mark.timeout(700), pytest.mark.slow]  # npm may have to install what the tests need

MODULES: Final = ROOT / "client/inferbus_client/gateway/page"
LONG: Final = "on and on " * 400
HOSTILE: Final = (
    '<img src=x onerror="window.taken=true"> <script>window.taken=true</script> '
    "[click](javascript:window.taken=true) ![track](https://evil.example/x.png) <svg onload=window.taken=true> "
    "[fine](https://ok.example/)"
)
#: A picture of one point.
PICTURE: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_its_markdown_is_safe_and_linear() -> None:
    assert "# fail 0" in run_node("markdown_test.mjs", MODULES, timeout=300)


def active(browser: Browser) -> str:
    """What the live view says of the worker's requests."""
    return str(browser.do("text", at="#workers tbody td[data-label=active]"))


class TestChat:
    def test_an_answer_comes_as_it_grows_and_is_kept(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        browser.ask("It is **bold**, with `code`:\n\n```sh\nls -l\n```\n\n- one\n- two")
        browser.see("#messages .answer strong", "bold")
        browser.see("#messages .meta", "token")
        assert browser.do("text", at="#messages pre code") == "ls -l"
        browser.see("#told", "Answer: It is **bold**")
        browser.do("click", at="figure.code button")
        browser.see("figure.code button", "Copied")
        assert browser.do("evaluate", code="navigator.clipboard.readText()") == "ls -l"
        browser.do("reload")
        browser.see("#messages .answer strong", "bold")
        browser.do("click", at="#fresh")
        browser.see("#messages", "Ask the bus.")
        browser.do("click", at="#sessions .open >> nth=1")
        browser.see("#messages .answer strong", "bold")
        assert browser.do("axe") == []
        browser.is_well()

    def test_stop_stops_also_in_the_engine(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        browser.ask(LONG)
        browser.see("#messages .answer", "on and on on")
        browser.do("press", key="Escape")
        browser.see("#messages .meta", "Stopped.")
        browser.do("evaluate", code="location.hash = '#bus'")
        until(lambda: active(browser) == "0/2")
        browser.do("evaluate", code="location.hash = '#chat'")
        browser.ask("and now")
        browser.see("#messages li:last-child .meta", "2 tokens")
        browser.is_well()

    def test_what_a_model_writes_is_never_run(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        browser.ask(HOSTILE)
        browser.see("#messages .meta", "token")
        browser.do("reload")
        browser.see("#messages .answer", "<script>")
        assert browser.do("count", at="#messages :is(img, script, svg)") == 0
        links = browser.do("evaluate", code="[...document.querySelectorAll('.answer a')].map(a => a.href)")
        assert links == ["https://evil.example/x.png", "https://ok.example/"]
        assert browser.do("evaluate", code="window.taken") is False
        browser.is_well()

    def test_with_the_keyboard_alone(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        until(lambda: browser.do("focused") == "message")
        browser.do("type", text="first line")
        browser.do("press", key="Shift+Enter")
        browser.do("type", text="second")
        browser.do("press", key="Enter")
        browser.see("#messages .asked", "first line\nsecond")
        browser.see("#messages .meta", "token")
        browser.do("press", key="Shift+Tab")  # past the button that adds a picture there is no way back but this
        passed = []
        for _ in range(12):
            passed.append(browser.do("focused"))
            browser.do("press", key="Shift+Tab")
        assert {"messages", "target", "fresh"} <= set(passed)
        assert passed.index("messages") < passed.index("target") < passed.index("fresh")

    def test_options_travel_with_the_question(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        with Listener(bus.broker, "robots/user_input/#") as listener:
            browser.do("choose", at="#target", value="robots")
            browser.do("click", at="#settings summary")
            browser.do("fill", at="#system", text="Be brief.")
            browser.do("fill", at="#temperature", text="0.5")
            browser.do("fill", at="#max_tokens", text="3")
            browser.do("press", key="Escape")
            browser.ask("one two three four five")
            browser.see("#messages .meta", "cut: it reached its longest")
            (asked,) = listener.wait(1)
        body = json.loads(asked.payload)
        assert (body["temperature"], body["maxTokens"]) == (0.5, 3)
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        browser.is_well()

    def test_a_picture_that_is_dropped_travels_with_the_question(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        data = base64.b64encode(PICTURE).decode()
        browser.do("drop", at="#messages", base64=data, type="image/png")
        browser.see("#pictures", "Remove")
        assert browser.do("axe") == []
        browser.do("drop", at="#messages", base64=data, type="image/svg+xml")
        browser.see("#notice", "Only pictures")
        with Listener(bus.broker, "general/user_input/#") as listener:
            browser.ask("what is it")
            (asked,) = listener.wait(1)
        content = json.loads(asked.payload)["messages"][0]["content"]
        assert content[0] == {"type": "text", "text": "what is it"}
        assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")

    def test_a_browser_that_keeps_nothing_chats_all_the_same(self, bus: Any, browser: Browser) -> None:
        open_page(browser, bus)
        browser.do(
            "evaluate",
            code="Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }",
        )
        browser.ask("hello there")
        browser.see("#messages .meta", "2 tokens")
        browser.see("#notice", "This browser keeps no more")
        browser.ask("and again")
        browser.see("#messages li:last-child .meta", "2 tokens")
        browser.is_well()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_all_of_it_without_going_sideways(bus: Any, browser: Browser, scheme: str) -> None:
    for view in ("", "#bus"):
        open_page(browser, bus, view, width=390, height=844, scheme=scheme, touch=True)
        if not view:
            browser.ask("A line that is rather long for a phone: " + "x" * 200 + "\n\n```\n" + "y" * 300 + "\n```")
            browser.see("#messages .meta", "token")
        assert browser.do("evaluate", code="document.documentElement.scrollWidth") == 390
        assert browser.do("axe") == []
    browser.is_well()


def ask_until_accepted(others: Listener, count: int) -> None:
    """Ask as somebody else, again and again, until so many more have room."""

    def accepted() -> int:
        return sum('"accepted"' in heard.text for heard in others.heard)

    wanted = accepted() + count
    while accepted() < wanted:
        before = len(others.heard)
        topic = f"general/user_input/other-{uuid.uuid4().hex}"
        others.publish(topic, json.dumps({"message": "word " * 100, "reply": "json"}))
        others.wait(before + 1)


class TestOverload:
    @pytest.fixture
    def worker_options(self) -> dict[str, Any]:
        return {"simulated_capacity": 1, "queue_size": 2, "simulated_per_token": "300ms"}

    def test_the_place_in_the_queue_is_said_and_a_refusal_can_be_tried_again(self, bus: Any, browser: Browser) -> None:
        with Listener(bus.broker, "general/assistant_response/#") as others:
            ask_until_accepted(others, 2)
            open_page(browser, bus)
            browser.ask("after them")
            browser.see("#queue", "Waiting: 1 request before this one")
            browser.do("press", key="Escape")
            browser.see("#messages .meta", "Stopped.")
            ask_until_accepted(others, 1)
            browser.ask("no room for this")
            browser.see("#messages .failure", "overloaded")
            browser.see("#messages .failure button", "Try again")
        browser.is_well("503")


def test_what_strangers_announce_is_text(bus: Any, browser: Browser) -> None:
    evil = "<img src=x onerror=window.taken=true>"
    mosquitto_pub(
        bus.broker, topics.presence("evil"), Presence(worker="evil", state="ready", model=evil).encode(), "-r"
    )
    presence = Presence(worker=evil, state="ready", group=evil)
    mosquitto_pub(bus.broker, f"inferbus/workers/{evil}/status", presence.encode(), "-r")
    open_page(browser, bus, "#bus")
    browser.see("#groups li", evil)
    browser.see("#workers tbody th", evil)
    browser.see("#workers tbody td", evil)
    assert browser.do("count", at="#bus-view img") == 0
    assert browser.do("evaluate", code="window.taken") is False
    browser.is_well()


class TestKeys:
    @pytest.fixture
    def key(self, tmp_path: Path) -> str:
        made = inferbus("keys", "add", "ops", "--file", str(tmp_path / "keys.yaml"), "--operator")
        return next(word for word in (made.stdout + made.stderr).split() if word.startswith("ib-"))

    @pytest.fixture
    def gateway_options(self, key: str, tmp_path: Path) -> list[str]:
        assert key
        return ["--api-keys", str(tmp_path / "keys.yaml")]

    def test_the_page_asks_for_a_key_and_keeps_it_for_this_tab_alone(
        self, bus: Any, browser: Browser, key: str
    ) -> None:
        browser.do("open", url=bus.url)
        browser.see("#key-why", "This gateway asks for a key.")
        assert browser.do("axe") == []
        browser.do("fill", at="#key", text="ib-wrong")
        browser.do("press", key="Enter")
        browser.see("#key-why", "The gateway does not know this key.")
        browser.do("fill", at="#key", text=key)
        browser.do("press", key="Enter")
        until(lambda: browser.do("evaluate", code="document.getElementById('target').value") == "general")
        browser.ask("hello there")
        browser.see("#messages .meta", "2 tokens")
        browser.do("evaluate", code="location.hash = '#bus'")
        browser.see("#link", "all is well")
        kept = browser.do("evaluate", code="JSON.stringify(localStorage) + document.cookie + location.href")
        assert key not in kept
        browser.is_well("401")
