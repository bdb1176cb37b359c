"""`signpost listen`: stays connected and prints what is published; live rates and lag on a terminal."""

import asyncio
import getpass
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from signpost.cli.errors import trying_on
from signpost.cli.output import (
    Json,
    clock_time,
    console,
    note,
    notification_json,
    notification_text,
    seconds,
    to_json,
    wants_json,
)
from signpost.cli.session import Session
from signpost.cli.values import parse_start
from signpost.client import Gap, Notification, State, StateChange

REFRESH_S = 0.1
_SHOWN_A_REFRESH = 20
_RATE_OVER_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(listen)


def listen(
    context: typer.Context,
    *,
    filter: Annotated[
        str,
        typer.Argument(metavar="FILTER", help="Topics, as in demo.hello, 'demo.*' (one token), 'demo.>' (the rest)."),
    ],
    start: Annotated[
        Any,
        typer.Option(
            "--from",
            metavar="WHERE",
            parser=parse_start,
            help="new, earliest, last (of each topic, then new), a sequence (what comes after it), or a time: 2h ago, "
            "2026-01-31T12:00. Default: new, or where --durable left off.",
        ),
    ] = None,
    group: Annotated[
        str, typer.Option(metavar="NAME", help="Share the records with whoever names the same group.")
    ] = "",
    durable: Annotated[str, typer.Option(metavar="NAME", help="Go on next time where this name left off.")] = "",
    client_id: Annotated[
        str, typer.Option(envvar="SIGNPOST_CLIENT_ID", metavar="ID", help="Be seen under this id by signpost who.")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: go on until Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """Print what is published, for as long as it runs."""
    if durable and not client_id:
        # A cursor belongs to a client id; two terminals with different names must not fence each other.
        client_id = f"signpost-{getpass.getuser()}-{socket.gethostname()}-{durable}"
    screen: Screen = JsonScreen() if wants_json(json) else TerminalScreen(console())
    wanted = {
        "filter": filter,
        "start": start,
        "group": group,
        "durable": durable,
        "on_gap": screen.gap,
        "ack": "manual",
    }
    try:
        asyncio.run(_listen(context.obj, screen, limit, client_id, wanted))
    finally:
        screen.close()


async def _listen(session: Session, screen: "Screen", limit: int, client_id: str, options: dict[str, Any]) -> None:
    async with session.notifications(screen.state, client_id=client_id) as client:
        screen.begin()
        refreshing = asyncio.create_task(_refresh(screen))
        left = limit
        try:
            async with client.subscribe(**options) as subscription:
                async for batch in subscription.batches():
                    records = batch[:left] if limit and left <= len(batch) else batch
                    screen.show(records)
                    # What is not printed is not handled: the next one with this name or group gets it.
                    subscription.ack(*records)
                    left -= len(records)
                    if limit and not left:
                        return
        finally:
            refreshing.cancel()


async def _refresh(screen: "Screen") -> None:
    while True:
        screen.refresh()
        await asyncio.sleep(REFRESH_S)


class Screen:
    """Where records go. What the connection does is remarked on stderr."""

    def begin(self) -> None:
        """Before the first record."""

    def refresh(self) -> None:
        """Every REFRESH_S."""

    def show(self, records: Sequence[Notification]) -> None:
        """Some records, in order."""
        raise NotImplementedError

    def gap(self, gap: Gap) -> None:
        """Records may be missing before the next one."""
        note(f"records may be missing before sequence {gap.first_available}: {gap.error.message}")

    def state(self, change: StateChange) -> None:
        """The connection's state changed."""
        if change.state is State.RECONNECTING:
            note(trying_on(change.error))

    def close(self) -> None:
        """After the last record."""


class JsonScreen(Screen):
    """A line of JSON for each record."""

    def show(self, records: Sequence[Notification]) -> None:
        sys.stdout.write("".join(to_json(notification_json(item)) + "\n" for item in records))
        sys.stdout.flush()


class TerminalScreen(Screen):
    """A line for each record, and under them one that is kept up to date: count, rate, lag, state.

    Where more records come than anybody can read, the newest of each refresh are shown and the others counted.
    """

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._waiting: deque[Notification] = deque(maxlen=_SHOWN_A_REFRESH)
        self._unshown = self._count = 0
        self._lag_s: float | None = None
        self._state = State.CONNECTING
        self._drawn = time.monotonic()
        self._counts: deque[tuple[float, int]] = deque([(self._drawn, 0)])
        self._live = Live(console=terminal, auto_refresh=False, transient=True)

    def begin(self) -> None:
        self._live.start()

    def state(self, change: StateChange) -> None:
        self._state = change.state
        super().state(change)

    def show(self, records: Sequence[Notification]) -> None:
        self._count += len(records)
        self._unshown += len(records)
        self._waiting.extend(records[-_SHOWN_A_REFRESH:])
        self._lag_s = time.time() - records[-1].time_ns / 1e9
        if time.monotonic() - self._drawn >= REFRESH_S:
            self.refresh()

    def refresh(self) -> None:
        self._print_waiting()
        now = self._drawn = time.monotonic()
        self._counts.append((now, self._count))
        while now - self._counts[0][0] > _RATE_OVER_S:
            self._counts.popleft()
        since, before = self._counts[0]
        rate = (self._count - before) / max(now - since, REFRESH_S)
        lag = "" if self._lag_s is None else f" · lag {seconds(self._lag_s)}"
        line = f"{self._count:,} received · {rate:,.0f}/s{lag} · {self._state.value} · Ctrl-C ends"
        self._live.update(Text(line, style="dim"), refresh=True)

    def close(self) -> None:
        self._print_waiting()
        self._live.stop()

    def _print_waiting(self) -> None:
        records, hidden = list(self._waiting), self._unshown - len(self._waiting)
        self._waiting.clear()
        self._unshown = 0
        lines = [Text(f"… {hidden:,} more", style="dim")] if hidden > 0 else []
        lines += [
            Text.assemble((clock_time(item.time_ns), "dim"), " ", (item.topic, "bold"), " ", notification_text(item))
            for item in records
        ]
        if lines:
            self._terminal.print(Group(*lines))
