"""From whatever went wrong to one line that says what to do next, and an exit code."""

import typer

from signpost.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    SessionFenced,
    SignpostError,
    StaleSequence,
    StorageFull,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

_NEXT: dict[type[SignpostError], str] = {
    Unauthenticated: "give a token with --token or SIGNPOST_TOKEN",
    PermissionDenied: "ask for another token",
    StaleSequence: "get it again and look at what changed",
    StorageFull: "make room on the server's disk, then try again",
    SessionFenced: "another session with this client id took over; choose another --client-id",
    Unimplemented: "is it older than this command?",
}


class CommandError(Exception):
    """A line for the user, ready as it is."""


def explain(error: Exception) -> tuple[str, int]:
    """The line without its prefix, and the exit code. No line where the help has been shown instead."""
    if isinstance(error, typer.TyperException):
        said = _sentence(error.format_message())
        return f"{said} (see --help)" if said else "", error.exit_code
    if isinstance(error, typer.Abort):
        return "stopped", 1
    if isinstance(error, InvalidArgument) and error.violations:
        return "; ".join(f"{item.field}: {item.description}" for item in error.violations), 1
    if isinstance(error, SignpostError):
        hint = next((text for kind, text in _NEXT.items() if isinstance(error, kind)), "")
        return _line(f"{_sentence(error.message)}; {hint}" if hint else error.message), 1
    if isinstance(error, UnicodeEncodeError):
        return "an argument is not UTF-8, and so cannot be sent", 1
    if isinstance(error, CommandError | ValueError):
        return _line(str(error)), 1
    if isinstance(error, OSError):
        return _line(f"{error.filename}: {error.strerror}" if error.filename else str(error)), 1
    return _line(f"this is a fault of ours, please report it: {type(error).__name__}: {error}"), 1


def no_answer(service: str, target: str, error: SignpostError | None) -> CommandError:
    """The error for a service that cannot be reached."""
    why = f" ({_sentence(_cause(error.message))})" if error is not None else ""
    return CommandError(
        f"the {service} service does not answer at {target}{why}; start it (make run) or name another with --{service}"
    )


def trying_on(error: SignpostError | None) -> str:
    """The remark for a stream that was lost and is being opened again."""
    return f"not connected, trying on ({_sentence(_cause(error.message)) if error else 'the stream ended'})"


def is_no_answer(error: SignpostError) -> bool:
    """Whether an error says that the server cannot be reached, not that it refuses."""
    return isinstance(error, Unavailable | DeadlineExceeded)


def _cause(message: str) -> str:
    """The last cause in a line of gRPC's, which names every address that it tried."""
    return message.rpartition("last error: ")[2].rpartition(": ")[2] if "last error: " in message else message


def _sentence(text: str) -> str:
    return _line(text).rstrip(".")


def _line(text: str) -> str:
    return " ".join(text.split())
