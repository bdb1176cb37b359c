"""`signpost log`: the log itself, which the services keep: backup, restore, info."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from signpost.cli.errors import CommandError
from signpost.cli.output import Json, console, print_json, table, wants_json

app = typer.Typer(help="Back up and restore what the services keep.", no_args_is_help=True)

Log = Annotated[
    str,
    typer.Argument(
        metavar="LOG", help="As the service's --log: sqlite:///PATH or nats://HOST:PORT; or the path of a SQLite log."
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
Prefix = Annotated[str, typer.Option(metavar="NAME", help="On NATS: the prefix of the streams' names.")]
Credentials = Annotated[Path | None, typer.Option(metavar="FILE", help="On NATS: a .creds file.")]


@app.command()
def backup(
    log: Log, file: File, nats_prefix: Prefix = "signpost", nats_credentials: Credentials = None, json: Json = False
) -> None:
    """Write every record to a file. The service may run."""
    from signpost.log.backup import backup  # noqa: PLC0415 - the other commands do not need it

    url = _url(log)
    records = asyncio.run(backup(url, file, settings=_nats(url, nats_prefix, nats_credentials)))
    _say(json, f"{records:,} records are in {file}", {"file": str(file), "records": records})


@app.command()
def restore(
    log: Log, file: File, nats_prefix: Prefix = "signpost", nats_credentials: Credentials = None, json: Json = False
) -> None:
    """Bring a backup's records back, under a new epoch: no reader goes on from a position of before.

    On SQLite the service may run; on NATS stop whatever writes first.
    """
    from signpost.log.backup import restore  # noqa: PLC0415 - the other commands do not need it

    url = _url(log)
    records = asyncio.run(restore(url, file, settings=_nats(url, nats_prefix, nats_credentials)))
    _say(json, f"{records:,} records are back in {log}", {"log": log, "records": records})


@app.command()
def info(log: Log, nats_prefix: Prefix = "signpost", nats_credentials: Credentials = None, json: Json = False) -> None:
    """What a log or a backup holds. The service may run."""
    from signpost.log.describing import describe  # noqa: PLC0415 - the other commands do not need it

    url = _url(log)
    figures = asyncio.run(describe(url, settings=_nats(url, nats_prefix, nats_credentials)))
    if wants_json(json):
        for name, found in figures.items():
            print_json({"log": name, **found._asdict()})
        return
    numbers = ("records", "bytes", "subjects", "first", "last")
    rows = table("log", *numbers, right=numbers)
    for name, found in figures.items():
        rows.add_row(name, *(f"{figure:,}" for figure in found))
    console().print(rows)


def _url(log: str) -> str:
    return log if urlsplit(log).scheme else f"sqlite:///{Path(log).absolute()}"


def _nats(url: str, prefix: str, credentials: Path | None) -> Any:
    """The settings that NATS needs; None for SQLite."""
    if urlsplit(url).scheme == "sqlite":
        return None
    try:
        from signpost.log.jetstream import JetStreamSettings  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError:
        raise CommandError(f"{url} needs nats-py: pip install 'signpost[nats]'") from None
    return JetStreamSettings(prefix=prefix, credentials_file=credentials, open_timeout_s=5.0)


def _say(json: bool, line: str, answer: dict[str, Any]) -> None:
    if wants_json(json):
        print_json(answer)
    else:
        console().print(line)
