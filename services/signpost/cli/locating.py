"""`signpost locate`: the nearest feature to every row of a CSV or GeoJSON file, in the order of the rows."""

import asyncio
import csv
import io
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import typer

from signpost.cli.errors import CommandError
from signpost.cli.features import Collection, Where
from signpost.cli.geojson import Source, open_source, to_point, to_properties
from signpost.cli.output import note, progress, to_json
from signpost.cli.session import Session
from signpost.cli.values import parse_distance
from signpost.client import LatLon, NearestFeature

_BATCH = 1_000
_SHOWN_ERRORS = 20
_COLUMNS = {"lat": ("latitude", "lat", "y"), "lon": ("longitude", "lon", "lng", "long", "x")}
ADDED = ("place_id", "place", "place_distance_m")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(locate)


def locate(
    context: typer.Context,
    *,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with a header, or GeoJSON points; gzip or not; - reads stdin.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: stdout.")] = None,
    lat: Annotated[str, typer.Option(metavar="COLUMN", help="CSV: latitudes. Default: latitude, lat or y.")] = "",
    lon: Annotated[
        str, typer.Option(metavar="COLUMN", help="CSV: longitudes. Default: longitude, lon, lng or x.")
    ] = "",
    max_distance: Annotated[
        Any, typer.Option(metavar="DISTANCE", parser=parse_distance, help="Leave out what is farther, as in 50km.")
    ] = None,
    where: Where = None,
    collection: Collection = "places",
) -> None:
    """Add the nearest place to every row: place_id, place and place_distance_m."""
    if output and output.exists() and Path(file).exists() and output.samefile(file):
        raise CommandError(f"{file} would be written over while it is read; name another --output")
    writing = output.open("w", encoding="utf-8", newline="") if output else nullcontext(sys.stdout)
    with open_source(file) as source, writing as out:
        rows: Rows = GeoJsonRows(source, out) if source.is_json else CsvRows(source, out, lat, lon)
        work = Work(rows)
        options = {"max_distance_m": max_distance or 0.0, "filters": where or [], "collection": collection}
        asyncio.run(_locate(context.obj, source, work, options))
    if work.bad:
        raise CommandError(f"{work.bad:,} of {work.rows:,} rows have no place that can be read; they are as they were")


class Rows(Protocol):
    """A file's rows, and how they are written back with what was found."""

    def read(self) -> Iterator[tuple[Any, LatLon | str]]:
        """Each row with its place, or with what is wrong with it."""

    def write(self, row: Any, found: NearestFeature | None) -> None:
        """One row, in the order of reading."""

    def end(self) -> None:
        """After the last row."""


class CsvRows:
    """CSV with a header; the found place comes in three more columns."""

    def __init__(self, source: Source, out: IO[str], lat: str, lon: str) -> None:
        text = io.TextIOWrapper(source.stream, encoding="utf-8-sig", newline="")
        self._reader = csv.reader(text)
        self._rows = self._read()
        self._out = csv.writer(out, lineterminator="\n")
        header = next(self._rows, None)
        if header is None:
            raise CommandError("the file is empty; it needs a header line and rows")
        self._lat, self._lon = _column(header, "lat", lat), _column(header, "lon", lon)
        self._width = len(header)
        self._out.writerow([*header, *ADDED])

    def read(self) -> Iterator[tuple[list[str], LatLon | str]]:
        for row in self._rows:
            yield row, self._place(row)

    def _read(self) -> Iterator[list[str]]:
        """The header and the rows, without empty lines."""
        lines = self._reader
        try:
            yield from filter(None, lines)
        except csv.Error as error:
            raise CommandError(f"line {lines.line_num}: {error}; is a quote left open before it?") from None
        except UnicodeDecodeError:
            # Decoded in pieces of many lines: which one it is nobody knows.
            where = f"line {lines.line_num + 1} or later"
            raise CommandError(f"{where} is not UTF-8: convert the file, as with iconv") from None

    def _place(self, row: list[str]) -> LatLon | str:
        if len(row) > self._width:
            return f"line {self._reader.line_num}: more columns than the header"
        if len(row) <= max(self._lat, self._lon):
            return f"line {self._reader.line_num}: too few columns"
        try:
            latitude, longitude = float(row[self._lat]), float(row[self._lon])
        except ValueError:
            return f"line {self._reader.line_num}: {row[self._lat]!r}, {row[self._lon]!r} are not two numbers"
        if -90 <= latitude <= 90 and -180 <= longitude <= 180:
            return latitude, longitude
        return f"line {self._reader.line_num}: out of range: latitude {latitude:g}, longitude {longitude:g}"

    def write(self, row: list[str], found: NearestFeature | None) -> None:
        added = ["", "", ""] if found is None else [found.id, _name(found), f"{found.distance_m:.1f}"]
        self._out.writerow([*row, *[""] * (self._width - len(row)), *added])

    def end(self) -> None:
        """A CSV file needs none."""


