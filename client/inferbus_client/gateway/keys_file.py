"""The file of the gateway's keys: who may come in, and how much of what each may have. It holds no key, only hashes.

```yaml
keys:
  alice: {hash: "sha256:…", projects: [general], rate_limit: 60/60s, max_concurrent: 4}
  board: {hash: "sha256:…", operator: true}
```
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from inferbus_client.contract import topics
from inferbus_client.errors import SettingsError
from inferbus_client.settings.connection import FileSettings
from inferbus_client.settings.file import SettingsFile
from inferbus_client.settings.rates import Rate
from inferbus_client.settings.sources import Source
from inferbus_client.units import Written, split

#: A fast hash without salt is right here, and here alone: a key is 192 random bits of ours, so there is nothing to try
#: out, and no two are the same. A slow one, which a password needs, would have every request pay for it.
_ALGORITHM: Final = "sha256"
_TOKEN: Final = re.compile("ib-[0-9a-f]{48}")
_RANDOM_BYTES: Final = 24
#: Bytes; five thousand keys have half as many.
_MOST_BYTES: Final = 2_000_000
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_READABLE: Final = stat.S_IROTH


def new_token() -> str:
    """A key as its owner gets it. What begins with `ib-` is easily found where it should not be."""
    return f"ib-{secrets.token_hex(_RANDOM_BYTES)}"


def is_token(text: str) -> bool:
    """Whether a text could be a key. Only ours could: one that somebody chose would be guessed."""
    return _TOKEN.fullmatch(text) is not None


def hash_of(token: str) -> str:
    """What the file holds of a key."""
    return f"{_ALGORITHM}:{hashlib.sha256(token.encode()).hexdigest()}"


def _check_projects(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if not topics.is_project(name):
            raise ValueError(f"{name!r} is no project name: it must match {topics.NAME}")
    return names


class KeySettings(Written):
    """One key: its hash, and what it may do. What is left out holds without a limit, but for `operator`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hash: Annotated[str, Field(pattern=rf"^{_ALGORITHM}:[0-9a-f]{{64}}$", repr=False)]
    projects: Annotated[list[str] | None, BeforeValidator(split), AfterValidator(_check_projects)] = None
    rate_limit: Rate = None
    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    operator: bool = False

    @field_validator("projects", "rate_limit", "max_concurrent", mode="before")
    @classmethod
    def _is_said(cls, value: object) -> object:
        """`projects:` with nothing behind it is somebody's slip, and would open them all."""
        if value is None:
            raise ValueError("must not be empty; leave it out where it is to have no limit")
        return value


def _check_keys(keys: dict[str, KeySettings]) -> dict[str, KeySettings]:
    owners: dict[str, str] = {}
    for name, key in keys.items():
        if not topics.is_user(name):
            raise ValueError("a key's name must match [A-Za-z0-9_.@:-]{1,128}")
        if (owner := owners.setdefault(key.hash, name)) != name:
            raise ValueError(f"{owner} and {name} have the same hash: whose key is it?")
    return keys


class KeysFile(FileSettings):
    """Everything that the file says. There is no other place for it."""

    keys: Annotated[dict[str, KeySettings], AfterValidator(_check_keys)]

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return super().settings_customise_sources(settings_cls, *sources, **named)[-1:]

    @classmethod
    def _sources(cls, _flags: Any, file: SettingsFile) -> list[Source]:
        return [Source(file.values, file.place)]

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file says.

        Raises:
            SettingsError: it cannot be read, somebody else may write it, or it is none of keys.
        """
        return cls.parse(Content.read(path).content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Self:
        """What the file at `path` says.

        Raises:
            SettingsError: it is none of keys. The text holds no hash.
        """
        written = SettingsFile.parse(content, path)
        if "keys" not in written.values:  # one that is just being written, perhaps
            raise SettingsError(f"{path} says nothing of keys: where there are none, it is to say `keys: {{}}`")
        return cls._of({}, written)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, and whether everybody on this machine may read it."""

    content: bytes = field(repr=False)
    is_open: bool

    @classmethod
    def read(cls, path: Path) -> Content:
        """Read the file that is there now; what is said of its rights is said of what was read.

        Raises:
            SettingsError: it cannot be read, is too large, or somebody else may write it.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode if os.name == "posix" else 0
                content = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:  # a path with NUL
            raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        if mode & _WRITABLE:
            raise SettingsError(f"{path}: others may write it, and so give themselves keys; chmod go-w {path}")
        if len(content) > _MOST_BYTES:
            raise SettingsError(f"{path} has more than {_MOST_BYTES} bytes")
        return cls(content, bool(mode & _READABLE))


@dataclass(frozen=True, slots=True)
class Edited:
    """The keys of a file, to be changed; and its comments, which do not survive it."""

    keys: dict[str, KeySettings]
    lost_comments: list[str]


@contextmanager
def editing(path: Path) -> Iterator[Edited]:
    """The keys of a file, to change; at the end the file holds them. One that is not there has none, and is made.

    A reader sees it as it was or as it is.

    Raises:
        SettingsError: the file is none of keys.
        OSError: it cannot be written. Then it is as it was.
    """
    path = path.resolve()  # of a link, where it leads to
    with _alone(path.parent):
        is_new = not path.exists()
        before = b"" if is_new else Content.read(path).content
        # Nothing else in such a file may have this sign.
        lines = before.decode("utf-8", "replace").splitlines()
        comments = [line[line.index("#") :] for line in lines if "#" in line]
        edited = Edited({} if is_new else dict(KeysFile.parse(before, path).keys), comments)
        yield edited
        said = {name: key.model_dump(mode="json", exclude_defaults=True) for name, key in edited.keys.items()}
        is_json = before.lstrip().startswith(b"{")
        text = json.dumps({"keys": said}, indent=2) if is_json else yaml.safe_dump({"keys": said}, sort_keys=False)
        _replace(path, f"{text.rstrip()}\n")


def _replace(path: Path, text: str) -> None:
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            if path.exists():
                _keep_rights(path, file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            temporary.unlink()
            raise
    temporary.replace(path)


def _keep_rights(path: Path, file: int) -> None:
    """The gateway's user could read the file, and still can; a new one is the temporary's: for its owner alone."""
    if os.name == "posix":
        there = path.stat()
        os.fchown(file, there.st_uid, there.st_gid)
        os.fchmod(file, stat.S_IMODE(there.st_mode))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While nobody else edits a file in this folder; else one of two changes would be lost."""
    if find_spec("fcntl") is None:
        yield
        return
    import fcntl  # noqa: PLC0415 - not every system has it

    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
