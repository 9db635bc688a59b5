"""The page's files, as the gateway serves them, and its live view, as a browser without a browser sees it."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

import inferbus_client
from inferbus_client.contract.presence import Presence
from inferbus_client.exchange.announced import WorkerView
from inferbus_client.gateway.live import LiveFeed
from inferbus_client.gateway.page import page_routes
from inferbus_client.web.server import WebServer
from support.mosquitto import HOST
from support.waiting import PATIENCE, until

FOLDER: Final = Path(inferbus_client.__file__).parent / "gateway" / "page"


class Bus:
    """A bus with one worker on it."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_closing = False
        self.feed = LiveFeed(self.workers, lambda: True, self.ask, lambda: self.is_closing, most=2, every=0.05)

    def workers(self) -> dict[str, WorkerView]:
        return {"one": WorkerView(Presence(worker="one", state="ready"))}

    def ask(self) -> None:
        self.asked += 1


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def port(bus: Bus) -> Iterator[int]:
    app = Starlette(routes=[*page_routes(lambda _headers: None), Route("/api/live", bus.feed.endpoint)])
    server = WebServer(app, f"{HOST}:0", "page")
    server.start()
    yield server.port
    server.stop(PATIENCE)


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


class TestFiles:
    def test_each_file_of_the_page_is_served_and_each_that_it_names_is_there(self, port: int) -> None:
        served = {"/": "index.html", **{f"/page/{file.name}": file.name for file in FOLDER.iterdir()}}
        served.pop("/page/index.html")
        named: set[str] = set()
        for path, name in served.items():
            status, headers, body = get(port, path)
            assert (status, body) == (200, (FOLDER / name).read_bytes())
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            named |= {f"/page/{one}" for one in re.findall(r'from "\./([\w.]+)"', body.decode())}
            named |= set(re.findall(r'(?:src|href)="(/[^"#]+)"', body.decode()))
        assert named < set(served)

    def test_nothing_is_fetched_from_elsewhere_and_nothing_is_made_of_text(self) -> None:
        for file in FOLDER.iterdir():
            text = file.read_text()
            for word in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "@import",
            ):
                assert word not in text, f"{file.name}: {word}"
            there = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
            assert not there, f"{file.name}: {there}"

    @pytest.mark.parametrize(
        "path",
        [
            "/page/",
            "/page",
            "/page/../live.py",
            "/page/%2e%2e/live.py",
            "/page//etc/passwd",
            "/page/index.html",
            "/live.py",
        ],
    )
    def test_there_is_nothing_else(self, port: int, path: str) -> None:
        assert get(port, path)[0] == 404

    def test_what_a_browser_has_is_not_sent_again(self, port: int) -> None:
        tag = get(port, "/")[1]["etag"]
        assert get(port, "/", **{"If-None-Match": f"W/{tag}"})[::2] == (304, b"")
        assert get(port, "/", **{"If-None-Match": '"other"'})[0] == 200
        assert get(port, "/", "POST")[0] == 405


class Viewer:
    """Reads server-sent events."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
        self._connection.request("GET", "/api/live")
        self.response = self._connection.getresponse()

    def next(self) -> tuple[str, Any]:
        lines = [self.response.readline().decode() for _ in range(3)]
        return lines[0].removeprefix("event: ").strip(), json.loads(lines[1].removeprefix("data: "))

    def close(self) -> None:
        self.response.close()
        self._connection.close()


class TestLive:
    def test_first_all_then_what_is_new(self, port: int, bus: Bus) -> None:
        with closing(Viewer(port)) as viewer:
            assert viewer.response.headers["content-type"].startswith("text/event-stream")
            name, seen = viewer.next()
            assert (name, seen["workers"][0]["name"], len(seen["history"])) == ("all", "one", 1)
            name, seen = viewer.next()
            assert (name, seen["isUp"]) == ("now", True)
            assert "history" not in seen
        until(lambda: not bus.feed.viewers)

    def test_workers_are_asked_while_somebody_looks_alone(self, port: int, bus: Bus) -> None:
        with closing(Viewer(port)) as viewer:
            until(lambda: viewer.next() and bus.asked == 2)
        until(lambda: not bus.feed.viewers)
        asked = bus.asked
        with closing(Viewer(port)) as viewer:
            name, seen = viewer.next()
            assert name == "all"
            assert len(seen["history"]) > 10  # it was looked at before
        assert bus.asked <= asked + 1

    def test_there_is_room_for_so_many(self, port: int, bus: Bus) -> None:
        with closing(Viewer(port)), closing(Viewer(port)):
            until(lambda: bus.feed.viewers == 2)
            status, headers, body = get(port, "/api/live")
            assert (status, headers["retry-after"]) == (503, "5")
            assert json.loads(body)["error"]["code"] == "overloaded"
        until(lambda: not bus.feed.viewers)
        with closing(Viewer(port)) as viewer:
            assert viewer.response.status == 200

    def test_who_takes_nothing_is_let_go_and_others_see_on(self, port: int, bus: Bus, monkeypatch: Any) -> None:
        crowd = {
            f"worker-{number}": WorkerView(Presence(worker="w", state="ready", model="m" * 60)) for number in range(200)
        }
        monkeypatch.setattr(bus, "workers", lambda: crowd)
        bus.feed._workers = bus.workers
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((HOST, port))
            slow.sendall(b"GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: bus.feed.viewers == 1)
            with closing(Viewer(port)) as viewer:
                until(lambda: viewer.next() and bus.feed.viewers == 1)

    def test_at_the_end_viewers_are_let_go_in_order(self, port: int, bus: Bus) -> None:
        with closing(Viewer(port)) as viewer:
            viewer.next()
            bus.is_closing = True
            viewer.response.read()  # raises where it did not end in order
        until(lambda: not bus.feed.viewers)
