"""The command line put together: global options, one module for each group of commands, errors at the end."""

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from signpost.cli import chat, features, fences, health, importing, listening, locating, logs, publishing, watching
from signpost.cli.errors import explain
from signpost.cli.session import Session
from signpost.client.feature_client import DEFAULT_TARGET as FEATURE_TARGET
from signpost.client.notification_client import DEFAULT_TARGET as NOTIFICATION_TARGET

app = typer.Typer(
    name="signpost",
    help="Ask what is around a place, hear when it changes, publish and listen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _token(text: str) -> str:
    """A token that can be sent; the end of the line that it was read from is no part of it."""
    token = text.strip()
    if not (token.isascii() and token.isprintable()):
        raise typer.BadParameter("a token is of printable ASCII characters")
    return token


def _version(asked: bool) -> None:
    """The version that is installed, and nothing else."""
    if asked:
        typer.echo(f"signpost {metadata.version('signpost')}")
        raise typer.Exit


@app.callback()
def connect(
    context: typer.Context,
    feature: Annotated[
        str, typer.Option(envvar="SIGNPOST_FEATURE", metavar="HOST:PORT", help="Where the feature service is.")
    ] = FEATURE_TARGET,
    notification: Annotated[
        str,
        typer.Option(envvar="SIGNPOST_NOTIFICATION", metavar="HOST:PORT", help="Where the notification service is."),
    ] = NOTIFICATION_TARGET,
    token: Annotated[
        str,
        typer.Option(
            envvar="SIGNPOST_TOKEN",
            metavar="TOKEN",
            callback=_token,
            help="Bearer token, where the services ask for one.",
        ),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """What every command can be told."""
    context.obj = Session(feature, notification, token)


for group in (features, importing, locating, watching, publishing, listening, chat, health):
    group.register(app)
app.add_typer(fences.app, name="fence")
app.add_typer(logs.app, name="log")


def main() -> int:
    """Run the command that the arguments name; answers the exit code."""
    try:
        code = app(standalone_mode=False)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing to say, and nobody to say it to at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line, code = explain(error)
        if line:
            print(f"signpost: {line}", file=sys.stderr)  # noqa: T201 - the one line
        return code
    return code if isinstance(code, int) else 0
