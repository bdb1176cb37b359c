"""`signpost chat`: the seed's Chat, a line each way."""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import typer

from protos.example import greeter_pb2, greeter_pb2_grpc
from signpost.cli.errors import is_no_answer, no_answer
from signpost.cli.reading import stdin_lines
from signpost.cli.session import FIRST_ANSWER_S, Session
from signpost.client.errors import from_rpc_error


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chat)


def chat(context: typer.Context) -> None:
    """Talk to the notification service: every line of input is answered. Ctrl-D ends."""
    asyncio.run(_chat(context.obj))


async def _chat(session: Session) -> None:
    interactive = sys.stdin.isatty()
    async with grpc.aio.insecure_channel(session.notification) as channel:
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):
                await channel.channel_ready()
        except TimeoutError:
            raise no_answer("notification", session.notification, None) from None
        with stdin_lines() as lines:
            await _talk(session, channel, lines, interactive)


async def _talk(session: Session, channel: grpc.aio.Channel, lines: AsyncIterator[bytes], interactive: bool) -> None:
    call = greeter_pb2_grpc.GreeterStub(channel).Chat(_requests(lines, interactive), metadata=session.metadata)
    try:
        async for answer in call:
            sys.stdout.write(f"{answer.reply}\n")
            sys.stdout.flush()
    except grpc.aio.AioRpcError as error:
        reason = from_rpc_error(error)
        if is_no_answer(reason):
            raise no_answer("notification", session.notification, reason) from None
        raise reason from None
    finally:
        call.cancel()


async def _requests(lines: AsyncIterator[bytes], interactive: bool) -> AsyncIterator[greeter_pb2.MessageRequest]:
    if interactive:
        sys.stderr.write("a line is a message, Ctrl-D ends\n")
    async for line in lines:
        yield greeter_pb2.MessageRequest(content=line.decode(errors="replace"))
