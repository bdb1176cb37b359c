"""What every long stream does when it is lost: decide, wait, come back.

One `Reconnector` a stream. It keeps the state that the caller may look at, and holds the rules:
final errors surface, passing ones are waited out with backoff, an expired token is refreshed
once, a server's internal error is tried a few times, a dead or draining connection is left.
"""

import grpc

from signpost.client.backoff import Backoff, BackoffCounter
from signpost.client.channels import Channels
from signpost.client.clock import Clock, Random, SystemClock, system_random
from signpost.client.errors import is_final
from signpost.client.instruments import Instruments, NoInstruments
from signpost.client.settings import StreamSettings
from signpost.client.states import State, Status
from signpost.errors import DeadlineExceeded, Draining, Internal, SignpostError, Unauthenticated, Unavailable


class Reconnector:
    """The rules and the state of one stream."""

    def __init__(
        self,
        channels: Channels,
        status: Status | None = None,
        *,
        backoff: Backoff | None = None,
        settings: StreamSettings | None = None,
        instruments: Instruments | None = None,
        clock: Clock | None = None,
        random: Random = system_random,
    ) -> None:
        self.channels = channels
        self.status = status or Status(channels.service)
        self.settings = settings or StreamSettings()
        self.instruments = instruments or NoInstruments()
        self._clock = clock or SystemClock()
        self._counter = BackoffCounter(backoff or Backoff(), clock=self._clock, random=random)
        self._refreshed = False
        self._faults = 0

    def opening(self) -> None:
        """Another attempt begins."""
        self.status.attempts += 1

    def established(self) -> None:
        """The server has answered."""
        if self.status.state is State.RECONNECTING:
            self.instruments.reconnected(self.status.stream)
        self._counter.connected()
        self._refreshed = False
        self._faults = 0
        self.status.move(State.CONNECTED)
        self.status.attempts = 0

    def draining(self) -> None:
        """The server is going away; the stream is still served."""
        self.status.move(State.DRAINING)

    async def lost(self, error: SignpostError, channel: grpc.aio.Channel | None = None) -> None:
        """Wait until the next attempt, or raise `error` where there will be none."""
        if isinstance(error, Unauthenticated) and not self._refreshed and self.channels.refresh_token():
            self._refreshed = True
            self.status.move(State.RECONNECTING, error)
            return
        if isinstance(error, Internal):
            self._faults += 1
        if is_final(error) or self._faults >= self.settings.fault_limit:
            self.close(error)
            raise error
        if channel is not None and isinstance(error, Unavailable | DeadlineExceeded):
            # What is silent is dead, for every call on it; a connection that was merely lost, or
            # that drains, lets the others finish.
            self.channels.leave(channel, grace_s=None if error.reason == "SILENT" else 30.0)
        self.status.move(State.RECONNECTING, error)
        # Another server may be asked at once: how long to wait is about the one that drains.
        elsewhere = isinstance(error, Draining) and len(self.channels.targets) > 1
        await self._clock.sleep(self._counter.failed(at_least_s=None if elsewhere else error.retry_after_s))

    def close(self, error: SignpostError | None = None) -> None:
        """The end; `error` says why, unless the caller wanted it."""
        self.status.move(State.CLOSED, error)
