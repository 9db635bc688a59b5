"""Pictures of the page for docs/: `python -m support.page_shots` (from tests/) writes them anew, in two minutes.

All in them is real but the models: a broker, two workers before servers that say what they are told, a gateway, some
load, one server that fails, and a Chromium.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from inferbus_client import Client
from inferbus_client.errors import InferbusError
from support.browser import Browser
from support.inferbus import PROGRAM
from support.mosquitto import HOST, Mosquitto, free_port
from support.scripts import ROOT, Running
from support.stub_backend import Fault, StubBackend
from support.worker import WorkerProcess

_DOCS: Final = ROOT / "docs"
_LOAD_SECONDS: Final = 60.0
_QUESTION: Final = "How does a robot ask the bus without a library?"
_ANSWER: Final = """With two commands of any MQTT client. **Subscribe first**, then publish:

```sh
mosquitto_sub -t 'robots/assistant_response/arm-7' &
mosquitto_pub -t 'robots/user_input/arm-7' -m 'Where do I put the cup?'
```

1. The worker queues the message *fairly* between projects.
2. The reply comes on `assistant_response`, as plain text.

| a reply that begins so | means |
|---|---|
| `Error: Rate limit exceeded` | ask again, more slowly |
| `Please wait` | the last question still runs |
"""


def main() -> int:
    """Write docs/page-*.png."""
    with ExitStack() as parts:
        broker = parts.enter_context(Mosquitto())
        stubs = {name: parts.enter_context(StubBackend(kind)) for name, kind in _STUBS.items()}
        for stub in stubs.values():
            stub.first_token, stub.per_token, stub.answer = 0.05, 0.02, _ANSWER
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        for worker, text in _CONFIGS.items():
            settings = folder / f"{worker}.yaml"
            settings.write_text(text.format(**{name: stub.url for name, stub in stubs.items()}))
            options: dict[str, Any] = {"config": settings, "worker_id": worker, "queue_size": 60}
            parts.enter_context(_Served(broker, rate_limit="off", drain_timeout="0s", **options))
        port = free_port()
        gateway = parts.enter_context(
            Running([str(PROGRAM), "gateway", "--broker", broker.url, "--listen", f"{HOST}:{port}"])
        )
        gateway.says("inferbus gateway at")
        _take(parts.enter_context(Browser()), f"http://{HOST}:{port}/", broker, stubs)
    return 0


_STUBS: Final = {"phi_a": "ollama", "phi_b": "llama.cpp", "qwen": "vllm"}
_CONFIGS: Final = {
    "lab-gpu-1": "models: {{qwen: {{backend: vllm, url: '{qwen}', model: stub, concurrency: 8}}}}\n"
    "projects: {{general: {{model: qwen}}}}\n",
    "lab-gpu-2": "models:\n  phi:\n    slots:\n"
    "      - {{backend: ollama, url: '{phi_a}', model: stub, concurrency: 6}}\n"
    "      - {{backend: llama.cpp, url: '{phi_b}', concurrency: 2}}\n"
    "projects: {{robots: {{model: phi}}, kitchen: {{model: phi}}}}\n",
}


class _Served(WorkerProcess):
    """A worker whose models its file names."""

    def __init__(self, broker: Mosquitto, **options: Any) -> None:
        super().__init__(broker, backend="vllm", **options)
        at = self.arguments.index("--backend")
        del self.arguments[at : at + 2]


def _take(browser: Browser, url: str, broker: Mosquitto, stubs: dict[str, StubBackend]) -> None:
    stop = threading.Event()
    load = [
        threading.Thread(target=_load, args=(broker, project, at_once, stop))
        for project, at_once in (("general", 5), ("robots", 12), ("kitchen", 4))
    ]
    browser.do("open", url=f"{url}#bus", width=1280, height=1000)
    browser.see("#workers", "lab-gpu-2")
    for thread in load:
        thread.start()
    try:
        time.sleep(_LOAD_SECONDS)
        stubs["phi_b"].always = Fault(reset=True)
        browser.see("#troubles", "is open")
        time.sleep(8)
        browser.do("shot", path=str(_DOCS / "page-bus.png"))
        browser.do("open", url=f"{url}#bus", width=390, height=844, scheme="dark", touch=True)
        browser.see("#workers", "lab-gpu-2")
        time.sleep(3)
        browser.do("shot", path=str(_DOCS / "page-phone.png"))
    finally:
        stop.set()
        for thread in load:
            thread.join()
    for name, scheme in (("page-chat.png", "light"), ("page-dark.png", "dark")):
        browser.do("open", url=url, width=1280, height=860, scheme=scheme)
        browser.see("#target", "general")
        browser.ask(_QUESTION)
        browser.see("#messages .meta", "token")
        browser.do("shot", path=str(_DOCS / name))


def _load(broker: Mosquitto, project: str, at_once: int, stop: threading.Event) -> None:
    def ask(number: int) -> None:
        with Client(broker.url, project=project, pacing=0, retries=0) as client:
            while not stop.wait(random.uniform(0, 1.5)):  # noqa: S311 - no secret
                with suppress(InferbusError):
                    client.ask("Where do I put the cup?", session=f"{project}-{number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
