"""Single features and lists: near, get, put, delete."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from signpost.cli.errors import CommandError
from signpost.cli.output import (
    Json,
    console,
    metres,
    print_json,
    printable,
    properties_text,
    table,
    to_geojson,
    wants_json,
)
from signpost.cli.session import Session
from signpost.cli.values import (
    area_of,
    parse_condition,
    parse_distance,
    parse_duration,
    parse_pair,
    parse_place,
    parse_value,
)
from signpost.client import Feature, LatLon
from signpost.errors import NotFound

Collection = Annotated[str, typer.Option(metavar="NAME", help="The collection of features.")]
Place = Annotated[Any, typer.Argument(metavar="LAT,LON", parser=parse_place, help="Degrees, latitude first.")]
Where = Annotated[
    list[Any] | None,
    typer.Option(
        metavar="CONDITION",
        parser=parse_condition,
        help="Only features with this property, as in population>=100000, country=FR, name^=San; may be repeated.",
    ),
]
# So that -33.86,151.2 is a place and not an option.
PLACES = {"ignore_unknown_options": True}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(context_settings=PLACES)(near)
    app.command()(get)
    app.command(context_settings=PLACES)(put)
    app.command()(delete)


def near(
    context: typer.Context,
    *,
    place: Place,
    radius: Annotated[
        Any, typer.Option(metavar="DISTANCE", parser=parse_distance, help="No farther than this, as in 5km or 800m.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=2**32 - 1, help="At most so many.")] = 20,
    where: Where = None,
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """What is around a place, the nearest first."""
    question = {"area": area_of(place, radius, None), "filters": where or [], "limit": limit, "collection": collection}
    rows = table("distance", "name", "id", "properties", right=["distance"], whole=["id"])
    asyncio.run(_near(context.obj, place, question, None if wants_json(json) else rows))
    if wants_json(json):
        return
    if rows.row_count:
        console().print(rows)
    else:
        console().print(f"nothing in {collection}" + (f" within {metres(radius)}" if radius else ""))


async def _near(session: Session, place: LatLon, question: dict[str, Any], rows: Table | None) -> None:
    """Fill the rows; without them print JSON as it comes."""
    async with session.features() as client:
        async for feature in client.list(place, **question):
            if rows is None:
                print_json(to_geojson(feature))
            else:
                text = properties_text(feature.properties)
                name, id = printable(feature.name or feature.id), printable(feature.id)
                rows.add_row(metres(feature.distance_m), name, id, text)


def get(
    context: typer.Context,
    *,
    id: Annotated[str, typer.Argument(metavar="ID", help="The feature's id.")],
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """One feature."""
    feature = asyncio.run(_get(context.obj, id, collection))
    if wants_json(json):
        print_json(to_geojson(feature))
        return
    rows = table("key", "value", whole=["key"])
    rows.show_header = False
    rows.add_row("id", printable(feature.id))
    rows.add_row("name", Text(printable(feature.name), overflow="fold"))
    rows.add_row("place", f"{feature.latitude},{feature.longitude}")
    for key, value in feature.properties.items():
        text = properties_text({"": value}).removeprefix("=")
        rows.add_row(printable(key), Text(text, overflow="fold"))
    if feature.expire_time is not None:
        rows.add_row("expires", feature.expire_time.isoformat())
    rows.add_row("sequence", str(feature.sequence))
    console().print(rows)


async def _get(session: Session, id: str, collection: str) -> Feature:
    async with session.features() as client:
        try:
            return await client.get(id, collection=collection)
        except NotFound:
            raise CommandError(f"there is no {id} in {collection}; signpost near shows what there is") from None


def put(
    context: typer.Context,
    *,
    id: Annotated[str, typer.Argument(metavar="ID", help="The feature's id; what was there is replaced.")],
    place: Place,
    name: Annotated[str, typer.Option(help="Its name.")] = "",
    set_: Annotated[
        list[Any] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", parser=parse_pair, help="A property; VALUE as JSON or text. Repeat."
        ),
    ] = None,
    expires: Annotated[
        Any, typer.Option(metavar="DURATION", parser=parse_duration, help="It goes after this long, as in 2h.")
    ] = None,
    if_sequence: Annotated[
        int | None, typer.Option(min=0, help="Only if this is the sequence of its last change; 0: only if not there.")
    ] = None,
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """Create or replace a feature."""
    expire_time = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    feature = Feature(
        id,
        *place,
        name=name,
        properties={key: parse_value(value) for key, value in set_ or []},
        expire_time=expire_time,
    )
    written = asyncio.run(_put(context.obj, feature, collection, if_sequence))
    if wants_json(json):
        print_json({"id": id, "sequence": written})
    else:
        console().print(f"{id} is at sequence {written}")


async def _put(session: Session, feature: Feature, collection: str, if_sequence: int | None) -> int:
    async with session.features() as client:
        return (await client.put(feature, collection=collection, expected_sequence=if_sequence)).sequence


def delete(
    context: typer.Context,
    *,
    id: Annotated[str, typer.Argument(metavar="ID", help="The feature's id.")],
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """Delete a feature; one that is not there is an error."""
    if not asyncio.run(_delete(context.obj, id, collection)):
        raise CommandError(f"there is no {id} in {collection}; nothing was deleted")
    if wants_json(json):
        print_json({"id": id, "deleted": True})
    else:
        console().print(f"{id} is deleted")


async def _delete(session: Session, id: str, collection: str) -> bool:
    async with session.features() as client:
        return (await client.delete(id, collection=collection)).deleted
