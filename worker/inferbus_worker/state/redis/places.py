"""Where the store is, with its password from wherever that stands."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import SecretStr

from inferbus_client.errors import SettingsError
from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.settings.worker import Settings

#: Characters; a URL that names a Cluster's nodes one by one is shorter.
_LONGEST: Final = 16_384


def store_of(settings: Settings) -> StoreUrl:
    """The store that is shared, for settings that say one.

    Raises:
        SettingsError: the file cannot be read, or holds neither a URL nor a password.
    """
    url = settings.state
    if settings.state_file is not None:
        text = _read(settings.state_file)
        if "://" not in text:
            if url is None:
                raise SettingsError(f"state_file {settings.state_file} holds no URL, and state says none")
            return url.with_password(SecretStr(text))
        if url is not None:
            raise SettingsError(f"state_file {settings.state_file} holds a URL, and state says one too: say one")
        try:
            return StoreUrl.parse(text)
        except ValueError as error:
            raise SettingsError(f"state_file {settings.state_file}: its URL {error}") from None
    if url is None:
        raise SettingsError("state names no store")
    return url if settings.state_password is None else url.with_password(settings.state_password)


def _read(path: Path) -> str:
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1).strip()
    except UnicodeDecodeError:
        raise SettingsError(f"state_file {path} is not text") from None
    except (OSError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or "there is no such home"
        raise SettingsError(f"state_file {path} cannot be read: {words}") from None
    if not text or len(text) > _LONGEST or len(text.splitlines()) > 1:
        raise SettingsError(f"state_file {path} must hold one line, the store's password or its URL")
    return text
