"""The YAML file with settings: its words, and the line of each.

YAML 1.1 makes a boolean of `off`, a number of `5` and eight of `010`. Here a plain word stays the text that it is, and
the setting's own type says what it means: so that a word in the file means what it means in a flag or the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from inferbus_client.errors import SettingsError

#: The steps from the top of a file to a value: names of settings, places in a list.
Keys = tuple[str | int, ...]

_CORE: Final = "tag:yaml.org,2002:"
#: What of YAML's own types is told from text: nothing at all, and `<<`, which takes over another mapping's settings.
_RESOLVED: Final = (f"{_CORE}null", f"{_CORE}merge")
#: What a file may hold: aliases of aliases make any number of values of a few lines.
_MOST_VALUES: Final = 100_000


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says.

    Attributes:
        values: settings by name: text, None, lists and mappings of these.
        lines: where each of them stands, counted from 1.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[Keys, int] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """Read a file.

        Raises:
            SettingsError: it cannot be read, or is no mapping of settings. The text names the line, and repeats nothing
                of the file but the names of settings: there may be a secret in the rest.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from None
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> SettingsFile:
        """What stands in the file at `path`, which has been read; see `read`."""
        try:
            loader = _Words(content.decode("utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError):
            raise SettingsError(f"{path} is not YAML in UTF-8") from None
        lines: dict[Keys, int] = {}
        try:
            node = loader.get_single_node()
            _bound(path, node)
            values = None if node is None else loader.construct_document(node)
            if node is not None:
                _note_lines(node, (), lines)
        except _SaidTwiceError as error:
            raise SettingsError(f"{path}, {error}") from None
        except yaml.MarkedYAMLError as error:
            raise SettingsError(_not_yaml(path, error.problem_mark or error.context_mark)) from None
        except ValueError:  # a type written out that the word is not: `!!int x`
            raise SettingsError(_not_yaml(path, None)) from None
        except RecursionError:
            raise SettingsError(f"{path} is nested too deep") from None
        finally:
            loader.dispose()
        if node is None or values is None:
            return cls(path=path)
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise SettingsError(f"{path}, line {node.start_mark.line + 1}: must hold a mapping of settings")
        return cls(values, lines, path)

    def place(self, keys: Keys) -> str:
        """Where a setting stands, in words."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}, line {self.lines[keys]}" if keys else f"{self.path}"


class _SaidTwiceError(Exception):
    """The same key twice in one mapping, of which YAML would take the last without a word."""


class _Words(yaml.SafeLoader):
    """Loads every plain word as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _RESOLVED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, yaml.Mark] = {}
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode) and seen.setdefault(key.value, key.start_mark) is not key.start_mark:
                line, before = key.start_mark.line + 1, seen[key.value].line + 1
                raise _SaidTwiceError(f"line {line}: {key.value} stands in line {before} already")
        return node


def _bound(path: Path, node: yaml.Node | None) -> None:
    if node is not None and _count(node, {}) > _MOST_VALUES:
        raise SettingsError(f"{path} holds more than {_MOST_VALUES} values, where each alias stands for a copy")


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many nodes this is with all below it, where each alias stands for a copy; looks at each node once."""
    if id(node) not in counted:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        below = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        counted[id(node)] = 1 + sum(_count(part, counted) for part in below)
    return counted[id(node)]


def _note_lines(node: yaml.Node, keys: Keys, lines: dict[Keys, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*keys, key.value)] = key.start_mark.line + 1
            _note_lines(value, (*keys, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*keys, number)] = value.start_mark.line + 1
            _note_lines(value, (*keys, number), lines)


def _not_yaml(path: Path, mark: yaml.Mark | None) -> str:
    line = "" if mark is None else f", line {mark.line + 1}"
    advice = "indent with spaces alone, no tabs; a value with special characters belongs in quotes"
    return f"{path}{line} is not YAML ({advice})"
