"""Connections to one service: several addresses, one channel at a time to each.

A target is what gRPC takes: `host:port`, `dns:///name:port` (every address behind the name, round
robin), `ipv4:1.2.3.4:1,5.6.7.8:2`. A list of targets is tried in turn: a client stays where it is
until that fails or drains.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable

import grpc

from signpost.client.errors import CLOSED
from signpost.client.settings import ChannelSettings
from signpost.errors import Unavailable

_CLOSE_S = 1.0
"""How long the end waits for calls on connections that were left, in seconds."""

TokenSource = Callable[[], str | Awaitable[str]]
"""Answers a fresh bearer token; called first when one is needed and again when it is refused."""


def _options(service: str, settings: ChannelSettings) -> list[tuple[str, str | int]]:
    service_config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if settings.health_checking:
        service_config["healthCheckConfig"] = {"serviceName": service}
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config)),
        # Our own backoff decides when to try; the channel's must not add to it.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A new channel must mean a new connection: that is how a dead one is left behind.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
    ]
    if settings.keepalive_s is not None:
        options += [
            ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(settings.keepalive_s * 1000)),
        ]
    return options


class Channels:
    """The channels to one service. `current` is the one to use now."""

    def __init__(
        self,
        targets: str | Sequence[str],
        service: str,
        settings: ChannelSettings | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | TokenSource | None = None,
    ) -> None:
        self.targets = [targets] if isinstance(targets, str) else list(targets)
        if not self.targets:
            raise ValueError("no target to connect to")
        settings = settings or ChannelSettings()
        self.service = service
        self._options = _options(service, settings)
        self._compression = grpc.Compression.Gzip if settings.compression else None
        self._credentials = credentials
        self._token_source = token
        self._token: str | None = token if isinstance(token, str) else None
        self._index = random.randrange(len(self.targets))  # noqa: S311 - clients spread over the servers
        self._channel: grpc.aio.Channel | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self.closed = False

    @property
    def target(self) -> str:
        """The target in use."""
        return self.targets[self._index]

    @property
    def current(self) -> grpc.aio.Channel:
        """The channel in use, made when first asked for."""
        if self.closed:
            raise Unavailable("the client is closed", reason=CLOSED)
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.target, self._options, self._compression)
            else:
                self._channel = grpc.aio.secure_channel(
                    self.target, self._credentials, self._options, self._compression
                )
        return self._channel

    def leave(self, channel: grpc.aio.Channel, *, grace_s: float | None = None) -> None:
        """Use another connection from now on: the next target's, or a new one to the only target.

        Does nothing if `channel` was left before. Calls on it get `grace_s` seconds to end (None:
        they are cancelled at once).
        """
        if channel is not self._channel:
            return
        self._index = (self._index + 1) % len(self.targets)
        self._channel = None
        task = asyncio.create_task(channel.close(grace_s))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def metadata(self) -> list[tuple[str, str]]:
        """The metadata that every call carries."""
        if self._token_source is None:
            return []
        if self._token is None and callable(self._token_source):
            token = self._token_source()
            self._token = await token if isawaitable(token) else token
        return [("authorization", f"Bearer {self._token}")]

    def refresh_token(self) -> bool:
        """Forget the token; whether there is a source that can give another one."""
        if not callable(self._token_source):
            return False
        self._token = None
        return True

    async def close(self) -> None:
        """Close every channel; what is still open on them is cancelled."""
        self.closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)
        # A close that is cancelled leaves its connection open: those whose streams have ended come to their end first.
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=_CLOSE_S)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
