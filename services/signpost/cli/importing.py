"""`signpost import`: any amount of GeoJSON points into a collection, with a progress bar."""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from itertools import islice
from typing import Annotated

import typer

from signpost.cli.errors import CommandError
from signpost.cli.features import Collection
from signpost.cli.geojson import Item, Source, open_source, to_feature
from signpost.cli.output import note, print_json, progress
from signpost.cli.session import Session
from signpost.client import Feature

_BATCH = 2_000
_SHOWN_ERRORS = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)


def import_(
    context: typer.Context,
    *,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="GeoJSON FeatureCollection or one Feature a line, gzip or not; - reads stdin."
        ),
    ],
    collection: Collection = "places",
    id: Annotated[str, typer.Option("--id", metavar="KEY", help="The property that holds the id.")] = "",
    json: Annotated[bool, typer.Option("--json", help="The counts as one JSON object.")] = False,
) -> None:
    """Load points. Bad items are named and left out; running it again changes nothing."""
    with open_source(file) as source:
        load = Load(source, id)
        asyncio.run(_import(context.obj, load, collection))
    if json:
        print_json({"written": load.written, "unchanged": load.unchanged, "refused": load.refused})
    else:
        rate = (load.written + load.unchanged) / max(load.elapsed_s, 1e-9)
        note(f"{load.written:,} written, {load.unchanged:,} unchanged in {load.elapsed_s:.1f} s ({rate:,.0f}/s)")
    if load.refused:
        raise CommandError(f"{load.refused:,} of {load.seen:,} items were left out; mend them and run it again")


class Load:
    """One run: the features of a source on their way out, and what became of them."""

    def __init__(self, source: Source, id_property: str) -> None:
        self.source = source
        self.seen = self.written = self.unchanged = self.refused = 0
        self.elapsed_s = 0.0
        self._id_property = id_property
        self._items = source.items()
        # Where each feature that was sent stands: the server names it by its index among them.
        self._places = array("Q")
        self._unit = "item" if source.is_collection else "line"

    async def features(self) -> AsyncIterator[Feature]:
        """What can be sent; the rest is reported. Reading and parsing are done off the event loop."""
        while batch := await asyncio.to_thread(self._take):
            for item, feature in batch:
                self.seen += 1
                if isinstance(feature, str):
                    self.report(item.where, feature)
                else:
                    self._places.append(int(item.where.rpartition(" ")[2]))
                    yield feature

    def _take(self) -> list[tuple[Item, Feature | str]]:
        return [(item, _feature_or_error(item, self._id_property)) for item in islice(self._items, _BATCH)]

    def refuse(self, index: int, reason: str) -> None:
        """The server left out the feature that was sent as number `index`."""
        self.report(f"{self._unit} {self._places[index]}", reason)

    def report(self, where: str, reason: str) -> None:
        """Name an item that is left out; the first few on stderr, then only counted."""
        self.refused += 1
        if self.refused <= _SHOWN_ERRORS:
            note(f"{where}: {reason}")
        elif self.refused == _SHOWN_ERRORS + 1:
            note("more bad items follow; they are only counted")


def _feature_or_error(item: Item, id_property: str) -> Feature | str:
    if item.error:
        return item.error
    try:
        return to_feature(item.value, id_property)
    except ValueError as error:
        return str(error)
    except (OverflowError, RecursionError):
        return "a number in it is too large, or it is nested too deeply"


async def _import(session: Session, load: Load, collection: str) -> None:
    begin = time.monotonic()
    with load.source, progress("features") as bar:
        task = bar.add_task("", total=None if load.source.fraction_read is None else 1.0, done=0, rate=0.0)
        async with session.features() as client:
            async for state in client.import_features(load.features(), collection=collection, batch_size=_BATCH):
                load.written, load.unchanged = state.written, state.unchanged
                for error in state.errors:
                    load.refuse(
                        error.index, f"{error.field}: {error.description}" if error.field else error.description
                    )
                load.elapsed_s = time.monotonic() - begin
                done = state.written + state.unchanged
                bar.update(
                    task, completed=load.source.fraction_read or 0.0, done=done, rate=done / max(load.elapsed_s, 1e-9)
                )
