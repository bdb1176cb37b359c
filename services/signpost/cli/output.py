"""What commands print: tables for a terminal, one JSON object a line for programs."""

import json
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from google.protobuf.message import DecodeError
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client import Feature, Notification

_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if code not in b"\t\r\n"}
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; the default where output is no terminal.")]


def wants_json(asked: bool) -> bool:
    """Whether to print for a program."""
    return asked or not sys.stdout.isatty()


def print_json(item: Any) -> None:
    """One line, at once."""
    sys.stdout.write(to_json(item) + "\n")
    sys.stdout.flush()


def to_json(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def console() -> Console:
    """The terminal for results. What is printed is data: [brackets] and :colons: in it mean nothing."""
    return Console(highlight=False, markup=False, emoji=False)


def notes() -> Console:
    """The terminal for progress and remarks: stderr."""
    return Console(stderr=True, highlight=False)


def note(line: str) -> None:
    """A remark on stderr, as it is."""
    print(f"signpost: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for people


class Rows(Table):
    """A table of one line a row: what has no room on the terminal ends in an ellipsis."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        super().add_row(*map(_one_line, cells), style=style, end_section=end_section)


def table(*columns: str, right: Collection[str] = (), whole: Collection[str] = ()) -> Rows:
    """An empty table. The columns in `right` hold numbers; they and those in `whole` make no room for the others."""
    made = Rows(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Rich takes width from the columns that may wrap; that nothing does, the cells say.
        made.add_column(
            _one_line(column),
            justify="right" if column in right else "left",
            overflow="ellipsis",
            no_wrap=column in right or column in whole,
        )
    return made


def _one_line(cell: RenderableType | None) -> RenderableType:
    return Text(cell, no_wrap=True, overflow="ellipsis") if isinstance(cell, str) else cell or ""


def progress(what: str) -> Progress:
    """A bar with a count and a rate, from the task's fields `done` and `rate`; nothing where stderr is no terminal."""
    terminal = notes()
    return Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]:,} " + what),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
    )


def to_geojson(feature: Feature) -> dict[str, Any]:
    """A GeoJSON Feature; sequence and distance in metres are foreign members."""
    properties = feature.properties
    if feature.name and "name" not in properties:
        properties = {"name": feature.name, **properties}
    properties = _whole_numbers(properties)
    made: dict[str, Any] = {
        "type": "Feature",
        "id": feature.id,
        "geometry": {"type": "Point", "coordinates": [feature.longitude, feature.latitude]},
        "properties": properties,
    }
    if feature.expire_time is not None:
        made["expire_time"] = feature.expire_time.isoformat()
    if feature.sequence:
        made["sequence"] = feature.sequence
    if feature.distance_m is not None:
        made["distance_m"] = round(feature.distance_m, 1)
    return made


def notification_json(item: Notification) -> dict[str, Any]:
    """A notification; `fence_event` where a fence published it; `text` is its payload where that is UTF-8, otherwise
    `payload` its hexadecimal digits."""
    made: dict[str, Any] = {"topic": item.topic, "sequence": item.sequence, "time": iso_time(item.time_ns)}
    if item.message_id:
        made["message_id"] = item.message_id
    if (event := fence_event(item)) is not None:
        made["fence_event"] = {
            "fence": event.fence_id,
            "event": _fence_word(event),
            "collection": event.collection,
            "feature": to_geojson(Feature.from_message(event.feature, event.sequence)),
        }
        return made
    try:
        made["text"] = item.payload.decode()
    except UnicodeDecodeError:
        made["payload"] = item.payload.hex()
    if item.attributes:
        made["attributes"] = item.attributes
    return made


def notification_text(item: Notification) -> str:
    """What a notification says, for people."""
    if (event := fence_event(item)) is None:
        return printable(item.text)
    feature = Feature.from_message(event.feature)
    what = f"{feature.name} ({feature.id})" if feature.name else feature.id
    return printable(f"{what} {_fence_word(event)} {event.fence_id} at {feature.latitude:g},{feature.longitude:g}")


def fence_event(item: Notification) -> fpb.FenceNotification | None:
    """What a fence published; None for everything else. Fences name themselves in the attributes."""
    if "fence" not in item.attributes or "event" not in item.attributes:
        return None
    event = fpb.FenceNotification()
    try:
        event.ParseFromString(item.payload)
    except DecodeError:
        return None
    return event if event.fence_id == item.attributes["fence"] else None


def _fence_word(event: fpb.FenceNotification) -> str:
    """entered, left, inside or dwelled."""
    return fpb.FenceEvent.Name(event.event).removeprefix("FENCE_EVENT_").lower()


def iso_time(time_ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_time(time_ns: int) -> str:
    """Unix nanoseconds as the local time of day."""
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%H:%M:%S")


def metres(distance_m: float | None) -> str:
    """A distance as people write it."""
    if distance_m is None:
        return ""
    if distance_m < 999.5:
        return f"{distance_m:.0f} m"
    return f"{distance_m / 1000:,.1f} km" if distance_m < 99_950 else f"{distance_m / 1000:,.0f} km"


def seconds(duration_s: float) -> str:
    """A duration as people write it."""
    if duration_s < 1:
        return f"{max(0.0, duration_s) * 1000:.0f} ms"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 7_200 else f"{duration_s / 3_600:.1f} h"


def properties_text(properties: dict[str, Any]) -> str:
    """Properties in one line, without the name, which has a column of its own."""
    shown = _whole_numbers(properties).items()
    return printable("  ".join(f"{key}={_plain(value)}" for key, value in shown if key != "name"))


def printable(text: str) -> str:
    """Without what would command a terminal: others have written it."""
    return text.translate(_CONTROLS)


def _whole_numbers(value: Any) -> Any:
    """Integers as integers: a protobuf Struct has doubles only."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return [_whole_numbers(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)
