"""How people write values on the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from signpost.cli.values import (
    area_of,
    parse_box,
    parse_condition,
    parse_distance,
    parse_duration,
    parse_pair,
    parse_place,
    parse_start,
    parse_value,
)
from signpost.client import Box, Circle, Filter


@pytest.mark.parametrize(
    ("text", "metres"),
    [("5km", 5000), ("800m", 800), ("0.5 KM", 500), ("3mi", 4828.032), ("12", 12), (".5km", 500), ("2nmi", 3704)],
)
def test_distances(text: str, metres: float) -> None:
    assert parse_distance(text) == pytest.approx(metres)


@pytest.mark.parametrize("text", ["", "km", "5 parsecs", "-5km", "nan", "1e5", "1,5km", "9" * 400])
def test_what_is_no_distance(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 5km"):
        parse_distance(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("250ms", 0.25), ("3", 3)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["48.85,2.35", "48.85, 2.35"])
def test_places(text: str) -> None:
    assert parse_place(text) == (48.85, 2.35)


@pytest.mark.parametrize("text", ["paris", "48.85", "1,2,3", "95,3", "3,181", "nan,1", "inf,1"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_place(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("population>=100000", Filter("population", ">=", 100_000)),
        ("population > 1.5", Filter("population", ">", 1.5)),
        ("country=FR", Filter("country", "==", "FR")),
        ("country==FR", Filter("country", "==", "FR")),
        ("country != FR", Filter("country", "!=", "FR")),
        ("name^=San ", Filter("name", "prefix", "San ")),
        ("open=true", Filter("open", "==", True)),
        ("gone=null", Filter("gone", "==", None)),
        ('code="12"', Filter("code", "==", "12")),
        ('country in ["FR", "DE"]', Filter("country", "in", ["FR", "DE"])),
        ("capital", Filter("capital", "exists")),
        ("formula=a>=b", Filter("formula", "==", "a>=b")),
        ("ratio=NaN", Filter("ratio", "==", "NaN")),
    ],
)
def test_conditions(text: str, expected: Filter) -> None:
    assert parse_condition(text) == expected
    expected.to_proto()


def test_starts() -> None:
    assert parse_start("new") == "new"
    assert parse_start("earliest") == "earliest"
    assert parse_start("last") == "last_of_each"
    assert parse_start("17") == 17
    assert parse_start("2h") == timedelta(hours=2)
    assert parse_start("2026-01-31T12:00+00:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    naive = parse_start("2026-01-31T12:00")
    assert isinstance(naive, datetime)
    assert naive.tzinfo is not None
    with pytest.raises(typer.BadParameter, match="a sequence, 2h"):
        parse_start("yesterday")


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("[1]", [1]), ("x", "x"), ("Infinity", "Infinity"), ("", "")])
def test_property_values(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_pairs() -> None:
    assert parse_pair("a=b=c") == ("a", "b=c")
    assert parse_pair("a=") == ("a", "")
    for text in ("a", "=b"):
        with pytest.raises(typer.BadParameter):
            parse_pair(text)


def test_areas() -> None:
    box = parse_box("170,-10,-170,10")
    assert box == Box(south=-10, west=170, north=10, east=-170)
    assert area_of(None, None, box) == box
    assert area_of((1.0, 2.0), 5.0, None) == Circle((1.0, 2.0), 5.0)
    assert area_of((1.0, 2.0), None, None) is None
    with pytest.raises(typer.BadParameter, match="--near"):
        area_of(None, 5.0, None)
    for near, radius_m in (((1.0, 2.0), 5.0), ((1.0, 2.0), None), (None, 5.0)):
        with pytest.raises(typer.BadParameter, match="not both"):
            area_of(near, radius_m, box)


@pytest.mark.parametrize("text", ["99999999999d", "9" * 100])
def test_a_duration_is_one_that_a_calendar_can_add(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="a hundred years"):
        parse_duration(text)


def test_a_start_some_time_ago_may_say_so() -> None:
    assert parse_start("2h ago") == parse_start("2h") == timedelta(hours=2)
    with pytest.raises(typer.BadParameter, match="write new, earliest"):
        parse_start("99999999999d")


@pytest.mark.parametrize("text", ["1,2,3,400", "-181,0,1,1", "0,2,1,1", "nan,0,1,1"])
def test_a_box_is_on_the_globe(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="from -90 to 90"):
        parse_box(text)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "[" * 100_000])
def test_what_is_no_value_of_json_is_text(text: str) -> None:
    assert parse_value(text) == text
