"""Positions that can be stored: where a subscription is, and a file to keep it in."""

import asyncio
import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from protos.notification.v1 import notification_pb2 as npb


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the notifications log: everything up to and with `sequence` is behind it.

    `token` is the server's own mark of a place at or before `sequence`: with it a log that was
    recreated, restored or rewound is noticed. Empty: a plain number, not checked.
    `str(position)` can be stored, `Position.parse` reads it back.
    """

    token: bytes
    sequence: int

    def __str__(self) -> str:
        return f"{base64.urlsafe_b64encode(self.token).decode()}@{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """The position of a text; ValueError where it is none. A bare number is a sequence."""
        token, at, sequence = text.rpartition("@")
        if not sequence.isdecimal():
            raise ValueError(f"not a position: {text!r}")
        return cls(base64.b64decode(token, altchars=b"-_", validate=True) if at else b"", int(sequence))

    def to_proto(self) -> npb.Position:
        """The wire form: the token where there is one."""
        return npb.Position(token=self.token) if self.token else npb.Position(sequence=self.sequence)


class PositionStore(Protocol):
    """Keeps the position of each subscription, by its name."""

    async def load(self, subscription: str) -> Position | None:
        """The stored position; None where there is none yet."""

    async def save(self, subscription: str, position: Position) -> None:
        """Store a position; durable when this returns."""


class FilePositionStore:
    """Positions in one small JSON file, replaced atomically: after a crash it holds the last or the
    one before, never half of one. One process a file. Raises ValueError for a file that is not one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._positions: dict[str, str] | None = None
        self._writing = asyncio.Lock()

    async def load(self, subscription: str) -> Position | None:
        text = (await self._load()).get(subscription)
        return None if text is None else Position.parse(text)

    async def save(self, subscription: str, position: Position) -> None:
        async with self._writing:
            positions = await self._load()
            positions[subscription] = str(position)
            await asyncio.to_thread(self._replace, json.dumps(positions, indent=1))

    async def _load(self) -> dict[str, str]:
        if self._positions is None:
            self._positions = await asyncio.to_thread(self._read)
        return self._positions

    def _read(self) -> dict[str, str]:
        try:
            positions = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(f"{self._path} holds no positions: {error}") from error
        if not isinstance(positions, dict) or not all(isinstance(p, str) for p in positions.values()):
            raise ValueError(f"{self._path} holds no positions")
        return positions

    def _replace(self, text: str) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
