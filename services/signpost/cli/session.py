"""What the commands share: the addresses, clients that give up on a server that is not there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from signpost.cli.errors import is_no_answer, no_answer
from signpost.client import (
    ClientSettings,
    FeatureClient,
    NotificationClient,
    OutboxSettings,
    RetrySettings,
    State,
    StateChange,
    StreamSettings,
)
from signpost.errors import SignpostError

OnState = Callable[[StateChange], None]

FIRST_ANSWER_S = 2.0
"""How long a server that has never answered may go on not answering, in seconds."""
NEXT_ANSWER_S = 60.0
"""The same for one that has: a restart must not end a long import."""

SETTINGS = ClientSettings(
    retry=RetrySettings(timeout_s=5.0, try_timeout_s=4.0),
    stream=StreamSettings(connect_timeout_s=5.0),
    outbox=OutboxSettings(flush_timeout_s=1.0),
)


class Session:
    """The services that this run of the command talks to."""

    def __init__(self, feature: str, notification: str, token: str) -> None:
        self.feature, self.notification, self.token = feature, notification, token

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call carries that is made without one of the clients below."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @asynccontextmanager
    async def features(self, on_state: OnState | None = None) -> AsyncIterator[FeatureClient]:
        """A client of the feature service. Without `on_state` an outage ends the command; with it, it is told."""
        patience = Patience("feature", self.feature)
        async with (
            patience.bound(),
            FeatureClient(
                self.feature, token=self.token or None, settings=SETTINGS, on_state=on_state or patience.on_state
            ) as client,
        ):
            yield client

    @asynccontextmanager
    async def notifications(
        self, on_state: OnState | None = None, *, client_id: str = ""
    ) -> AsyncIterator[NotificationClient]:
        """The same for the notification service."""
        patience = Patience("notification", self.notification)
        async with (
            patience.bound(),
            NotificationClient(
                self.notification,
                client_id=client_id,
                token=self.token or None,
                settings=SETTINGS,
                on_state=on_state or patience.on_state,
            ) as client,
        ):
            yield client


class Patience:
    """Ends what runs in `bound` once a server has not answered for too long, with a CommandError that names it."""

    def __init__(self, service: str, target: str) -> None:
        self._service, self._target = service, target
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limit_s = FIRST_ANSWER_S
        self._error: SignpostError | None = None
        self._gave_up = False

    def on_state(self, change: StateChange) -> None:
        """For a client: what became of a connection."""
        if change.state is State.CONNECTED:
            self._limit_s = NEXT_ANSWER_S
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if change.state is State.RECONNECTING:
            self._error = change.error
            self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._give_up)

    def _give_up(self) -> None:
        self._gave_up = True
        if self._task is not None:
            self._task.cancel()

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Give up on the block where the server has not answered in time."""
        self._task = asyncio.current_task()
        try:
            yield
        except SignpostError as error:
            if is_no_answer(error):
                raise no_answer(self._service, self._target, error) from None
            raise
        except asyncio.CancelledError:
            if not self._gave_up:
                raise
            assert self._task is not None  # noqa: S101 - it is what was cancelled
            self._task.uncancel()
            raise no_answer(self._service, self._target, self._error) from None
        finally:
            if self._timer is not None:
                self._timer.cancel()
