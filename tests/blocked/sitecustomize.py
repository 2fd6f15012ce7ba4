"""Put on PYTHONPATH by tests: every connection that leaves this machine fails, in child processes too."""

import socket

_connect = socket.socket.connect


def _connect_here_only(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])  # type: ignore[index]
        if not (host.startswith("127.") or host in ("localhost", "::1")):
            raise OSError(f"blocked by the test: a connection to {host}")
    _connect(self, address)


socket.socket.connect = _connect_here_only  # type: ignore[method-assign]
