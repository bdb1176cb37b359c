"""`signpost fence`: areas whose visitors become notifications."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from signpost.cli.errors import CommandError
from signpost.cli.features import Collection, Where
from signpost.cli.output import Json, console, metres, print_json, seconds, table, wants_json
from signpost.cli.session import Session
from signpost.cli.values import area_of, parse_duration
from signpost.cli.watching import BoxOption, Near, Radius
from signpost.client import Fence

app = typer.Typer(help="Areas whose visitors become notifications.", no_args_is_help=True)
_EVENTS = ("entered", "left", "inside", "dwelled")
Id = Annotated[str, typer.Argument(metavar="ID", help="The fence's id.")]


@app.command()
def put(
    context: typer.Context,
    *,
    id: Id,
    near: Near = None,
    radius: Radius = None,
    box: BoxOption = None,
    where: Where = None,
    events: Annotated[
        str, typer.Option(metavar="LIST", help=f"Comma-separated, of {', '.join(_EVENTS)}.")
    ] = "entered,left",
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="Where to publish. Default: fence.ID")] = "",
    dwell: Annotated[
        Any, typer.Option(metavar="DURATION", parser=parse_duration, help="For dwelled: how long inside, as in 5m.")
    ] = None,
    present: Annotated[bool, typer.Option("--present", help="Publish entered for what is inside already.")] = False,
    expires: Annotated[
        Any, typer.Option(metavar="DURATION", parser=parse_duration, help="The fence goes after this long.")
    ] = None,
    collection: Collection = "places",
    json: Json = False,
) -> None:
    """Create or replace a fence."""
    area = area_of(near, radius, box)
    if area is None:
        raise typer.BadParameter("say where: --near LAT,LON --radius DISTANCE, or --box W,S,E,N")
    wanted = [event.strip() for event in events.split(",") if event.strip()]
    if unknown := [event for event in wanted if event not in _EVENTS]:
        raise typer.BadParameter(f"there is no event {', '.join(unknown)}; there are {', '.join(_EVENTS)}")
    if "dwelled" in wanted and dwell is None:
        raise typer.BadParameter("dwelled needs --dwell, as in --dwell 5m")
    if dwell is not None and "dwelled" not in wanted:
        raise typer.BadParameter(f"--dwell is for dwelled, as in --events {','.join([*wanted, 'dwelled'])}")
    fence = Fence(
        id,
        area,
        collection=collection,
        filters=where or [],
        events=wanted,
        topic=topic,
        dwell_s=dwell or 0.0,
        notify_present=present,
        expire_time=None if expires is None else datetime.now(UTC) + timedelta(seconds=expires),
    )
    stored = asyncio.run(_put(context.obj, fence))
    if wants_json(json):
        print_json(fence_json(stored))
    else:
        console().print(f"{stored.id} publishes to {_topic(stored)} (revision {stored.revision})")


async def _put(session: Session, fence: Fence) -> Fence:
    async with session.features() as client:
        return await client.put_fence(fence)


@app.command("list")
def list_(
    context: typer.Context,
    *,
    collection: Annotated[str, typer.Option(metavar="NAME", help="Only of this collection.")] = "",
    json: Json = False,
) -> None:
    """The fences there are."""
    found = asyncio.run(_list(context.obj, collection))
    if wants_json(json):
        for fence in found:
            print_json(fence_json(fence))
        return
    rows = table("id", "collection", "area", "events", "topic", "dwell", whole=["id", "dwell"])
    for fence in found:
        dwell = seconds(fence.dwell_s) if fence.dwell_s else ""
        rows.add_row(fence.id, fence.collection, _area_text(fence), ",".join(fence.events), _topic(fence), dwell)
    console().print(rows if found else "there are no fences; signpost fence put makes one")


async def _list(session: Session, collection: str) -> list[Fence]:
    async with session.features() as client:
        return [fence async for fence in client.list_fences(collection=collection)]


@app.command()
def delete(
    context: typer.Context,
    *,
    id: Id,
    notify: Annotated[bool, typer.Option("--notify", help="Publish left for everything inside.")] = False,
    json: Json = False,
) -> None:
    """Delete a fence; one that is not there is an error."""
    if not asyncio.run(_delete(context.obj, id, notify)):
        raise CommandError(f"there is no fence {id}; signpost fence list shows what there is")
    if wants_json(json):
        print_json({"id": id, "deleted": True})
    else:
        console().print(f"{id} is deleted")


async def _delete(session: Session, id: str, notify: bool) -> bool:
    async with session.features() as client:
        return await client.delete_fence(id, notify_left=notify)


def fence_json(fence: Fence) -> dict[str, Any]:
    """A fence as its wire message in JSON."""
    assert fence.message is not None  # noqa: S101 - it comes from the server
    made: dict[str, Any] = json_format.MessageToDict(fence.message, preserving_proto_field_name=True)
    return made


def _topic(fence: Fence) -> str:
    return fence.topic or f"fence.{fence.id}"


def _area_text(fence: Fence) -> str:
    assert fence.message is not None  # noqa: S101 - it comes from the server
    area = fence.message.area
    match area.WhichOneof("shape"):
        case "circle":
            center = area.circle.center
            place = f"{center.latitude / 1e7:g},{center.longitude / 1e7:g}"
            return f"{metres(area.circle.radius_m)} around {place}"
        case "box":
            edges = (area.box.west, area.box.south, area.box.east, area.box.north)
            return "box " + ",".join(f"{edge / 1e7:g}" for edge in edges)
        case _:
            return f"polygon of {len(area.polygon.exterior.latitudes)} points"
