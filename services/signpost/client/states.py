"""The states of a connection, for those who want to look."""

import asyncio
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass

from signpost.errors import SignpostError

_log = logging.getLogger("signpost.client")


class State(enum.Enum):
    """Where a connection is. CLOSED is the end; every other state may come again."""

    CONNECTING = "connecting"  # the first try
    CONNECTED = "connected"  # the server has answered
    RECONNECTING = "reconnecting"  # it was lost, or the first try failed
    DRAINING = "draining"  # still served, moving to another server
    CLOSED = "closed"  # by the caller, or by an error that trying again does not mend


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change: of what, to which state, at which attempt, because of what."""

    stream: str
    state: State
    attempts: int
    error: SignpostError | None


class Status:
    """The state of one connection, its last error and how many attempts it took.

    Read the attributes at any time; `wait_for` waits; `on_change` is called in the event loop at
    every change and must not block. What it raises is logged and goes no further.
    """

    def __init__(self, stream: str, on_change: Callable[[StateChange], None] | None = None) -> None:
        self.stream = stream
        self.state = State.CONNECTING
        self.attempts = 0  # since the last time it was connected
        self.last_error: SignpostError | None = None
        self._on_change = on_change
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Status {self.stream}: {self.state.value}, {self.attempts} attempts, {self.last_error!r}>"

    async def wait_for(self, *states: State) -> State:
        """Return once the state is one of these; the state then. CLOSED ends every wait."""
        while self.state not in states and self.state is not State.CLOSED:
            await self._changed.wait()
        return self.state

    def move(self, state: State, error: SignpostError | None = None) -> None:
        """For the layer that owns the connection: go to a state. After CLOSED nothing changes."""
        if error is not None:
            self.last_error = error
        if state is self.state or self.state is State.CLOSED:
            return
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        change = StateChange(self.stream, state, self.attempts, error)
        fields = {"stream": self.stream, "state": state.value, "attempts": self.attempts}
        if error is not None:
            fields |= {"reason": error.reason, "error": error.message}
        _log.info("%s is %s", self.stream, state.value, extra=fields)
        if self._on_change is not None:
            try:
                self._on_change(change)
            except Exception:
                _log.exception("a state callback raised", extra=fields)