class GeoJsonRows:
    """GeoJSON points, a FeatureCollection or one a line, written as they came; the found place is in the properties."""

    def __init__(self, source: Source, out: IO[str]) -> None:
        self._source, self._out = source, out
        self._before, self._between = (
            ('{"type":"FeatureCollection","features":[\n', ",\n") if source.is_collection else ("", "\n")
        )
        self._separator = self._before

    def read(self) -> Iterator[tuple[Any, LatLon | str]]:
        for item in self._source.items():
            if item.error:
                yield None, f"{item.where}: {item.error}"
                continue
            try:
                longitude, latitude = to_point(item.value)
                to_properties(item.value)
            except ValueError as error:
                yield item.value, f"{item.where}: {error}"
            else:
                yield item.value, (latitude, longitude)

    def write(self, row: Any, found: NearestFeature | None) -> None:
        if row is None:
            return
        if found is not None:
            added = dict(zip(ADDED, (found.id, _name(found), round(found.distance_m, 1)), strict=True))
            row["properties"] = {**to_properties(row), **added}
        self._out.write(self._separator + to_json(row))
        self._separator = self._between

    def end(self) -> None:
        if self._source.is_collection:
            self._out.write((self._before if self._separator == self._before else "") + "\n]}\n")
        elif self._separator == self._between:
            self._out.write("\n")


class Work:
    """Rows on their way: sent, waiting for their answer, written in order."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._reading = rows.read()
        self._waiting: deque[tuple[Any, bool]] = deque()
        self.rows = self.bad = 0

    async def origins(self) -> AsyncIterator[LatLon]:
        """The places to look around."""
        while batch := await asyncio.to_thread(lambda: list(islice(self._reading, _BATCH))):
            for row, place in batch:
                self.rows += 1
                self._waiting.append((row, not isinstance(place, str)))
                if isinstance(place, str):
                    self.bad += 1
                    if self.bad <= _SHOWN_ERRORS:
                        note(place)
                else:
                    yield place

    def answered(self, found: Sequence[NearestFeature]) -> None:
        """The next row that was sent has its answer."""
        self._write_bad()
        row, _ = self._waiting.popleft()
        self._rows.write(row, found[0] if found else None)

    def end(self) -> None:
        """Every answer is there."""
        self._write_bad()
        self._rows.end()

    def _write_bad(self) -> None:
        while self._waiting and not self._waiting[0][1]:
            self._rows.write(self._waiting.popleft()[0], None)


async def _locate(session: Session, source: Source, work: Work, options: dict[str, Any]) -> None:
    begin = time.monotonic()
    with source, progress("rows") as bar:
        task = bar.add_task("", total=1.0 if source.fraction_read is not None else None, done=0, rate=0.0)
        async with session.features() as client:
            done = 0
            async for found in client.nearest(work.origins(), 1, whole=True, batch_size=_BATCH, **options):
                work.answered(found)
                done += 1
                if done % _BATCH == 0:
                    rate = done / (time.monotonic() - begin)
                    bar.update(task, completed=source.fraction_read or 0.0, done=done, rate=rate)
            bar.update(task, completed=1.0, done=done, rate=done / max(time.monotonic() - begin, 1e-9))
        work.end()


def _column(header: list[str], kind: str, wanted: str) -> int:
    names = [name.strip().lower() for name in header]
    for name in [wanted.lower()] if wanted else _COLUMNS[kind]:
        if name in names:
            return names.index(name)
    have = ", ".join(header)
    raise CommandError(f"no column {wanted or ' or '.join(_COLUMNS[kind])}; name it with --{kind}; there are: {have}")


def _name(found: NearestFeature) -> str:
    return found.feature.name if found.feature is not None else ""
