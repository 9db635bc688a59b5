"""A Mosquitto with the configuration that we ship: certificates, roles and logins made with the shipped scripts."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import Final, Self

from support.mosquitto import Mosquitto, free_port
from support.needs import needs_program
from support.peer import Site

SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "mosquitto"


class ShippedMosquitto(Mosquitto):
    """A context manager. `port` is the users' listener, `workers_port` the workers'; both speak TLS alone.

    Args:
        *users: arguments of `provision user`, one or two words each: the user, then the device.
    """

    def __init__(self, *users: str) -> None:
        super().__init__()
        for program in ("mosquitto_ctrl", "mosquitto_rr", "openssl"):
            needs_program(program)
        self._users = users
        self._admin_password = secrets.token_hex(8)
        self.workers_port = free_port()
        #: By login.
        self.passwords: dict[str, str] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self.passwords["inferbus-worker"] = self.provision("worker")
        for user in self._users:
            self.passwords[user.replace(" ", "-")] = self.provision("user", *user.split())
        return self

    @property
    def url(self) -> str:
        return f"mqtts://{self.host}:{self.port}"

    @property
    def workers_url(self) -> str:
        return f"mqtts://{self.host}:{self.workers_port}"

    @property
    def site(self) -> Site:
        return Site(self.host, self.port, self.workers_port, self.cafile, self.passwords)

    @property
    def cafile(self) -> Path:
        return self.folder / "ca.crt"

    def start(self) -> None:
        if not self.cafile.exists():
            _run(SHIPPED / "make-certificates", self.folder, self.host, "localhost")
            _run(
                needs_program("mosquitto_ctrl"),
                *("dynsec", "init", self.folder / "dynamic-security.json", "admin", self._admin_password),
            )
        super().start()

    def provision(self, *arguments: str) -> str:
        """Run the shipped `provision`, as admin.

        Returns:
            What it printed: a password.
        """
        return _run(
            SHIPPED / "provision",
            *arguments,
            BROKER=f"{self.host}:{self.port}",
            CAFILE=str(self.cafile),
            ADMIN_PASSWORD=self._admin_password,
        )

    def control(self, *command: str) -> None:
        """Run a command of `mosquitto_ctrl dynsec`, as admin."""
        _run(
            needs_program("mosquitto_ctrl"),
            *("-h", self.host, "-p", str(self.port), "--cafile", self.cafile),
            *("-u", "admin", "-P", self._admin_password, "dynsec", *command),
        )

    def _lines(self) -> list[str]:
        """The shipped file, with our ports and paths."""
        text = (SHIPPED / "mosquitto.conf").read_text()
        places = {
            "listener 8883\n": f"listener {self.port} {self.host}\n",
            "listener 8884\n": f"listener {self.workers_port} {self.host}\n",
            "/etc/mosquitto/inferbus/": f"{self.folder}/",
            "/var/lib/mosquitto/": f"{self.folder}/",
        }
        for shipped, ours in places.items():
            assert shipped in text, f"mosquitto.conf does not say {shipped!r} any more"
            text = text.replace(shipped, ours)
        return [text, *(["user root"] if os.geteuid() == 0 else [])]


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with status {done.returncode}: {done.stderr}"
    return done.stdout.strip()
