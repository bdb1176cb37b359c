"""How people write places, distances, durations, conditions and positions on a command line.

Each parser raises typer.BadParameter with an example of what would do.
"""

import json
import math
import re
from datetime import datetime, timedelta
from typing import Any

import typer

from signpost.client import Area, Box, Circle, Filter, LatLon, Start

_METRES = {"m": 1.0, "km": 1_000.0, "mi": 1_609.344, "ft": 0.3048, "nmi": 1_852.0}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_LONGEST_S = 100 * 365 * 86_400.0
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-z]*)\Z", re.IGNORECASE)
_CONDITION = re.compile(r"([^<>=!^]+?)\s*(<=|>=|==|!=|\^=|<|>|=)\s*(.*)\Z", re.DOTALL)
_MEMBER = re.compile(r"(\S+)\s+in\s+(\[.*\])\Z", re.DOTALL)


def parse_place(text: str) -> LatLon:
    """`48.85,2.35`: latitude and longitude in degrees."""
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no place; write LAT,LON in degrees, as in 48.85,2.35") from None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise typer.BadParameter(f"{text!r}: latitude is from -90 to 90, longitude from -180 to 180; latitude first")
    return latitude, longitude


def parse_distance(text: str) -> float:
    """`5km`, `800m`, `3mi`, or plain metres; answers metres."""
    return _quantity(text, _METRES, 1.0, "distance; write 5km, 800m, 3mi")


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `2h`, `7d`, or plain seconds; answers seconds."""
    wanted = "duration; write 90s, 10m, 2h, 7d"
    duration_s = _quantity(text, _SECONDS, 1.0, wanted)
    if duration_s > _LONGEST_S:
        raise typer.BadParameter(f"{text!r} is no {wanted}, of a hundred years at most")
    return duration_s


def parse_box(text: str) -> Box:
    """`WEST,SOUTH,EAST,NORTH` in degrees, as GeoJSON has it; west > east crosses the antimeridian."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no box; write WEST,SOUTH,EAST,NORTH in degrees") from None
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise typer.BadParameter(f"{text!r}: south and north are from -90 to 90, south first; west and east to 180")
    return Box(south=south, west=west, north=north, east=east)


def parse_condition(text: str) -> Filter:
    """`population>=100000`, `country=FR`, `name^=San`, `kind in ["a","b"]`; a bare name: it is there."""
    if member := _MEMBER.match(text):
        try:
            return Filter(member[1], "in", json.loads(member[2]))
        except ValueError:
            raise typer.BadParameter(f'{text!r}: write the list as JSON, as in country in ["FR","DE"]') from None
    if condition := _CONDITION.match(text):
        key, operator, value = condition.groups()
        return Filter(key, {"=": "==", "^=": "prefix"}.get(operator, operator), parse_value(value))
    if not text.strip():
        raise typer.BadParameter("an empty condition; write one as in population>=100000")
    return Filter(text.strip(), "exists")


def parse_value(text: str) -> Any:
    """JSON where it is JSON, otherwise the text as it is."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    # 1e999 is JSON, but no number that JSON could give back.
    return text if isinstance(value, float) and math.isinf(value) else value


def parse_pair(text: str) -> tuple[str, str]:
    """`key=value`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r}: write KEY=VALUE")
    return key, value


def parse_start(text: str) -> Start:
    """Where to start: `new`, `earliest`, `last`, a sequence, `2h` or `2h ago`, or a time as in 2026-01-31T12:00."""
    if text in ("new", "earliest"):
        return "new" if text == "new" else "earliest"
    if text == "last":
        return "last_of_each"
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return timedelta(seconds=parse_duration(text.removesuffix(" ago")))
    except typer.BadParameter:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: write new, earliest, last, a sequence, 2h, or a time as in 2026-01-31T12:00"
        ) from None


def area_of(near: LatLon | None, radius_m: float | None, box: Box | None) -> Area | None:
    """The area that the options describe; None: everywhere."""
    if box is not None and (near is not None or radius_m is not None):
        raise typer.BadParameter("give --near and --radius or --box, not both")
    if box is not None:
        return box
    if radius_m is not None:
        if near is None:
            raise typer.BadParameter("--radius needs a place: --near LAT,LON")
        return Circle(near, radius_m)
    return None


def _quantity(text: str, units: dict[str, float], default: float, wanted: str) -> float:
    match = _QUANTITY.match(text.strip())
    factor = units.get(match[2].lower(), None if match[2] else default) if match else None
    if match is None or factor is None or not math.isfinite(amount := float(match[1]) * factor):
        raise typer.BadParameter(f"{text!r} is no {wanted}")
    return amount


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
