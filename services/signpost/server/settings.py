"""Settings: from flags, then the environment (`SIGNPOST_...`), then defaults; wrong ones end in one line.

`ServerSettings` holds what every service has; a service subclasses it and adds fields, each with a
default and a description that gives unit, range and trade-off. The flag of `data_dir` is
`--data-dir`, its variable `SIGNPOST_DATA_DIR`.
"""

import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, SettingsConfigDict, SettingsError

from signpost.server.addresses import Address

EXIT_USAGE = 2
"""The exit code for a wrong setting, a port already taken or data that cannot be read."""

Addresses = Annotated[tuple[str, ...], NoDecode]


class ServerSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix="SIGNPOST_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=False,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    default_database: ClassVar[str] = "signpost.db"
    """File name in `data_dir` where `log` is not set."""
    distribution: ClassVar[str] = "signpost"
    """The installed package whose version `--version` tells."""

    listen: Addresses = Field(
        default=("localhost:50051",),
        description="Where to serve gRPC, host:port, comma-separated or repeated. `localhost` means the IPv4 and the "
        "IPv6 loopback; `[::]` everything; port 0 a free one, which the first log line names",
    )
    metrics_listen: Addresses = Field(
        default=("localhost:9101",),
        description="Where to serve Prometheus metrics over HTTP at /metrics, as --listen; `off`: nowhere",
    )
    data_dir: Path = Field(default=Path("data"), description="Directory of the data files; made where it is missing")
    log: str | None = Field(
        default=None,
        description="Log engine: sqlite:///PATH or nats://HOST:PORT. Default: a SQLite file in --data-dir",
    )

    nats_prefix: str = Field(
        default="signpost",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="With nats://: the streams are named PREFIX-LOG",
    )
    nats_replicas: Annotated[Literal[1, 3, 5], BeforeValidator(int)] = Field(
        default=1,
        description="With nats://: copies of each stream. 3 survive the loss of a node; each costs disk and time",
    )
    nats_credentials_file: Path | None = Field(
        default=None, description="With nats://: a .creds file; a user and password may stand in the URL instead"
    )
    nats_tls_ca_file: Path | None = Field(
        default=None, description="With nats://: PEM file of the authorities to trust"
    )
    nats_tls_cert_file: Path | None = Field(default=None, description="With nats://: PEM file of our own certificate")
    nats_tls_key_file: Path | None = Field(default=None, description="With nats://: PEM file of its key")

    max_message_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=64 * 1024,
        le=1 << 30,
        description="Largest message either side may send, in bytes, before compression; larger costs memory a call",
    )
    compression: Literal["none", "gzip"] = Field(
        default="none", description="Compression of what the server sends: saves bandwidth, costs CPU time"
    )
    max_connection_age_s: float = Field(
        default=0,
        ge=0,
        description="Close connections older than this, in seconds, so that load spreads; 0: never",
    )
    max_connection_age_grace_s: float = Field(
        default=30,
        gt=0,
        description="How long streams on such a connection may go on, in seconds; then they must resume",
    )
    keepalive_s: float = Field(
        default=60, ge=1, description="HTTP/2 ping on a connection this quiet, in seconds: finds a network that is gone"
    )
    keepalive_timeout_s: float = Field(
        default=20, ge=1, description="How long such a ping may go unanswered, in seconds"
    )
    keepalive_min_client_s: float = Field(
        default=10, ge=1, description="Clients that ping more often than this, in seconds, are cut off (too_many_pings)"
    )
    read_ahead_bytes: int = Field(
        default=256 * 1024,
        ge=0,
        description="HTTP/2 read-ahead a stream, in bytes: what a stopped reader or a flooding client can occupy; "
        "0: let gRPC grow it to the bandwidth-delay product (faster far away, megabytes a stream)",
    )
    max_pending_calls: int = Field(
        default=100_000,
        ge=1,
        description="Calls that may wait for the server to take them up; too few and storms are refused",
    )
    heartbeat_s: float = Field(
        default=15,
        ge=0.05,
        le=3600,
        description="Sign of life on quiet streams, in seconds; a peer is dead after 2 missed",
    )
    drain_s: float = Field(
        default=10, ge=0, description="After SIGTERM: how long streams have to move to another server, in seconds"
    )
    stop_s: float = Field(
        default=5, ge=0, description="After that: how long calls have to end by themselves, in seconds"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="One JSON object a line, or text for people; auto: text on a terminal"
    )
    log_calls: Literal["none", "errors", "all"] = Field(
        default="errors",
        description="Which calls get a line when they end; errors: those with neither OK nor CANCELLED",
    )

    @field_validator("listen", "metrics_listen", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _parse_listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Address.parse(text)
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _parse_metrics_listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return () if value == ("off",) else cls._parse_listen(value)

    def engine_settings(self) -> object | None:
        """What the log's engine is told besides the URL; None where it takes nothing."""
        if self.log is None or self.log.startswith(("sqlite:", "memory:")):
            return None
        from signpost.log.jetstream.settings import JetStreamSettings  # noqa: PLC0415 - needs an extra

        return JetStreamSettings(
            prefix=self.nats_prefix,
            replicas=self.nats_replicas,
            credentials_file=self.nats_credentials_file,
            tls_ca_file=self.nats_tls_ca_file,
            tls_cert_file=self.nats_tls_cert_file,
            tls_key_file=self.nats_tls_key_file,
        )

    @property
    def log_name(self) -> str:
        """The log's URL as it may be shown: without a user and password."""
        return re.sub(r"(^|,|//)[^,/@]+@", r"\1", self.log_url)

    @property
    def log_url(self) -> str:
        """The engine to open: `log`, or the default file in `data_dir`."""
        return self.log or f"sqlite:///{(self.data_dir / self.default_database).absolute()}"


SettingsT = TypeVar("SettingsT", bound=ServerSettings)


def load_settings(settings_class: type[SettingsT], argv: Sequence[str] | None = None, *, program: str) -> SettingsT:
    """Settings from `argv` (None: the process's) and the environment.

    Exits with one line on stderr and code 2 where one is wrong, with code 0 after `--help` and `--version`.
    """
    flags = CliSettingsSource[Any](settings_class, cli_prog_name=program)
    name = settings_class.distribution
    flags.root_parser.add_argument("--version", action="version", version=f"{name} {metadata.version(name)}")
    sources: dict[str, Any] = {"_cli_settings_source": flags}
    try:
        flags(args=list(sys.argv[1:] if argv is None else argv))
        return settings_class(**sources)
    except ValidationError as error:
        refuse(program, "; ".join(_problem(item) for item in error.errors()))
    except SettingsError as error:
        refuse(program, f"{error} (see --help)")


def refuse(program: str, reason: object) -> NoReturn:
    """End the process: one line on stderr, exit code 2."""
    text = " ".join(str(reason).split())
    print(f"{program}: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the one line that a person must see
    raise SystemExit(EXIT_USAGE)


def _problem(item: Any) -> str:
    name = str(item["loc"][0]) if item["loc"] else "settings"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"--{name.replace('_', '-')} (SIGNPOST_{name.upper()}): {message}, got {item['input']!r}"
