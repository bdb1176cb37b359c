"""Positions and the file that keeps them."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signpost.client.positions import FilePositionStore, Position


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1))
def test_a_position_can_be_stored_as_text(token: bytes, sequence: int) -> None:
    position = Position(token, sequence)
    assert Position.parse(str(position)) == position


def test_a_bare_number_is_a_sequence_and_nonsense_is_refused() -> None:
    assert Position.parse("17") == Position(b"", 17)
    assert Position(b"", 17).to_proto().sequence == 17
    assert Position(b"t", 17).to_proto().token == b"t"
    for text in ("", "x", "@", "!!@5", "abc@-1"):
        with pytest.raises(ValueError, match=r"."):
            Position.parse(text)


async def test_a_file_keeps_them_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    store = FilePositionStore(path)
    assert await store.load("a") is None
    await store.save("a", Position(b"x", 1))
    await store.save("b", Position(b"y", 2))
    await store.save("a", Position(b"z", 3))
    again = FilePositionStore(path)
    assert await again.load("a") == Position(b"z", 3)
    assert await again.load("b") == Position(b"y", 2)
    assert os.listdir(tmp_path) == ["positions.json"]


@pytest.mark.parametrize("text", ["half of a f", "[]", json.dumps({"a": 1})])
async def test_a_file_that_is_not_one_is_refused_and_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "positions.json"
    await asyncio.to_thread(path.write_text, text)
    with pytest.raises(ValueError, match=r"positions.json holds no positions"):
        await FilePositionStore(path).load("a")
    assert await asyncio.to_thread(path.read_text) == text
