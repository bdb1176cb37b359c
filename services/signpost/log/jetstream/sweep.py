"""Tombstones die at the horizon: the mirror would keep them for ever."""

import asyncio
import logging
from collections.abc import Callable

from signpost.errors import LogUnavailable
from signpost.log.jetstream import streams
from signpost.log.jetstream.connection import Connection, Link
from signpost.log.jetstream.cursors import Cursors
from signpost.log.jetstream.streams import Names, StreamState
from signpost.log.jetstream.tasks import keep_running, stop

_log = logging.getLogger(__name__)
_PAGE_RECORDS = 1000
_PAGE_BYTES = 4 * 1024 * 1024
_MIN_INTERVAL_S = 0.5
_MAX_INTERVAL_S = 30.0  # so late, at the latest, is it told that a mirror is gone which nobody reads


def interval_s(max_age_s: float | None) -> float:
    """How often to sweep: a tenth of the history, within bounds."""
    return min(max((max_age_s or _MAX_INTERVAL_S * 10) / 10, _MIN_INTERVAL_S), _MAX_INTERVAL_S)


class Sweeper:
    """Deletes from the mirror each tombstone that the stream has aged out. Every replica sweeps: what
    another has deleted, or a later record replaced, is not there any more. `meet` is shown the mirror, or that
    there is none, and says whether it may be swept.

    At each sweep it looks whether the stream let go of records that the mirror, which had copied up to `copied`, may
    not have had by then: a mirror that comes late goes on after them, and looks as if it had them.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        cursors: Cursors,
        *,
        max_age_s: float | None,
        copied: int,
        meet: Callable[[StreamState | None], bool],
    ) -> None:
        self._connection, self._names, self._cursors = connection, names, cursors
        self._meet, self._copied = meet, copied
        self._interval_s = interval_s(max_age_s)
        self._through = 0
        self._task = keep_running(self._run, f"sweep {names.mirror}")

    def start_over(self, copied: int) -> None:
        """The streams are new: begin at their beginning."""
        self._through, self._copied = 0, copied

    async def close(self) -> None:
        """Stop."""
        await stop(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._sweep(await self._connection.wait_link())
            except LogUnavailable as error:
                _log.info("sweeping %s goes on later: %s", self._names.mirror, error)

    async def _sweep(self, link: Link) -> None:
        mirror = await streams.state(link, self._names.mirror)  # first: what it has it had when the stream is asked
        state = await streams.state(link, self._names.stream)
        if not self._meet(mirror) or state is None or mirror is None:
            return
        if self._copied < state.first - 1:
            # It waited for its stream's leader, or was cut off, for longer than the history; or this process was.
            text = "stream %s has let go of records up to %d, of which its mirror was seen with those up to %d: "
            text += "the last of some subjects may be lost"
            _log.error(text, self._names.stream, state.first - 1, self._copied)
        self._copied = mirror.last
        through = min(state.first - 1, mirror.last)
        while self._through < through:
            chunk = await self._cursors.fetch(
                link, self._names.mirror, None, self._through, limit=_PAGE_RECORDS, max_bytes=_PAGE_BYTES
            )
            for record in chunk.records:
                if record.tombstone and record.sequence <= through:
                    await self._delete(link, record.sequence)
            last = chunk.records[-1].sequence if chunk.records and not chunk.at_end else through
            self._through = min(last, through)

    async def _delete(self, link: Link, sequence: int) -> None:
        # By its sequence: a purge of its subject searches the whole stream (tens of milliseconds in a large one).
        body = {"seq": sequence, "no_erase": True}
        answer = await link.api(f"STREAM.MSG.DELETE.{self._names.mirror}", body)
        if answer.get("error", {}).get("code", 0) == 503:
            raise LogUnavailable(f"stream {self._names.mirror}: {answer['error'].get('description', '')}")
