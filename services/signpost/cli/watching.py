"""`signpost watch`: an area as it changes; a table that updates itself on a terminal."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from signpost.cli.errors import trying_on
from signpost.cli.features import Collection, Where
from signpost.cli.output import (
    Json,
    console,
    iso_time,
    note,
    print_json,
    printable,
    properties_text,
    table,
    to_geojson,
    wants_json,
)
from signpost.cli.session import Session
from signpost.cli.values import area_of, parse_box, parse_distance, parse_place
from signpost.client import Area, EventKind, Feature, State, StateChange, Watch, WatchEvent

_REFRESH_S = 0.2
_FRESH_S = 3.0

Near = Annotated[
    Any, typer.Option(metavar="LAT,LON", parser=parse_place, help="The centre, in degrees, latitude first.")
]
Radius = Annotated[Any, typer.Option(metavar="DISTANCE", parser=parse_distance, help="Around --near, as in 5km.")]
BoxOption = Annotated[
    Any, typer.Option("--box", metavar="W,S,E,N", parser=parse_box, help="Instead: a box in degrees, as in GeoJSON.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


def watch(
    context: typer.Context,
    *,
    near: Near = None,
    radius: Radius = None,
    box: BoxOption = None,
    where: Where = None,
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """What enters, moves in and leaves an area, for as long as it runs."""
    area = area_of(near, radius, box)
    if area is None:
        raise typer.BadParameter("say where: --near LAT,LON --radius DISTANCE, or --box W,S,E,N")
    asyncio.run(_watch(context.obj, area, where or [], collection, wants_json(json)))


async def _watch(session: Session, area: Area, where: list[Any], collection: str, json: bool) -> None:
    async with session.features(_remark) as client:
        watched = client.watch(area, filters=where, collection=collection)
        if json:
            async for event in watched:
                print_json(event_json(event))
        else:
            await _show(watched)


async def _show(watched: Watch) -> None:
    """Keep a table on the terminal until cancelled."""
    picture = Picture(watched)
    terminal = console()
    with Live(console=terminal, auto_refresh=False, transient=False) as live:

        async def refresh() -> None:
            while True:
                live.update(picture.draw(max(3, terminal.height - 4)), refresh=True)
                await asyncio.sleep(_REFRESH_S)

        refreshing = asyncio.create_task(refresh())
        try:
            async for events in watched.batches():
                picture.see(events)
        finally:
            refreshing.cancel()


class Picture:
    """The set as a table, what changed last on top, and counts of what happened."""

    def __init__(self, watched: Watch) -> None:
        self._watched = watched
        self._counts: Counter[EventKind] = Counter()
        self._changed: dict[str, tuple[float, EventKind]] = {}
        self._complete = False

    def see(self, events: Sequence[WatchEvent]) -> None:
        """Take note of what happened."""
        now = time.monotonic()
        for event in events:
            if event.feature is None:
                self._complete = True
                continue
            id = event.feature.id
            self._changed.pop(id, None)
            if event.kind is not EventKind.LEFT:
                self._changed[id] = (now, event.kind)
            if self._complete:
                self._counts[event.kind] += 1

    def draw(self, height: int) -> Group:
        """At most `height` rows."""
        features = self._watched.features
        rows = table("", "name", "id", "place", "properties", whole=["", "id", "place"])
        now = time.monotonic()
        ids = [id for id in reversed(self._changed) if id in features][:height]
        for id in ids:
            when, kind = self._changed[id]
            fresh = self._complete and now - when < _FRESH_S
            feature = features[id]
            place = f"{feature.latitude:.4f},{feature.longitude:.4f}"
            text = properties_text(feature.properties)
            rows.add_row(
                kind.value if fresh else "",
                printable(feature.name),
                printable(id),
                place,
                text,
                style="bold green" if fresh else None,
            )
        hidden = len(features) - len(ids)
        state = "" if self._complete else " · loading"
        counts = " · ".join(
            f"{self._counts[kind]:,} {kind.value}" for kind in EventKind if kind is not EventKind.CAUGHT_UP
        )
        more = f" ({hidden:,} not shown)" if hidden > 0 else ""
        footer = f"{len(features):,} inside{more} · {counts} · {self._watched.status.state.value}{state} · Ctrl-C ends"
        return Group(rows, Text(footer, style="dim"))


def event_json(event: WatchEvent) -> dict[str, Any]:
    """An event as one object."""
    made: dict[str, Any] = {"event": event.kind.value}
    if event.reason is not None:
        made["reason"] = event.reason.value
    if event.feature is not None:
        made["time"] = iso_time(event.change_time_ns)
        made["feature"] = to_geojson(Feature.from_message(event.feature.message, event.sequence))
    return made


def _remark(change: StateChange) -> None:
    if change.state is State.RECONNECTING:
        note(trying_on(change.error))
