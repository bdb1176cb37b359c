"""Durable cursors: how far a client has handled a subscription, kept in the state log.

An acknowledged place survives restarts and is there on every replica. Acknowledgements are cumulative
and never go back; several that come in a short time become one write, so the last of them may be lost
with the process: then those records are delivered once more, never too few.
"""

import asyncio
from collections.abc import Callable

from signpost.errors import (
    InvalidArgument,
    PositionAhead,
    PositionError,
    SignpostError,
    StaleSequence,
    Unavailable,
)
from signpost.log import positions
from signpost.log.base import Append, Log
from signpost.log.subjects import encode_token

from protos.notification.v1 import notification_pb2 as pb
from protos.storage.v1.storage_pb2 import CursorRecord

WRITE_INTERVAL_S = 0.1
FORMAT = 1


def cursor_key(client_id: str, subscription: str) -> str:
    """The cursor's subject in the state log."""
    return f"cursor.{encode_token(client_id)}.{encode_token(subscription)}"


class Cursor:
    """One client's cursor of one subscription. Made by `open`, closed by `close`, which writes what waits."""

    def __init__(self, state: Log, log: Log, key: str, refused: Callable[[SignpostError], None]) -> None:
        self._state = state
        self._log = log
        self._key = key
        self._refused = refused
        self._stored_at = 0
        self._waiting: pb.Position | None = None
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._epoch = b""
        self.position = b""
        self.sequence = 0

    @classmethod
    async def open(cls, state: Log, log: Log, key: str, refused: Callable[[SignpostError], None]) -> "Cursor":
        """The cursor as it stands; `refused` is told of acknowledgements that are no place in the log."""
        cursor = cls(state, log, key, refused)
        await cursor._load()
        return cursor

    async def begin(self, position: bytes, sequence: int) -> None:
        """Make it, where there is none yet, at the place where the subscription starts."""
        if not self.position:
            await self._store(position, sequence)

    def ack(self, position: pb.Position) -> None:
        """Everything up to here is handled. Written soon, once for many: the furthest of them."""
        if self._waiting is None or not self._is_behind(position, self._waiting):
            self._waiting = position
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def forget(self) -> None:
        """Remove it; acknowledgements that wait are dropped."""
        self._waiting = None
        await self.close()
        await self._state.append(Append(self._key, b"", tombstone=True))

    async def close(self) -> None:
        """Return once what was acknowledged is written, or cannot be."""
        self._hurry.set()
        if self._writer is not None:
            await asyncio.wait((self._writer,))
        self._hurry.clear()

    async def _load(self) -> None:
        record = await self._state.last(self._key)
        self.position, self.sequence, self._epoch, self._stored_at = b"", 0, b"", 0
        if record is not None and not record.tombstone:
            stored = CursorRecord.FromString(record.payload)
            self.position, self.sequence, self._epoch = stored.position, stored.sequence, stored.epoch
            self._stored_at = record.sequence

    async def _write(self) -> None:
        try:
            while (position := self._waiting) is not None:
                self._waiting = None
                try:
                    await self._store(*await self._settle(position))
                except Unavailable as error:
                    self._waiting = self._waiting or position
                    await asyncio.sleep(error.retry_after_s or 1.0)
                except PositionError as error:
                    # Retention, or a log made anew, has overtaken the acknowledgement: the subscription is told
                    # by a gap, and the cursor moves with what is acknowledged after it.
                    if position.WhichOneof("position") == "sequence":
                        self._refused(error)
                except SignpostError as error:
                    self._refused(error)
                await self._pause()
        finally:
            self._writer = None

    async def _pause(self) -> None:
        """Let acknowledgements gather, unless somebody waits for them to be written."""
        try:
            async with asyncio.timeout(WRITE_INTERVAL_S):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _is_behind(self, position: pb.Position, other: pb.Position) -> bool:
        """Whether the other one, a place that the log may have, says this one too."""
        try:
            (epoch, sequence), (other_epoch, further) = self._place(position), self._place(other)
        except InvalidArgument:  # it is settled, and refused, by itself
            return False
        return epoch == other_epoch and sequence <= further <= self._log.head

    def _place(self, position: pb.Position) -> tuple[bytes, int]:
        if position.WhichOneof("position") == "token":
            return positions.decode(position.token)[:2]
        return self._log.epoch, position.sequence

    async def _settle(self, position: pb.Position) -> tuple[bytes, int]:
        if position.WhichOneof("position") == "token":
            try:
                return position.token, await self._log.resolve(position.token)
            except InvalidArgument as error:
                raise error.within("through") from None
        # What another replica has delivered this one may not have seen yet.
        if position.sequence > self._log.head and position.sequence > (last := (await self._log.bounds()).last):
            raise PositionAhead(f"{position.sequence} is beyond the head of the log", first_available=last + 1)
        return await self._log.position(position.sequence), position.sequence

    async def _store(self, position: bytes, sequence: int) -> None:
        """Compare and set; another stream of the same client may have been faster, and further."""
        epoch = self._log.epoch
        record = CursorRecord(format=FORMAT, position=position, sequence=sequence, epoch=epoch).SerializeToString()
        while epoch != self._epoch or sequence > self.sequence:
            try:
                appended = await self._state.append(Append(self._key, record, expected_sequence=self._stored_at))
            except StaleSequence:
                await self._load()
                continue
            self.position, self.sequence, self._epoch = position, sequence, epoch
            self._stored_at = appended.sequence
