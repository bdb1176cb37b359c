"""`make run` keeps to its own two services, whatever else there is on the machine or in the environment."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from signpost.cli.dev import FEATURE, NOTIFICATION, Service, load


def test_an_address_at_which_somebody_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"localhost:{listener.getsockname()[1]}"
        assert Service("m", "n", taken, "localhost:1").taken() == taken
        assert Service("m", "n", "localhost:1", taken).taken() == taken
    assert Service("m", "n", "localhost:1", "localhost:1").taken() == ""


async def test_services_and_import_are_not_told_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    for name in ("python", "signpost"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$SIGNPOST_FEATURE $SIGNPOST_NOTIFICATION" >>"{seen}"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("SIGNPOST_FEATURE", "production:50051")
    monkeypatch.setenv("SIGNPOST_NOTIFICATION", "production:50052")
    await load(tmp_path / "places")
    process = await FEATURE.start(tmp_path)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert seen.read_text().splitlines() == [f"{FEATURE.listen} {NOTIFICATION.listen}"] * 2
