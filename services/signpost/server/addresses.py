"""Addresses to listen on: parsing, what `localhost` means, and whether they are free."""

import errno
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port. `host` is a name or an address without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From `host:port` or `[address]:port`; raises ValueError with what is wrong."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("expected host:port with a port from 0 to 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("put an IPv6 address in brackets, as in [::1]:50051")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def expand(address: Address) -> list[Address]:
    """The numeric addresses meant: for `localhost` the loopbacks that this machine has, IPv4 first."""
    if address.host != "localhost":
        return [address]
    return [Address(host, address.port) for host in ("127.0.0.1", "::1") if _exists(host)]


def check_free(address: Address) -> None:
    """Raise OSError, saying which address and why, where it cannot be listened on now.

    gRPC reports a failed bind with several lines of its own and no reason; asking first gives the reason.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except OSError as error:
        reason = "it is already in use" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise OSError(f"cannot listen on {address}: {reason}") from error


def _exists(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
