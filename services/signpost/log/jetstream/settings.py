"""How to reach NATS, and what its streams are made of."""

import dataclasses
import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from signpost.errors import LogRefused


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JetStreamSettings:
    """The engine's settings; every service and replica on the same streams needs the same `prefix`,
    `replicas` and `storage`.

    - `prefix`: streams are `<prefix>-<log>`, their subjects `<prefix>.<log>.>`. One token.
    - `replicas`: 1, 3 or 5 copies of each stream. With 3 an acknowledged record survives the loss of one
      node; with 1 it survives the server's process, not its machine's power.
    - `storage`: `memory` survives nothing but a lost connection.
    - `credentials_file`: a NATS `.creds` file; or `user` and `password`, or `token`. They may stand in the
      URL as well.
    - `tls_ca_file`, `tls_cert_file`, `tls_key_file`: PEM. Any of them, or a `tls://` URL, turns TLS on.
    - `connect_timeout_s`: for one attempt on one server.
    - `open_timeout_s`: how long opening waits for NATS before it gives up.
    - `request_timeout_s`: how long the server may take to answer before the connection counts as lost. Less
      notices a frozen server sooner, more bears a slow disk.
    - `publish_timeout_s`: an append that is not acknowledged by then is answered LogUnavailable. Time in which this
      process is stopped does not count.
    - `heartbeat_s`: how often the server says that the follower is alive; three missed and it starts anew.
    - `reconnect_min_s`, `reconnect_max_s`: bounds of the pause between attempts, which doubles, with jitter.
    - `max_in_flight`: records on the wire without an acknowledgement. More fills a slow link, less keeps a
      server from queueing.
    - `max_queue_records`, `max_queue_bytes`: appends that wait in this process; beyond them `submit` refuses.
    """

    prefix: str = "signpost"
    replicas: int = 1
    storage: Literal["file", "memory"] = "file"
    credentials_file: Path | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    connect_timeout_s: float = 2.0
    open_timeout_s: float = 30.0
    request_timeout_s: float = 5.0
    publish_timeout_s: float = 10.0
    heartbeat_s: float = 1.0
    reconnect_min_s: float = 0.05
    reconnect_max_s: float = 2.0
    max_in_flight: int = 4096
    max_queue_records: int = 65_536
    max_queue_bytes: int = 64 * 1024 * 1024

    def tls_context(self, *, wanted: bool) -> ssl.SSLContext | None:
        """The TLS context, if the settings or the URL ask for TLS."""
        if not (wanted or self.tls_ca_file or self.tls_cert_file):
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
            if self.tls_cert_file is not None:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        except (OSError, ssl.SSLError) as error:
            raise LogRefused(f"the TLS files for NATS cannot be used: {error}") from error
        return context


def servers_of(url: str) -> list[str]:
    """The servers of `nats://a:4222,b:4222` (or several full URLs, joined by commas), one URL each.

    Raises LogRefused where one has no host, or a port that is none.
    """
    scheme = urlsplit(url).scheme
    each = [part.strip() for part in url.split(",") if part.strip()]
    servers = [part if "://" in part else f"{scheme}://{part}" for part in each]
    if not all(map(_is_server, servers)):
        raise LogRefused(f"{without_password(url)!r} names no server: write nats://HOST:PORT")
    return servers


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def without_password(url: str) -> str:
    """The URL as it may stand in a log line or an error."""
    return ",".join(part.rpartition("@")[2] if "@" in part else part for part in url.split(","))
