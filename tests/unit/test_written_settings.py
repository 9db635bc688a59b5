"""Settings as people write them: a word means the same in the file, in the environment and on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.errors import SettingsError
from inferbus_client.settings.client import ClientSettings
from inferbus_client.settings.connection import FileSettings
from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.settings.sources import is_file_only, unknown_variables
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from support.readme import PAGES
from support.scripts import ROOT

#: Each is something else to YAML 1.1 than the text that it is, or to a number's parser.
WORDS: Final = (
    *("off", "no", "Yes", "true", "auto", "5", "3.1.1", "1e3", "1.0e+3", "1.5", "010", "0x10", "1_000", "12:30"),
    *("2024-01-01", "30s", "10/60s", "64 KiB", "-1", ".inf", "="),
)
MODELS: Final[tuple[type[FileSettings], ...]] = (Settings, ClientSettings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inferbus.yaml"


def load(file: Path, text: str, **flags: Any) -> Settings:
    file.write_text(text)
    return Settings.load(flags, file)


def complaint(file: Path, text: str, **flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(file, text, **flags)
    return str(caught.value)


def outcome(model: type[FileSettings], name: str, **how: Any) -> object:
    """What becomes of a setting: its value, or `refused`."""
    try:
        return getattr(model.load(**how), name)
    except SettingsError:
        return "refused"


class TestWords:
    @pytest.mark.parametrize(
        ("model", "name"),
        [(model, name) for model in MODELS for name, field in model.model_fields.items() if not is_file_only(field)],
        ids=str,
    )
    @pytest.mark.slow
    def test_are_the_same_in_the_file_as_in_the_environment_and_in_a_flag(
        self, file: Path, model: type[FileSettings], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for word in WORDS:
            file.write_text(f"{name}: {word}\n")
            in_the_file = outcome(model, name, file=file)
            assert in_the_file == outcome(model, name, flags={name: word}), word
            monkeypatch.setenv(f"INFERBUS_{name.upper()}", word)
            assert in_the_file == outcome(model, name), word
            monkeypatch.delenv(f"INFERBUS_{name.upper()}")

    @pytest.mark.parametrize("thinking", ["hide", "show", "off"])
    def test_off_is_a_word_of_a_project(self, file: Path, thinking: str) -> None:
        assert load(file, f"projects: {{a: {{thinking: {thinking}}}}}").projects["a"].thinking == thinking

    @pytest.mark.parametrize(("text", "version"), [("5", "5"), ("3.1.1", "3.1.1"), ("'5'", "5"), ("auto", "auto")])
    def test_a_protocol_version_is_no_number(self, file: Path, text: str, version: str) -> None:
        assert load(file, f"mqtt_version: {text}").mqtt_version == version

    @pytest.mark.parametrize("secret", ["0123", "1e3", "off", "12:30", "2024-01-01", "0x10"])
    def test_a_password_reaches_the_broker_letter_by_letter(self, file: Path, secret: str) -> None:
        assert load(file, f"password: {secret}", username="ann").link_options("id").password == secret

    def test_names_of_projects_are_words_too(self, file: Path) -> None:
        assert list(load(file, "projects: {5: , off: , 1e3: , 010: }").projects) == ["5", "off", "1e3", "010"]
        assert list(load(file, "projects: [5, off]").projects) == ["5", "off"]

    def test_texts_of_projects_are(self, file: Path) -> None:
        assert load(file, "projects: {a: {system_prompt: no}}").projects["a"].system_prompt == "no"

    @pytest.mark.parametrize("word", ["1e3", "1.0e+3", "1_000", "1000", "0x3e8"])
    def test_a_whole_number_may_be_written_as_yaml_writes_them(self, file: Path, word: str) -> None:
        text = f"queue_size: {word}\nmax_history_tokens: 0\nprojects: {{a: {{max_tokens: {word}}}}}"
        settings = load(file, text)
        assert (settings.queue_size, settings.projects["a"].max_tokens) == (1000, 1000)

    @pytest.mark.parametrize("word", ["true", "yes", "on", "True"])
    def test_a_switch(self, file: Path, word: str) -> None:
        assert load(file, f"projects: {{a: {{response_format: {word}}}}}").projects["a"].response_format is True

    @pytest.mark.parametrize("nothing", ["", "~", "null"])
    def test_nothing_is_the_default(self, file: Path, nothing: str) -> None:
        settings = load(file, f"projects: {{a: {nothing}}}\nmax_tokens_cap: {nothing}")
        assert (settings.projects, settings.max_tokens_cap) == ({"a": ProjectSettings()}, None)

    def test_a_file_may_say_things_once_and_use_them_twice(self, file: Path) -> None:
        text = "projects:\n  a: &brief {max_tokens: 5}\n  b: {<<: *brief, weight: 2}\n"
        projects = load(file, text).projects
        assert (projects["b"].max_tokens, projects["b"].weight) == (5, 2)

    @pytest.mark.parametrize("each", ["[{}]", "{{<<: [{}]}}", "{{x: [{}]}}"])
    def test_aliases_do_not_multiply_beyond_what_anybody_could_read(self, file: Path, each: str) -> None:
        """Nine of nine of nine: some four hundred million, in half a page."""
        levels = [f"l{level}: &l{level} " + each.format(", ".join([f"*l{level - 1}"] * 9)) for level in range(1, 10)]
        text = "\n  ".join(["vllm:", "l0: &l0 {a: b}", *levels])
        assert "holds more than 100000 values" in complaint(file, text)

    def test_an_alias_of_itself_is_refused(self, file: Path) -> None:
        assert "nested too deep" in complaint(file, "vllm: &all {again: *all}")


class TestLists:
    @pytest.mark.parametrize("text", ["a,b", " a , b ", '["a", "b"]'])
    def test_in_the_environment_have_commas(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_PROJECTS", text)
        monkeypatch.setenv("INFERBUS_REPLY_TOPICS", text)
        settings = Settings.load()
        assert (list(settings.projects), settings.reply_topics) == (["a", "b"], ["a", "b"])

    @pytest.mark.parametrize("flags", [("a,b",), ("a", "b"), (" a , ", "b"), "a,b"])
    def test_a_list_may_have_commas_in_a_flag(self, flags: object) -> None:
        assert list(Settings.load({"projects": flags}).projects) == ["a", "b"]

    def test_in_the_file_a_mapping_in_one_is_none(self, file: Path) -> None:
        assert "line 1: projects: must be a mapping, NAME: VALUE" in complaint(file, "projects: [a, {b: {weight: 2}}]")

    def test_projects_with_settings_are_json_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_PROJECTS", '{"a": {"weight": 2, "thinking": "off"}}')
        project = Settings.load().projects["a"]
        assert (project.weight, project.thinking) == (2, "off")

    @pytest.mark.parametrize("text", ['{"a": ', "a/b", '["a/b"]', ""])
    def test_what_is_none_is_said(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_PROJECTS", text)
        with pytest.raises(SettingsError, match=r"^INFERBUS_PROJECTS: "):
            Settings.load()

    def test_one_is_enough_in_the_file(self, file: Path) -> None:
        settings = load(file, "projects: robots\nreply_topics: robots/replies/#")
        assert (list(settings.projects), settings.reply_topics) == (["robots"], ["robots/replies/#"])


class TestMosquittosVariables:
    @pytest.mark.parametrize(
        ("text", "port", "broker"),
        [
            ("", "1884", "mqtt://127.0.0.1:1884"),
            ("", "8883", "mqtts://127.0.0.1:8883"),
            ("broker: mqtt://host.example", "1884", "mqtt://host.example:1884"),
            ("broker: mqtts://host.example", "8884", "mqtts://host.example:8884"),
        ],
    )
    def test_a_port_alone_is_that_port(
        self, file: Path, text: str, port: str, broker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MQTT_HOST", raising=False)
        monkeypatch.setenv("MQTT_PORT", port)
        assert load(file, text).broker == broker

    @pytest.mark.parametrize("port", ["soon", "0x10", "99999", "-1"])
    def test_one_that_is_none_is_said(self, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQTT_PORT", port)
        with pytest.raises(SettingsError, match=r"^MQTT_PORT: the broker URL's port must be a number from 1 to 65535$"):
            Settings.load()
        monkeypatch.setenv("MQTT_HOST", "host.example")
        with pytest.raises(SettingsError, match=r"^MQTT_HOST and MQTT_PORT: the broker URL's port must be"):
            Settings.load()
        assert Settings.load({"broker": "mqtt://elsewhere"}).broker == "mqtt://elsewhere:1883"

    def test_a_host_may_be_an_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQTT_HOST", "::1")
        assert Settings.load().broker == "mqtt://[::1]:1883"


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("workers: 4\nqueue_size: many", "line 2: queue_size: must be a whole number"),
            ("\n\nworkers: 0", "line 3: workers: must be at least 1"),
            ("log_level: loud", "line 1: log_level: must be 'debug', 'info', 'warning' or 'error'"),
            ("rate_limit: 10/m", "line 1: rate_limit: must be a number per time, such as 10/60s, or off"),
            ("vllm: 8192", "line 1: vllm: must be a mapping, NAME: VALUE"),
            ("max_model_len: 8192", "line 1: there is no setting max_model_len; options of vLLM's stand below vllm:"),
            (
                "model: demo",
                "line 1: there is no setting model; the model is named on the command line, or below models:",
            ),
            ("projects:\n  a:\n    weight: 0", "line 3: projects.a.weight: "),
            ("projects:\n  a: {}\n  b/c: {}", "line 1: projects: 'b/c' is no project name"),
            ("projects:\n  a:\n    wieght: 2", "line 3: there is no setting projects.a.wieght; is weight meant?"),
            ("reply_topics:\n  - a/b\n  - a/#/b", "line 1: reply_topics: 'a/#/b' is no topic filter"),
            ("workers: 3\nreply_topics: a,#b", "line 2: reply_topics: '#b' is no topic filter"),
            ("wrokers: 3", "line 1: there is no setting wrokers; is workers meant?"),
            ("colour: red", "line 1: there is no setting colour"),
            ("workers: 3\nworkers: 4", "line 2: workers stands in line 1 already"),
            ("projects: {a: {weight: 1, weight: 2}}", "line 1: weight stands in line 1 already"),
            ("workers: 3\n\tqueue_size: 4", "line 2 is not YAML (indent with spaces alone, no tabs;"),
            ("workers: 3\nbroker: [\n", "line 3 is not YAML"),
            ("workers: &a 3\nqueue_size: *b", "line 2 is not YAML"),
            ("workers: !!python/name:os.system 3", "line 1 is not YAML"),
            ("workers: 3\nqueue_size: !!int x", "is not YAML"),
            ("- a\n- b", "line 1: must hold a mapping of settings"),
            ("just words", "line 1: must hold a mapping of settings"),
            ("? [a, b]\n: 3", "line 1"),
            ("~: 3", "line 1: must hold a mapping of settings"),
            ("[" * 5000, "is nested too deep"),
        ],
    )
    def test_in_the_file_name_file_line_and_key(self, file: Path, text: str, words: str) -> None:
        said = complaint(file, text)
        assert said.startswith(f"{file}")
        assert words in said
        assert "\n" not in said

    def test_in_the_environment_name_the_variable(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_WORKERS", "many")
        assert complaint(file, "workers: 3\n").startswith("INFERBUS_WORKERS: must be a whole number")

    def test_a_flag_is_named_where_the_file_is_right(self, file: Path) -> None:
        assert complaint(file, "workers: 3\n", workers="0").startswith("workers: ")

    def test_the_file_is_named_where_the_environment_adds_to_it(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INFERBUS_PROJECTS", '{"a": {"weight": 2}}')
        said = complaint(file, "projects:\n  b:\n    weight: 0\n")
        assert said.startswith(f"{file}, line 3: projects.b.weight")

    def test_what_cannot_be_meant_together_names_both_places(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_REQUEST_QOS", "0")
        said = complaint(file, "workers: 3\nack: after-reply\n")
        assert "--ack after-reply needs --request-qos 1" in said
        assert f"ack: {file}, line 2" in said
        assert "request_qos: INFERBUS_REQUEST_QOS" in said

    @pytest.mark.parametrize(
        "text",
        [
            "password: [{}]",
            "password: *{}",
            "password: !{} x",
            "password: %{}",
            "password: '{}",
            "password: {{{}: 1}}",
            "password: {} : x",
        ],
    )
    def test_a_secret_in_a_wrong_file_is_not_repeated(self, file: Path, text: str) -> None:
        assert "hunter2" not in complaint(file, f"workers: 3\n{text.format('hunter2')}\n")

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"workers: 3\nworker_id: \xe9\n", b"\x00"])
    def test_bytes_that_are_no_text(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"inferbus\.yaml is not YAML in UTF-8"):
            Settings.load({}, file)

    def test_a_byte_order_mark_is_none(self, file: Path) -> None:
        file.write_bytes("\ufeffworkers: 3\n".encode())
        assert Settings.load({}, file).workers == 3

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"cannot read .*: Is a directory"):
            Settings.load({}, tmp_path)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("65536", 65536),
            ("256 MiB", 256 * 1024**2),
            ("256MiB", 256 * 1024**2),
            ("256 mib", 256 * 1024**2),
            ("64 KiB", 65536),
            ("1.5 MiB", 1024 * 1536),
            ("1 GiB", 1024**3),
            ("100 kB", 100_000),
            ("2 MB", 2_000_000),
            ("1 GB", 1_000_000_000),
            ("70000 B", 70_000),
            ("1e6", 1_000_000),
        ],
    )
    def test_have_units(self, file: Path, text: str, size: int) -> None:
        settings = load(file, f"max_history_bytes: {text}\nmax_outbound_bytes: {text}\nretry_memory_bytes: {text}")
        assert settings.max_history_bytes == settings.max_outbound_bytes == settings.retry_memory_bytes == size

    @pytest.mark.parametrize("text", ["64 K", "1M", "MiB", "1 MiB MiB", "-1 MiB", "1,5 MiB", "lots", "1 TiBs", "1e999"])
    def test_what_is_none(self, file: Path, text: str) -> None:
        assert "must be a size such as 65536, 64 KiB or 256 MiB" in complaint(file, f"max_message_bytes: {text}")

    @pytest.mark.parametrize(
        "name", [name for name in Settings.model_fields if name.endswith("_bytes") or "_bytes_" in name]
    )
    def test_of_every_setting_in_bytes(self, name: str) -> None:
        assert getattr(Settings.load({name: "128 KiB"}), name) == 131072


class TestEffective:
    """What `--check-config` prints is a configuration file itself."""

    TEXT: Final = (
        "broker: mqtts://me@broker.example\nprojects: {a: {thinking: off, project_rate_limit: off, weight: 0.1}, b: }\n"
        "rate_limit: off\ntoken_budget: 20000/90s\nstats_interval: 1.5\nsession_ttl: 1234567s\ndelta_interval: 15ms\n"
        "max_message_bytes: 64 KiB\nmax_outbound_bytes: 70001\nreply_topics: [a/#]\nmqtt_version: 5\n"
    )

    def test_settings_survive_being_written_and_read(self, file: Path) -> None:
        import yaml  # noqa: PLC0415

        settings = load(file, self.TEXT)
        written = settings.masked()
        assert load(file, yaml.safe_dump(written)) == settings
        assert (written["token_budget"], written["rate_limit"]) == ("20000/90s", "off")
        assert (written["session_ttl"], written["max_message_bytes"]) == ("1234567s", "64 KiB")
        assert settings.token_budget == RateLimit(20000, 90)


class TestPairs:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("ack: after-reply\nsession_expiry: 500ms", "--ack after-reply needs a --session-expiry of 1s or more"),
            (
                "max_message_bytes: 2 MiB\nmax_history_bytes: 1 MiB",
                "max_history_bytes must be max_message_bytes or more",
            ),
            (
                "max_conversation_bytes: 9 MiB\nmax_intake_bytes: 17 MiB",
                "max_intake_bytes must be twice max_conversation_bytes or more",
            ),
            ("ack: after-reply\nrequest_qos: 0", "--ack after-reply needs --request-qos 1"),
            ("broker_timeout: 0", "broker_timeout: must be more than 0s and at most 3650d"),
            ("broker_timeout: 1e10", "broker_timeout: must be more than 0s and at most 3650d"),
            ("lease: 1ms", "lease: must be at least 2s and at most 1h"),
            ("max_packet_bytes: 1", "max_packet_bytes: must be at least 256 and at most 268435460"),
        ],
    )
    def test_that_cannot_be_meant_are_refused(self, file: Path, text: str, words: str) -> None:
        assert words in complaint(file, text)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({"user": "alice"}, "--user needs --identity topic"),
            ({"identity": "topic"}, "--identity topic needs a user"),
            ({"connect_timeout": "0"}, "connect_timeout: must be more than 0"),
            ({"timeout": "1e9"}, "timeout: must be more than 0s and at most 1d$"),
            ({"timeout": 1e10}, "timeout: must be more than 0s and at most 1d$"),
            ({"connect_timeout": "1e10"}, "connect_timeout: must be more than 0s and at most 1d$"),
            ({"first_timeout": -1.0}, "first_timeout: must be more than 0"),
        ],
    )
    def test_of_a_client_too(self, flags: dict[str, str], words: str) -> None:
        with pytest.raises(SettingsError, match=words):
            ClientSettings.load(flags)

    def test_no_duration_is_longer_than_a_clock(self) -> None:
        for name in (name for name, field in Settings.model_fields.items() if field.annotation is float):
            with pytest.raises(SettingsError, match=r"must be .*at most"):
                Settings.load({name: "1e10"})


class TestVariables:
    def test_that_we_name_ourselves_are_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In code, scripts, deploy/, the README and docs/: none of them must be warned of."""
        ours = [*ROOT.glob("scripts/**/*"), *ROOT.glob("deploy/**/*"), *ROOT.glob("*/inferbus_*/**/*.py")]
        texts = [path.read_text(errors="replace") for path in [*ours, *PAGES] if path.is_file()]
        named = set(re.findall(r"\bINFERBUS_[A-Z][A-Z_]*[A-Z]\b", "\n".join(texts)))
        assert "INFERBUS_QUEUE_SIZE" in named
        for name in named:
            monkeypatch.setenv(name, "x")
        assert unknown_variables((Settings, GatewaySettings)) == []
