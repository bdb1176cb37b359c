"""Settings come from flags, then the environment, then defaults."""

from pathlib import Path

import pytest
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.server import ServerSettings, load_settings


def load(*argv: str) -> ServerSettings:
    return load_settings(ServerSettings, argv, program="test")


def test_defaults() -> None:
    settings = load()
    assert settings.max_message_bytes == 4 * 1024 * 1024
    assert settings.compression == "none"
    assert settings.log_url == f"sqlite:///{Path('data/signpost.db').absolute()}"
    assert settings.engine_settings() is None


def test_every_setting_has_a_variable_and_a_flag_and_the_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNPOST_LISTEN", "localhost:1, 0.0.0.0:2")
    monkeypatch.setenv("SIGNPOST_DRAIN_S", "3.5")
    monkeypatch.setenv("SIGNPOST_NATS_REPLICAS", "3")
    settings = load("--drain-s", "4", "--listen=a:1", "--listen=b:2")
    assert settings.drain_s == 4
    assert settings.listen == ("a:1", "b:2")
    assert settings.nats_replicas == 3
    assert load().listen == ("localhost:1", "0.0.0.0:2")


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNPOST_LOG", "")
    assert load().log is None


def test_what_nats_is_told() -> None:
    engine = load(
        "--log=nats://localhost:4222", "--nats-prefix=test", "--nats-replicas=5", "--nats-credentials-file=/a.creds"
    ).engine_settings()
    assert isinstance(engine, JetStreamSettings)
    assert (engine.prefix, engine.replicas, engine.credentials_file) == ("test", 5, Path("/a.creds"))


def test_metrics_can_be_off() -> None:
    assert load("--metrics-listen=off").metrics_listen == ()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--max-message-bytes=1", "SIGNPOST_MAX_MESSAGE_BYTES"),
        ("--nats-replicas=2", "1, 3 or 5"),
        ("--nats-replicas=many", "SIGNPOST_NATS_REPLICAS"),
        ("--listen=[::1", "SIGNPOST_LISTEN"),
        ("--nats-prefix=a.b", "SIGNPOST_NATS_PREFIX"),
        ("--bogus", "--bogus"),
    ],
)
def test_a_wrong_setting_exits_with_2_and_one_line(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        load(argument)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("test: ")
    assert said in line


def test_two_wrong_settings_are_both_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("--drain-s=-1", "--stop-s=x")
    (line,) = capsys.readouterr().err.splitlines()
    assert "SIGNPOST_DRAIN_S" in line
    assert "SIGNPOST_STOP_S" in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://user:secret@a:4222,user:secret@b:4222", "nats://a:4222,b:4222"),
        ("nats://token@a:4222,nats://token@b:4222", "nats://a:4222,nats://b:4222"),
        ("nats://a:4222", "nats://a:4222"),
        ("sqlite:////var/a@b/c.db", "sqlite:////var/a@b/c.db"),
    ],
)
def test_a_log_is_named_without_its_password(url: str, shown: str) -> None:
    assert load(f"--log={url}").log_name == shown
