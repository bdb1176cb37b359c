"""Free ports."""

import random
import socket

_FIRST, _LAST = 15_000, 30_000  # below the range from which the kernel takes the ports of outgoing connections


def free_port() -> int:
    """A loopback port that nobody listens on, on either IP version, and no outgoing connection will be given."""
    generator = random.SystemRandom()
    for _ in range(200):
        port = generator.randint(_FIRST, _LAST)
        if all(_is_free(family, host, port) for family, host in _LOOPBACKS):
            return port
    raise RuntimeError(f"no free port found between {_FIRST} and {_LAST}")


_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def _is_free(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return family is socket.AF_INET6 and "ssign" in str(error)  # "Cannot assign": this machine has no IPv6
    return True
