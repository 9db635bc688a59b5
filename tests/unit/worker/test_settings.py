"""Settings: each said once; flag before environment before file before default; no secret is ever shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from inferbus_client.errors import SettingsError
from inferbus_worker.cli import serve
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings

SECRET = "hunter2-do-not-print"  # noqa: S105 - no secret of anybody's


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MQTT_{name}", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inferbus.yaml"


def load(file: Path, text: str, **flags: Any) -> Settings:
    file.write_text(text)
    return Settings.load(flags, file)


class TestDefaults:
    def test_as_documented(self) -> None:
        settings = Settings.load()
        assert settings.broker == "mqtt://127.0.0.1:1883"
        assert list(settings.projects) == ["general"]
        assert (settings.workers, settings.queue_size, settings.max_message_bytes) == (8, 1000, 65536)
        assert settings.rate_limit == RateLimit(10, 60)
        assert (settings.max_sessions, settings.session_ttl, settings.max_history_tokens) == (1000, 3600, 3000)
        assert (settings.temperature, settings.top_p, settings.max_tokens) == (0.6, 0.9, 512)
        assert (settings.reply_qos, settings.request_qos) == (0, 1)
        assert (settings.stats_interval, settings.drain_timeout, settings.broker_timeout) == (60, 30, 10)
        assert settings.delta_interval == 0.05
        assert settings.reply_topics == []


class TestPrecedence:
    def test_flag_before_environment_before_file(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "workers: 1\nqueue_size: 1\nmax_sessions: 1"
        monkeypatch.setenv("INFERBUS_WORKERS", "2")
        monkeypatch.setenv("INFERBUS_QUEUE_SIZE", "2")
        settings = load(file, text, workers="3")
        assert (settings.workers, settings.queue_size, settings.max_sessions) == (3, 2, 1)

    def test_mosquitto_s_variables_come_after_ours(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQTT_HOST", "broker.example")
        monkeypatch.setenv("MQTT_USERNAME", "theirs")
        assert load(file, "broker: mqtt://file.example\nusername: file").broker == "mqtt://broker.example:1883"
        monkeypatch.setenv("INFERBUS_USERNAME", "ours")
        assert load(file, "").username == "ours"

    def test_a_flag_s_zero_counts(self, file: Path) -> None:
        assert load(file, "temperature: 1.5", temperature=0).temperature == 0

    def test_a_zero_in_the_file_counts(self, file: Path) -> None:
        settings = load(file, "temperature: 0\nmax_history_tokens: 0\nprojects: {a: {temperature: 0}}")
        assert (settings.temperature, settings.max_history_tokens) == (0, 0)
        assert settings.projects["a"].temperature == 0


class TestRateLimit:
    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("10/60s", RateLimit(10, 60)),
            ("1/1m", RateLimit(1, 60)),
            (" 5 / 500ms ", RateLimit(5, 0.5)),
            ("2/3", RateLimit(2, 3)),
        ],
    )
    def test_is_read(self, text: str, limit: RateLimit) -> None:
        assert Settings.load({"rate_limit": text}).rate_limit == limit

    @pytest.mark.parametrize("text", ["off", "OFF", " off "])
    def test_can_be_off(self, text: str) -> None:
        assert Settings.load({"rate_limit": text}).rate_limit is None

    def test_yaml_s_off_is_a_boolean_and_means_the_same(self, file: Path) -> None:
        assert load(file, "rate_limit: off").rate_limit is None

    @pytest.mark.parametrize(
        "text", ["", "10", "0/60s", "-1/60s", "10/0s", "10/", "/60s", "ten/60s", "10/60x", "1.5/60s"]
    )
    def test_that_cannot_be_read_is_a_mistake(self, text: str) -> None:
        with pytest.raises(SettingsError, match="rate_limit"):
            Settings.load({"rate_limit": text})


class TestLimits:
    def test_are_off_by_default_but_the_session_s(self) -> None:
        settings = Settings.load()
        others = settings.client_rate_limit, settings.project_rate_limit, settings.total_rate_limit
        assert (others, settings.token_budget, settings.max_tokens_cap) == ((None, None, None), None, None)

    @pytest.mark.parametrize(
        "name", ["client_rate_limit", "project_rate_limit", "total_rate_limit", "token_budget", "rate_limit"]
    )
    def test_are_written_alike(self, name: str) -> None:
        assert getattr(Settings.load({name: "20000/1m"}), name) == RateLimit(20000, 60)
        assert getattr(Settings.load({name: "off"}), name) is None
        with pytest.raises(SettingsError, match=f"{name}: must be a number per time"):
            Settings.load({name: "fast"})

    def test_of_a_project(self, file: Path) -> None:
        text = "projects: {a: {project_rate_limit: 5/1s}, b: {project_rate_limit: off}, c: }\nproject_rate_limit: 9/1s"
        settings = load(file, text)
        found = {name: settings.project_rate_limit_of(name) for name in settings.projects}
        assert found == {"a": RateLimit(5, 1), "b": None, "c": RateLimit(9, 1)}

    def test_the_cap_holds_for_the_default_too(self, file: Path) -> None:
        text = (
            "projects: {a: , b: {max_tokens: 300}, c: {max_tokens_cap: 50}, d: {max_tokens_cap: 400, max_tokens: 500}}"
        )
        settings = load(file, f"{text}\nmax_tokens_cap: 100")
        assert {name: settings.max_tokens_cap_of(name) for name in "abcd"} == {"a": 100, "b": 100, "c": 50, "d": 400}
        assert {name: settings.max_tokens_of(name) for name in "abcd"} == {"a": 100, "b": 100, "c": 50, "d": 400}

    def test_without_a_cap(self, file: Path) -> None:
        settings = load(file, "projects: {a: , b: {max_tokens: 300}}")
        assert [settings.max_tokens_of(name) for name in "ab"] == [512, 300]
        assert [settings.max_tokens_cap_of(name) for name in "ab"] == [None, None]

    @pytest.mark.parametrize(
        "text",
        [
            "token_budget: 3512/60s",
            "token_budget: 500/60s\nmax_history_tokens: 0",
            "token_budget: 4000/60s\nprojects: {a: , b: {max_tokens: 1000}}",
        ],
    )
    def test_a_token_budget_that_no_long_conversation_could_keep(self, file: Path, text: str) -> None:
        with pytest.raises(SettingsError, match="must be more than max_history_tokens and max_tokens together"):
            load(file, text)

    def test_the_cap_makes_a_small_token_budget_possible(self, file: Path) -> None:
        settings = load(file, "token_budget: 500/60s\nmax_history_tokens: 300\nmax_tokens_cap: 100")
        assert settings.token_budget == RateLimit(500, 60)


class TestProjects:
    def test_names(self) -> None:
        assert list(Settings.load({"projects": ("a", "b")}).projects) == ["a", "b"]

    def test_a_file_says_more_about_them(self, file: Path) -> None:
        text = "projects:\n  a: {system_prompt: Be brief., priority: 2, weight: 0.5, max_tokens: 9}\n  b:\n"
        projects = load(file, text).projects
        assert (projects["a"].system_prompt, projects["a"].priority, projects["a"].weight) == ("Be brief.", 2, 0.5)
        assert projects["b"].priority == 0

    @pytest.mark.parametrize("name", ["a/b", "#", "+", "$SYS", "x" * 65, "a b", ""])
    def test_with_a_name_that_is_none(self, name: str) -> None:
        with pytest.raises(SettingsError, match="projects"):
            Settings.load({"projects": (name,)})

    @pytest.mark.parametrize(
        "text",
        [
            "weight: 0",
            "weight: -1",
            "temperature: 3",
            "colour: red",
            "max_tokens: 0",
            "max_tokens_cap: 0",
            "project_rate_limit: fast",
        ],
    )
    def test_with_settings_that_are_none(self, file: Path, text: str) -> None:
        with pytest.raises(SettingsError):
            load(file, f"projects: {{a: {{{text}}}}}")


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("wrokers: 3", "there is no setting wrokers"),
            ("workers: 0", "workers"),
            ("workers: many", "workers"),
            ("- a", "must hold a mapping"),
            ("a: [", "is not YAML"),
            ("session_ttl: soon", "duration"),
            ("reply_qos: 2", "reply_qos"),
            ("broker: http://x", "must start with mqtt://"),
        ],
    )
    def test_in_the_file_are_said_in_one_sentence(self, file: Path, text: str, words: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(file, text)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, file: Path) -> None:
        with pytest.raises(SettingsError, match="cannot read"):
            Settings.load({}, file)

    @pytest.mark.parametrize("flag", [["--workers", "0"], ["--rate-limit", "fast"], ["--project", "a/b"]])
    def test_on_the_command_line(self, flag: list[str]) -> None:
        result = CliRunner().invoke(serve, ["--engine", "simulated", *flag])
        assert isinstance(result.exception, SettingsError)


class TestSecrets:
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setenv("INFERBUS_PASSWORD", SECRET)
        return Settings.load({"broker": "mqtt://alice@127.0.0.1"})

    def test_reach_the_link(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.settings(monkeypatch).link_options("id").password == SECRET

    def test_reach_no_print_of_the_settings(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = self.settings(monkeypatch)
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("test").warning("%s %r %s", settings, settings.link_options("id"), settings.masked())
        shown = [repr(settings), str(settings), str(settings.masked()), settings.model_dump_json(), caplog.text]
        assert not any(SECRET in text for text in shown)

    @pytest.mark.parametrize("place", ["https://alice:{}@gpu2/ollama", "http://gpu2:11434/?key={}"])
    def test_in_a_servers_address_reach_no_print_of_the_settings(self, place: str) -> None:
        url = place.format(SECRET)
        models = {"phi": {"slots": [{"backend": "ollama", "url": url}]}, "gpt": {"backend": "openai", "url": url}}
        for said in ({"models": models, "projects": {"p": {"model": "phi"}}}, {"backend": "ollama", "url": url}):
            settings = Settings.model_validate(said)
            assert SECRET not in str(settings.masked()) + settings.model_dump_json()
            assert "gpu2" in str(settings.masked())

    def test_reach_no_help(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERBUS_PASSWORD", SECRET)
        text = CliRunner().invoke(serve, ["--help"]).output
        assert SECRET not in text
        assert "--password " not in text
        assert "--password-file" in text

    def test_from_a_file_of_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "password"
        path.write_text(f"{SECRET}\n")
        settings = Settings.load({"username": "ann", "password_file": str(path)})
        assert settings.link_options("id").password == SECRET
        assert SECRET not in repr(settings)

    def test_a_password_in_the_url_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings.load({"broker": f"mqtt://alice:{SECRET}@127.0.0.1"})
        assert SECRET not in str(caught.value)
        assert "must not hold a password" in str(caught.value)

    def test_a_password_in_a_file_that_is_wrong_is_not_repeated(self, file: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            load(file, f"password: [{SECRET}]")
        assert SECRET not in str(caught.value)
