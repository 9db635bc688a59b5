"""Part of the build: the worker depends on the client of its own version, which is written in the client alone."""

from __future__ import annotations

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Makes the list of dependencies out of the version, and of what pyproject.toml names under this hook."""

    def update(self, metadata: dict[str, Any]) -> None:
        metadata["dependencies"] = [f"inferbus-client[cli]=={metadata['version']}", *self.config["dependencies"]]
