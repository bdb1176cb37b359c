"""Fences by the command, with both services: a movement in one is heard from the other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Signpost
from tests.support.services import ServiceProcess


@pytest.fixture(scope="module")
def signpost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signpost]:
    directory: Path = tmp_path_factory.mktemp("fences")
    notification = ServiceProcess("notification_service", directory / "n")
    feature = ServiceProcess("feature_service", directory / "f", env={"SIGNPOST_NOTIFICATION": notification.target})
    try:
        asyncio.run(notification.start())
        asyncio.run(feature.start())
        yield Signpost(feature.target, notification.target)
    finally:
        feature.kill()
        notification.kill()


def test_a_movement_through_a_fence_is_heard(signpost: Signpost) -> None:
    (fence,) = signpost("fence", "put", "yard", "--near", "1,1", "--radius", "5km", "--events", "entered,left,inside")
    assert (fence["topic"], fence["revision"]) == ("fence.yard", "1")
    with signpost.on_terminal("listen", "fence.>", "--from", "earliest") as terminal:
        signpost("put", "van", "1,1", "--name", "Van 1")
        signpost("put", "van", "1.001,1", "--name", "Van 1")
        signpost("put", "van", "2,2", "--name", "Van 1")
        terminal.until("Van 1 (van) left yard at 2,2")
        assert "Van 1 (van) entered yard at 1,1" in terminal.seen
        assert "Van 1 (van) inside yard at 1.001,1" in terminal.seen
    heard = signpost("listen", "fence.yard", "--from", "earliest", "--limit", "3")
    assert [item["fence_event"]["event"] for item in heard] == ["entered", "inside", "left"]
    assert heard[0]["fence_event"]["feature"]["geometry"]["coordinates"] == [1.0, 1.0]


def test_fences_are_listed_and_deleted(signpost: Signpost) -> None:
    signpost(
        "fence", "put", "box", "--box", "170,-10,-170,10", "--events", "dwelled", "--dwell", "5m", "--topic", "a.b"
    )
    listed = {fence["id"]: fence for fence in signpost("fence", "list")}
    assert listed["box"]["dwell_time_ms"] == "300000"
    assert listed["box"]["topic"] == "a.b"
    with signpost.on_terminal("fence", "list") as terminal:
        assert terminal.until_end() == 0
    assert "box 170,-10,-170,10" in terminal.seen
    assert "5 min" in terminal.seen
    signpost("fence", "delete", "box")
    assert "box" not in {fence["id"] for fence in signpost("fence", "list")}
    assert "there is no fence box" in signpost.fails("fence", "delete", "box")
