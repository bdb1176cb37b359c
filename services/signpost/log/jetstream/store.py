"""The logs of one process on one NATS."""

from collections.abc import Sequence

from signpost.errors import LogRefused
from signpost.log.base import LogSettings, LogState, Store
from signpost.log.jetstream import streams
from signpost.log.jetstream.connection import Connection
from signpost.log.jetstream.log import JetStreamLog
from signpost.log.jetstream.settings import JetStreamSettings, without_password

_WORST_FIRST = (LogState.CLOSED, LogState.RECONNECTING, LogState.FULL, LogState.WRITABLE)


class JetStreamStore(Store):
    """Logs whose streams every process on the same NATS shares."""

    def __init__(self, connection: Connection, logs: dict[str, JetStreamLog]) -> None:
        self._connection, self._logs = connection, logs

    @classmethod
    async def open(
        cls, url: str, logs: Sequence[LogSettings], settings: JetStreamSettings | None = None
    ) -> "JetStreamStore":
        """Connect, make or check the streams, and start to follow them.

        Raises LogRefused when NATS does not answer within `open_timeout_s`, has no JetStream, or has a
        stream that is set otherwise; the text names which.
        """
        settings = settings or JetStreamSettings()
        connection = Connection(url, settings)
        await connection.open()
        opened: dict[str, JetStreamLog] = {}
        try:
            link = connection.link()
            needed = streams.MAX_MESSAGE_BYTES
            if link.client.max_payload < needed:
                raise LogRefused(
                    f"NATS at {without_password(url)} takes {link.client.max_payload} bytes a message; "
                    f"set its max_payload to at least {needed}"
                )
            for log in logs:
                opened[log.name] = JetStreamLog(
                    connection, log, settings, await streams.open_log(connection, log, settings)
                )
            for each in opened.values():
                await each.wait_until_followed(settings.open_timeout_s)
        except BaseException:
            for each in opened.values():
                await each.close()
            await connection.close()
            raise
        return cls(connection, opened)

    def __getitem__(self, name: str) -> JetStreamLog:
        return self._logs[name]

    @property
    def state(self) -> LogState:
        states = {log.state for log in self._logs.values()}
        return next((state for state in _WORST_FIRST if state in states), LogState.WRITABLE)

    async def close(self) -> None:
        for log in self._logs.values():
            await log.close()
        await self._connection.close()
