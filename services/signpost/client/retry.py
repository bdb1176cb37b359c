"""Retry: unary calls.

A call ends within its deadline, whatever happens: with the answer, or with the last error. A
repeatable call is tried again after a passing failure, with backoff and as RetryInfo says, as
long as the budget allows; a call that is not repeatable only where the server refused to begin.
"""

import asyncio

import grpc

from signpost.client.backoff import Backoff, BackoffCounter
from signpost.client.channels import Channels
from signpost.client.clock import Clock, Random, SystemClock, system_random
from signpost.client.errors import from_rpc_error, is_final, is_refusal
from signpost.client.instruments import Instruments, NoInstruments
from signpost.client.link import task_is_cancelled
from signpost.client.methods import Method, Req, Res
from signpost.client.settings import RetrySettings
from signpost.errors import DeadlineExceeded, Internal, SignpostError, Unauthenticated, Unavailable

_OTHERS_S = 86_400.0
"""How long other calls may stay on a connection that one has left, in seconds: as long as they last."""


class RetryBudget:
    """Keeps retries to a share of the calls, over all calls of a client.

    Every call pays in `ratio`, every retry takes out 1; `reserve` is the most that is kept, and
    what there is at the start; it comes back in `refill_s` seconds without a call.
    """

    def __init__(self, settings: RetrySettings, clock: Clock | None = None) -> None:
        self._ratio = settings.budget_ratio
        self._reserve = settings.budget_reserve
        self._per_s = settings.budget_reserve / settings.budget_refill_s
        self._clock = clock or SystemClock()
        self._at_s = self._clock.now_s()
        self.balance = settings.budget_reserve

    def _refill(self) -> None:
        now_s = self._clock.now_s()
        self.balance = min(self._reserve, self.balance + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s

    def called(self) -> None:
        """A call was made."""
        self._refill()
        self.balance = min(self._reserve, self.balance + self._ratio)

    def take(self) -> bool:
        """Whether one retry may be made; takes it out."""
        self._refill()
        if self.balance < 1:
            return False
        self.balance -= 1
        return True


class Retry:
    """Makes unary calls over the channels of one service."""

    def __init__(
        self,
        channels: Channels,
        settings: RetrySettings | None = None,
        backoff: Backoff | None = None,
        *,
        instruments: Instruments | None = None,
        clock: Clock | None = None,
        random: Random = system_random,
    ) -> None:
        self._channels = channels
        self._settings = settings or RetrySettings()
        self._backoff = backoff or Backoff()
        self._instruments = instruments or NoInstruments()
        self._clock = clock or SystemClock()
        self._random = random
        self.budget = RetryBudget(self._settings, self._clock)

    async def call(self, method: Method[Req, Res], request: Req, *, timeout_s: float | None = None) -> Res:
        """The answer. Raises a SignpostError: at once where trying again cannot help, otherwise the
        last one when the deadline (`timeout_s` for the whole, all tries included) or the budget ends.
        """
        deadline_s = self._clock.now_s() + (self._settings.timeout_s if timeout_s is None else timeout_s)
        counter = BackoffCounter(self._backoff, clock=self._clock, random=self._random)
        self.budget.called()
        refreshed = False
        while True:
            channel = self._channels.current
            remaining_s = deadline_s - self._clock.now_s()
            try_s = min(remaining_s, self._settings.try_timeout_s) if method.is_repeatable else remaining_s
            try:
                return await self._try(channel, method, request, try_s)
            except SignpostError as error:
                if isinstance(error, Unauthenticated) and not refreshed and self._channels.refresh_token():
                    refreshed = True
                    continue
                if not self._may_repeat(method, error):
                    raise
                if isinstance(error, DeadlineExceeded | Unavailable):
                    # The connection may be dead, or the server going. Or it is this call alone that waits: the others
                    # on it end in their own time, and notice by themselves where it is dead.
                    self._channels.leave(channel, grace_s=_OTHERS_S)
                delay_s = counter.failed(at_least_s=error.retry_after_s)
                if self._clock.now_s() + delay_s >= deadline_s or not self.budget.take():
                    raise
                await self._clock.sleep(delay_s)

    def _may_repeat(self, method: Method[Req, Res], error: SignpostError) -> bool:
        if is_refusal(error):
            return True
        return method.is_repeatable and not is_final(error) and not isinstance(error, Internal)

    async def _try(self, channel: grpc.aio.Channel, method: Method[Req, Res], request: Req, timeout_s: float) -> Res:
        metadata = await self._channels.metadata()
        measured = self._instruments.call(method, metadata)
        invoke = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        code = "CANCELLED"
        try:
            call = invoke(request, timeout=max(timeout_s, 0.001), metadata=metadata)
            measured.sent()
            answer: Res = await call
            measured.received()
            code = "OK"
        except grpc.RpcError as error:
            if isinstance(error, grpc.aio.AioRpcError):
                code = error.code().name
            raise from_rpc_error(error) from error
        except grpc.aio.UsageError as error:  # another call left this connection in the meantime
            raise Unavailable(str(error), reason="CONNECTION_CLOSED") from error
        except asyncio.CancelledError:
            if task_is_cancelled():
                raise
            raise Unavailable("the connection was closed", reason="CONNECTION_CLOSED") from None
        finally:
            measured.ended(code)
        return answer
