"""The connection to NATS: a series of links, one after another, without end.

nats-py's own reconnect is off. A link that is in doubt is dropped, and a fresh client makes the next
one; what was on its way is then asked or sent again by its owner, who knows what may be repeated.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from signpost.errors import LogRefused, LogUnavailable
from signpost.log.jetstream.settings import JetStreamSettings, servers_of, without_password
from signpost.log.jetstream.tapped import Handler, TappedClient
from signpost.log.jetstream.tasks import stop

_log = logging.getLogger(__name__)
_PING_INTERVAL_S = 5
_CLOSE_S = 1.0
FAILURES = (OSError, nats.errors.Error, asyncio.TimeoutError, ValueError)


class Link:
    """One connection to one server, from its greeting to its end. It never comes back."""

    def __init__(self, client: TappedClient, settings: JetStreamSettings) -> None:
        self.client = client
        self.lost = asyncio.Event()
        self._settings = settings
        self._inbox = client.new_inbox()
        self._tokens = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[bytes | None]] = {}
        self._when_lost: dict[Callable[[], None], None] = {}  # in the order of their coming
        self._sending: set[asyncio.Task[None]] = set()

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call it once the link is lost, at once if it is; `forget` it with whom it is for: links last for weeks."""
        if self.lost.is_set():
            callback()
        else:
            self._when_lost[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._when_lost.pop(callback, None)

    async def open(self) -> None:
        """Subscribe to the answers."""
        await self.subscribe(f"{self._inbox}.*", self._on_answer)

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Hand every message on a subject to `handler`. None is dropped, however many wait."""

        async def handle(message: Msg) -> None:
            handler(message.subject, message.reply, message.data, message.headers)

        try:
            made = await self.client.subscribe(subject, cb=handle, pending_msgs_limit=0, pending_bytes_limit=0)
        except FAILURES as error:
            self.drop(f"cannot subscribe: {error}")
            raise unavailable() from error
        self.client.taps[made._id] = handler
        return made

    def unsubscribe_soon(self, subscription: Subscription) -> None:
        """Drop what still comes on a subscription, without waiting."""

        self.client.taps.pop(subscription._id, None)

        async def unsubscribe() -> None:
            with contextlib.suppress(*FAILURES):
                await subscription.unsubscribe()

        self._soon(unsubscribe())

    async def publish(self, subject: str, payload: bytes = b"", *, reply: str = "") -> None:
        """Send; whether it arrives is not known. Raises LogUnavailable on a link that is lost."""
        try:
            await self.client.publish(subject, payload, reply=reply)
        except FAILURES as error:
            self.drop(f"cannot send: {error}")
            raise unavailable() from error

    def send_soon(self, subject: str, payload: bytes = b"") -> None:
        """Send without waiting; on a link that is lost nothing happens."""

        async def send() -> None:
            with contextlib.suppress(LogUnavailable):
                await self.publish(subject, payload)

        self._soon(send())

    async def _probe(self, subject: str) -> None:
        """After a silence: is it the server, or only a stream without a leader?"""
        timeout_s = self._settings.request_timeout_s
        try:
            await self.client.rtt(timeout=timeout_s)  # type: ignore[arg-type]  # an int in its signature only
        except FAILURES:
            self.drop(f"no answer from {subject}, nor to a ping within {timeout_s} s")

    def _soon(self, action: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(action)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def request(self, subject: str, payload: bytes = b"") -> bytes:
        """One answer. Raises LogUnavailable when the link is lost or silent, or nobody serves the subject."""
        if self.lost.is_set():
            raise unavailable()
        inbox = f"{self._inbox}.{next(self._tokens)}"
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[inbox] = answer
        try:
            await self.publish(subject, payload, reply=inbox)
            async with asyncio.timeout(self._settings.request_timeout_s):
                data = await answer
        except TimeoutError:
            self._soon(self._probe(subject))
            raise unavailable() from None
        finally:
            del self._waiting[inbox]
        if data is None:
            raise LogUnavailable("NATS has no JetStream here, or not yet", retry_after_s=1.0)
        return data

    async def api(self, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A JetStream API call's answer, errors included (under `error`)."""
        payload = b"" if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(await self.request(f"$JS.API.{request}", payload))
        return answer

    def drop(self, why: str) -> None:
        """Give the link up: what waits on it is told, and the next one is made."""
        if self.lost.is_set():
            return
        _log.warning("the link to NATS is lost: %s", why)
        self.end()

    def end(self) -> None:
        """As `drop`, when it is meant to end."""
        if self.lost.is_set():
            return
        self.lost.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(unavailable())
        for callback in list(self._when_lost):
            callback()

    def _on_answer(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        answer = self._waiting.get(subject)
        if answer is not None and not answer.done():
            answer.set_result(None if headers and headers.get("Status") == "503" else data)


class Connection:
    """Keeps a link for as long as it is open."""

    def __init__(self, url: str, settings: JetStreamSettings) -> None:
        self._settings = settings
        self._name = without_password(url)
        self._configured = servers_of(url)
        self._servers = random.sample(self._configured, len(self._configured))
        self._tls = settings.tls_context(wanted=any(server.startswith("tls://") for server in self._servers))
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._last_error = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_linked(self) -> bool:
        """Whether there is a link at this moment."""
        return self._link is not None

    async def open(self) -> None:
        """Return with the first link. Raises LogRefused when there is none within `open_timeout_s`."""
        self._task = asyncio.create_task(self._run(), name="nats connection")
        waiting = asyncio.create_task(self._linked.wait())
        try:
            await asyncio.wait(
                {waiting, self._task}, timeout=self._settings.open_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not self._linked.is_set():
                raise LogRefused(
                    f"NATS at {self._name} does not answer within {self._settings.open_timeout_s} s: {self._last_error}"
                )
        except BaseException:
            await self.close()
            raise
        finally:
            waiting.cancel()

    def link(self) -> Link:
        """The link; raises LogUnavailable where there is none now."""
        if self._link is None or self._link.lost.is_set():
            raise unavailable()
        return self._link

    async def wait_link(self) -> Link:
        """The link, as soon as there is one."""
        while self._link is None or self._link.lost.is_set():
            self._linked.clear()
            await self._linked.wait()
        return self._link

    async def close(self) -> None:
        """Close the link and make no other. Safe to repeat."""
        if self._task is not None:
            task, self._task = self._task, None
            await stop(task)
            if not task.cancelled():
                task.result()  # nobody foresaw why it ended

    async def _run(self) -> None:
        attempt = 0
        while True:
            server = self._servers[0]
            self._servers.append(self._servers.pop(0))
            attempt += 1
            client = TappedClient()
            try:
                if await self._live(client, server):
                    attempt = 0
            except Exception as error:  # what nats-py makes of some greeting: the next server's may be another
                self._last_error = str(error) or type(error).__name__
                _log.exception("a link to NATS at %s failed; the next one is made", without_password(server))
            finally:
                try:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(_CLOSE_S):  # a frozen server does not take its leave
                            await client.close()
                finally:
                    client.abort()
            top = min(self._settings.reconnect_max_s, self._settings.reconnect_min_s * 2 ** min(attempt, 16))
            await asyncio.sleep(random.uniform(self._settings.reconnect_min_s, top))  # noqa: S311 - jitter

    def _learn(self, server: str, client: Client) -> None:
        """Try what is configured, and what the cluster says of itself now, with the user of the one that said it.

        What it said before is forgotten: where nodes come and go, most of that is addresses that nobody answers at.
        """
        user = urlsplit(server).netloc.rpartition("@")[0]
        found = [f"{each.scheme}://{user}{'@' if user else ''}{each.netloc}" for each in client.discovered_servers]
        kept = [each for each in self._servers if each in self._configured or each in found]
        known = {urlsplit(each).netloc.rpartition("@")[2] for each in kept}
        self._servers = kept + [each for each in found if urlsplit(each).netloc.rpartition("@")[2] not in known]

    async def _live(self, client: TappedClient, server: str) -> bool:
        """One link's life; False where it did not begin."""
        link: Link | None = None
        ended = False

        def on_end() -> None:
            nonlocal ended
            ended = True
            if link is not None:
                link.drop("the server has closed it")

        client.on_end = on_end

        async def on_error(error: Exception) -> None:
            # Why the server has closed it tells more than that it has.
            if not (self._last_error and isinstance(error, OSError)):
                self._last_error = str(error) or type(error).__name__

        s = self._settings
        try:
            await client.connect(
                servers=[server],
                name="signpost",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=s.connect_timeout_s,  # type: ignore[arg-type]  # an int in its signature only
                ping_interval=_PING_INTERVAL_S,
                skip_subject_validation=True,  # ours are, before they come here
                tls=self._tls,
                user=s.user,
                password=s.password,
                token=s.token,
                user_credentials=s.credentials_file,
                error_cb=on_error,
            )
            link = Link(client, s)
            await link.open()
        except FAILURES as error:
            self._last_error = self._last_error or str(error) or type(error).__name__
            _log.info("NATS at %s: %s", without_password(server), self._last_error)
            return False
        self._learn(server, client)
        if ended:
            return False
        self._link, self._last_error = link, ""
        self._linked.set()
        try:
            await link.lost.wait()
        finally:
            self._link = None
            link.end()
        return True


def unavailable() -> LogUnavailable:
    """What is raised while NATS is away."""
    return LogUnavailable("NATS does not answer", retry_after_s=1.0)
