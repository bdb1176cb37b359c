"""`signpost health`: whether both services serve, by their own word."""

import asyncio
from dataclasses import dataclass

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.text import Text

from signpost.cli.output import Json, console, print_json, table, wants_json
from signpost.cli.session import FIRST_ANSWER_S, Session

FEATURE_NAMES = ("feature.v1.FeatureService", "stream_service.StreamService")
NOTIFICATION_NAMES = ("notification.v1.NotificationService", "pb.NotificationService", "example.Greeter")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server says of one service: SERVING, NOT_SERVING, or the status code of its refusal."""

    service: str
    address: str
    status: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(health)


def health(context: typer.Context, json: Json = False) -> None:
    """Ask both services for their health; exit code 1 unless everything is SERVING."""
    answers = asyncio.run(_ask(context.obj))
    if wants_json(json):
        for answer in answers:
            print_json({"service": answer.service, "address": answer.address, "status": answer.status})
    else:
        rows = table("service", "address", "status", whole=["status"])
        for answer in answers:
            style = "green" if answer.status == "SERVING" else "red"
            rows.add_row(answer.service, answer.address, Text(answer.status, style=style))
        console().print(rows)
    if any(answer.status != "SERVING" for answer in answers):
        raise typer.Exit(1)


async def _ask(session: Session) -> list[Answer]:
    asked = [(session.feature, FEATURE_NAMES), (session.notification, NOTIFICATION_NAMES)]
    answers = await asyncio.gather(*(_ask_one(session, address, names) for address, names in asked))
    return [answer for group in answers for answer in group]


async def _ask_one(session: Session, address: str, names: tuple[str, ...]) -> list[Answer]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answers = []
        for name in names:
            request = health_pb2.HealthCheckRequest(service=name)
            try:
                answer = await stub.Check(request, timeout=FIRST_ANSWER_S, metadata=session.metadata)
                status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            except grpc.aio.AioRpcError as error:
                status = error.code().name
            answers.append(Answer(name, address, status))
        return answers
