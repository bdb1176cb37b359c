"""publish, topics, who."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import typer

from signpost.cli.output import Json, console, iso_time, print_json, table, wants_json
from signpost.cli.reading import stdin_lines
from signpost.cli.session import Session
from signpost.cli.values import parse_duration, parse_pair
from signpost.client import Presence, Published, Topic

_IN_FLIGHT = 500


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(publish)
    app.command()(topics)
    app.command()(who)


def publish(
    context: typer.Context,
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where to, as in demo.hello.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to publish; - publishes every line of stdin.")],
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="A second publish with this id stores nothing.")
    ] = None,
    attribute: Annotated[
        list[Any] | None, typer.Option(metavar="KEY=VALUE", parser=parse_pair, help="Delivered with it. Repeat.")
    ] = None,
    ttl: Annotated[
        Any, typer.Option(metavar="DURATION", parser=parse_duration, help="Not delivered after this long, as in 10m.")
    ] = None,
    json: Json = False,
) -> None:
    """Publish to a topic."""
    as_json = wants_json(json)
    options = {"attributes": dict(attribute or []), "ttl_s": ttl}
    if text == "-":
        if id is not None:
            raise typer.BadParameter("--id names one publish; stdin may hold many lines")
        count = asyncio.run(_publish_lines(context.obj, topic, options))
        answer: dict[str, Any] = {"topic": topic, "published": count}
        line = f"{count:,} published to {topic}"
    else:
        published = asyncio.run(_publish(context.obj, topic, text, {**options, "message_id": id}))
        answer = {"topic": topic, "sequence": published.sequence, "duplicate": published.duplicate}
        line = f"{topic} is at sequence {published.sequence}" + (" (it was there)" if published.duplicate else "")
    if as_json:
        print_json(answer)
    else:
        console().print(line)


async def _publish(session: Session, topic: str, text: str, options: dict[str, Any]) -> Published:
    async with session.notifications() as client:
        return await client.publish(topic, os.fsencode(text), **options)


async def _publish_lines(session: Session, topic: str, options: dict[str, Any]) -> int:
    """Every line of stdin, in order, many in flight; answers how many once all are durable."""
    count = 0
    room = asyncio.Semaphore(_IN_FLIGHT)

    async with session.notifications() as client:

        async def one(line: bytes) -> None:
            try:
                await client.publish(topic, line, **options)
            finally:
                room.release()

        try:
            with stdin_lines() as lines:
                async with asyncio.TaskGroup() as group:
                    async for line in lines:
                        await room.acquire()
                        group.create_task(one(line))
                        count += 1
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first that was refused says why
    return count


def topics(
    context: typer.Context,
    *,
    filter: Annotated[str, typer.Argument(metavar="FILTER", help="Only topics that match, as in 'demo.>'.")] = "",
    json: Json = False,
) -> None:
    """Topics that have records."""
    found = asyncio.run(_topics(context.obj, filter))
    if wants_json(json):
        for topic in found:
            print_json(
                {
                    "topic": topic.name,
                    "records": topic.records,
                    "first_sequence": topic.first_sequence,
                    "last_sequence": topic.last_sequence,
                    "subscribers": topic.subscribers,
                }
            )
        return
    numbers = ("records", "first", "last", "subscribers")
    rows = table("topic", *numbers, right=numbers)
    for topic in found:
        figures = (topic.records, topic.first_sequence, topic.last_sequence, topic.subscribers)
        rows.add_row(topic.name, *(f"{figure:,}" for figure in figures))
    console().print(rows if found else "no topic has records" + (f" and matches {filter}" if filter else ""))


async def _topics(session: Session, filter: str) -> list[Topic]:
    async with session.notifications() as client:
        return await _all(client.topics(filter))


def who(
    context: typer.Context,
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Only who is subscribed to it.")] = "",
    json: Json = False,
) -> None:
    """Who is connected (with a client id), and to what."""
    found = asyncio.run(_who(context.obj, topic))
    if wants_json(json):
        for client in found:
            since = iso_time(client.connected_time_ns)
            print_json({"client_id": client.client_id, "connected": since, "filters": client.filters})
        return
    rows = table("client", "since", "filters", whole=["since"])
    for client in found:
        connected = datetime.fromtimestamp(client.connected_time_ns / 1e9).astimezone()
        rows.add_row(client.client_id, f"{connected:%Y-%m-%d %H:%M:%S}", " ".join(client.filters))
    console().print(rows if found else "nobody" + (f" is subscribed to {topic}" if topic else " is connected"))


async def _who(session: Session, topic: str) -> list[Presence]:
    async with session.notifications() as client:
        return await _all(client.presence(topic))


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]
