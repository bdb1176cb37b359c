"""`signpost log` on the logs of running services, both engines."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Signpost
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess


@pytest.fixture
def service(tmp_path: Path, log: str | None) -> Iterator[ServiceProcess]:
    service = ServiceProcess("feature_service", tmp_path, log=log)
    try:
        asyncio.run(service.start())
        yield service
    finally:
        service.kill()


@pytest.fixture(params=["sqlite", pytest.param("nats", marks=pytest.mark.long)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The log's URL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'feature.db'}"
        return
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.mark.long
def test_backup_restore_and_info_while_the_service_runs(service: ServiceProcess, log: str, tmp_path: Path) -> None:
    signpost = Signpost(service.target, "127.0.0.1:1")
    signpost("put", "a", "1,1", "--name", "first")
    file = tmp_path / "backup.db"
    (made,) = signpost("log", "backup", log, str(file))
    features = {line["log"]: line for line in signpost("log", "info", str(file))}["features"]
    assert (features["records"], features["subjects"], features["last"]) == (1, 1, 1)
    assert made["records"] >= 1

    signpost("put", "a", "2,2", "--name", "second")
    signpost("put", "b", "3,3")
    (restored,) = signpost("log", "restore", log, str(file))
    assert restored["records"] == made["records"]
    assert [item["properties"]["name"] for item in _until(signpost, ["a"])] == ["first"]
    now = {line["log"]: line for line in signpost("log", "info", log)}["features"]
    assert (now["records"], now["last"]) == (1, 1)


def _until(signpost: Signpost, ids: list[str]) -> list[dict[str, dict[str, str]]]:
    """What near answers, once it is these: the service takes the restored log up by itself."""
    for _ in range(20):
        found = signpost("near", "0,0")
        if [item["id"] for item in found] == ids:
            return found
    raise AssertionError(f"still there: {found}")


def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path) -> None:
    signpost = Signpost("127.0.0.1:1", "127.0.0.1:1")
    foreign = tmp_path / "foreign.db"
    foreign.write_text("not a log")
    assert str(foreign) in signpost.fails("log", "info", str(foreign))
    assert str(foreign) in signpost.fails("log", "restore", f"sqlite:///{tmp_path}/new.db", str(foreign))
    assert "does not exist" in signpost.fails("log", "backup", f"sqlite:///{tmp_path}/none.db", str(tmp_path / "b"))
    assert foreign.read_text() == "not a log"
