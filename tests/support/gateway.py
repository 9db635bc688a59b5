"""`inferbus gateway` as a process of its own, as a user starts it, and what asks it over HTTP."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from support.inferbus import PROGRAM, environment
from support.mosquitto import HOST, Mosquitto, free_port
from support.waiting import PATIENCE, until

_JSON: Final = {"content-type": "application/json"}


def told(port: int, path: str) -> tuple[int, Any]:
    """What a server on this machine says at a path: the status and, where it is JSON, what it has said."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read()
    return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text.decode()


class Response(NamedTuple):
    """What came back whole. Headers by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class GatewayProcess:
    """A context manager: inside the `with` it answers; leaving it stops it with SIGTERM.

    Args:
        broker: where the workers are.
        arguments: more of them, as they are.
        key: what its requests show.
        waits_for: models that it has to know of before the `with` is entered.
    """

    def __init__(
        self, broker: Mosquitto, *arguments: str, key: str | None = None, waits_for: Sequence[str] = ("general",)
    ) -> None:
        self.port = free_port()
        self.key = key
        self._waits_for = set(waits_for)
        self._command = [
            *(PROGRAM, "gateway", "--broker", broker.url),
            *("--listen", str(self.port), *arguments),
        ]

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-gateway-")
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        try:
            until(self._answers)
            until(lambda: self._waits_for <= set(self.models()))
        except BaseException as error:  # nobody leaves what was never entered
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            if error is not None:
                sys.stderr.write(f"--- log of the gateway ---\n{self.log}\n")
            self._folder.cleanup()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def stop(self) -> int:
        """Stop it at once, whatever is under way; its exit status."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    return self.process.wait(2)
                except subprocess.TimeoutExpired:
                    pass
        return self.process.wait(PATIENCE)

    def models(self) -> list[str]:
        return [model["id"] for model in self.get("/v1/models").json["data"]]

    def get(self, path: str, method: str = "GET", /, *, body: bytes | None = None, **headers: str) -> Response:
        """What is there; a header's name may have `_` for `-`."""
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, self._headers(headers))
            return _whole(connection.getresponse())

    def ask(self, text: str = "hello there", **body: Any) -> Response:
        """A chat completion; what the body says besides."""
        return self.post("/v1/chat/completions", question(text, **body))

    def post(self, path: str, body: Any, **headers: str) -> Response:
        return self.get(path, "POST", body=json.dumps(body).encode(), **{"content_type": "application/json", **headers})

    @contextmanager
    def stream(self, text: str = "hello there", **body: Any) -> Iterator[Stream]:
        """A streamed completion; leaving it closes the connection."""
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)) as connection:
            whole = json.dumps(question(text, stream=True, **body)).encode()
            connection.request("POST", "/v1/chat/completions", whole, self._headers(_JSON))
            yield Stream(connection.getresponse())

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        own = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        return own | {name.replace("_", "-"): value for name, value in headers.items()}

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with status {self.process.returncode}:\n{self.log}")
        try:
            return self.get("/healthz").status == http.HTTPStatus.OK
        except OSError:
            return False


class Stream:
    """Server-sent events as they come.

    Attributes:
        status: of HTTP.
        headers: by their names in small letters.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def lines(self) -> Iterator[str]:
        """Those that are not empty."""
        while line := self._response.readline():
            if line.strip():
                yield line.decode().rstrip("\n")

    def events(self) -> Iterator[Any]:
        """The values of the data, but for the end."""
        for line in self.lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "))

    def texts(self) -> Iterator[str]:
        for event in self.events():
            for choice in event["choices"]:
                if text := choice["delta"].get("content"):
                    yield text


def question(text: str, **body: Any) -> dict[str, Any]:
    """A completion's body."""
    return {"model": "general", "messages": [{"role": "user", "content": text}], **body}


def _whole(response: http.client.HTTPResponse) -> Response:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Response(response.status, headers, response.read().decode())
