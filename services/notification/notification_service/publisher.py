"""The publishes of one stream: pipelined, answered in the order in which they came."""

import asyncio
from collections.abc import Sequence
from typing import Any

from signpost.errors import InvalidArgument, RateLimited, ResourceExhausted, SignpostError, Violation
from signpost.log.base import Append, Appended

from notification_service import metrics
from notification_service.codec import published_frame
from notification_service.outbox import Outbox
from notification_service.publishing import entries, results
from notification_service.registry import Registry
from protos.notification.v1 import notification_pb2 as pb

MAX_IN_FLIGHT = 64
"""Publish frames of one stream that may wait for the log; then the stream is not read on."""
MAX_PUBLICATIONS = 10_000


class Publisher:
    """Made for a stream when it publishes for the first time."""

    def __init__(self, registry: Registry, outbox: Outbox, principal: str) -> None:
        self._registry = registry
        self._outbox = outbox
        self._principal = principal
        self._bucket = registry.allowance()
        self._ordered: asyncio.Task[Any] | None = None

    async def publish(self, frame: pb.PublishFrame) -> None:
        """Submit a frame; returns before it is durable. Raises InvalidArgument for one that is no batch."""
        count = len(frame.publications)
        if not frame.id or not 1 <= count <= MAX_PUBLICATIONS:
            rule = "must not be 0" if not frame.id else f"must be 1 to {MAX_PUBLICATIONS}"
            name = "publications" if frame.id else "id"
            raise InvalidArgument(f"{name} {rule}", violations=[Violation(name, rule)])
        good, bad = self._entries(frame)
        await self._outbox.answered(MAX_IN_FLIGHT)
        future: asyncio.Future[list[Appended | SignpostError]]
        if frame.ordered:
            future = self._ordered = asyncio.get_running_loop().create_task(self._in_order(self._ordered, good))
        else:
            future = await self._submit(good)
        frame_id = frame.id
        self._outbox.answer(future, lambda: published_frame(frame_id, results(future.result(), bad)))

    def _entries(self, frame: pb.PublishFrame) -> tuple[list[Append], dict[int, SignpostError]]:
        """The entries of a frame, and by index what was wrong with the others: all of them, beyond the allowance."""
        count = len(frame.publications)
        if self._bucket is not None and (wait_s := self._bucket.take(count)) > 0:
            metrics.RATE_LIMITED.inc(count)
            refused = RateLimited("this stream publishes faster than its allowance", retry_after_s=wait_s)
            return [], dict.fromkeys(range(count), refused)
        return entries(frame.publications, self._principal, self._registry.clock())

    async def _submit(self, good: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        log = self._registry.hub.log
        try:
            return log.submit(good)
        except ResourceExhausted:  # the log's queue is full: the stream waits, which is what slows the publisher
            answer: asyncio.Future[list[Appended | SignpostError]] = asyncio.get_running_loop().create_future()
            answer.set_result(await self._append(good))
            return answer

    async def _append(self, good: Sequence[Append]) -> list[Appended | SignpostError]:
        try:
            return await self._registry.hub.log.append_many(good)
        except SignpostError as error:
            return [error] * len(good)

    async def _in_order(
        self, before: "asyncio.Task[Any] | None", good: Sequence[Append]
    ) -> list[Appended | SignpostError]:
        """Append in waves that hold each topic once, each after the one before, also across frames."""
        if before is not None:
            await asyncio.wait((before,))
        answers: list[Appended | SignpostError] = []
        at = 0
        while at < len(good):
            topics: set[str] = set()
            end = at
            while end < len(good) and good[end].subject not in topics:
                topics.add(good[end].subject)
                end += 1
            answers += await self._append(good[at:end])
            at = end
        return answers
