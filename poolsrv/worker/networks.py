"""Networks as the core takes them."""

import socket

from poolsrv.settings.kinds import Peers


def network(peers: Peers) -> tuple[int, int, bytes]:
    """Family, bits and bytes."""
    if peers == "unix":
        return socket.AF_UNIX, 0, b""
    family = socket.AF_INET if peers.version == 4 else socket.AF_INET6
    return family, peers.prefixlen, peers.network_address.packed
