"""Addresses: sockets to listen on, with an error that names address and setting, and which of them are loopback.

Contract: what is returned listens already, so that whoever prints its address prints a true one, and no second
program can take it between a check and its use.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv6Address, ip_address

from postel.errors import AddressInUseError, PostelError


def listen(address: str, setting: str, *, backlog: int = 128) -> socket.socket:
    """Listen on an address.

    Args:
        address: ``host:port`` or ``[v6]:port``; port 0 picks a free one.
        setting: the key that a user changes when it cannot be had, such as ``[sink] http_address``.
        backlog: connections that wait to be accepted at most.

    Raises:
        AddressInUseError: another program listens there.
        PostelError: it cannot be listened on, for the reason that the message gives.
    """
    host, _, port = address.rpartition(":")
    try:
        # The protocol is given on purpose: asyncio sets TCP_NODELAY only on sockets that say TCP, and without it
        # each answer to a kept connection waits 40 ms for an acknowledgement.
        family, _, _, _, place = socket.getaddrinfo(host.strip("[]"), port, proto=socket.IPPROTO_TCP)[0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # A restart must not wait for connections in TIME_WAIT; on Linux this lets nobody share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(backlog)
            listener.setblocking(False)  # noqa: FBT003 - a positional-only argument
        except OSError:
            listener.close()
            raise
    except OSError as error:  # socket.gaierror is one
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(address, setting) from error
        raise PostelError(f"cannot listen on {address}: {error.strerror}; set {setting} to another address") from error
    except UnicodeError:
        # Names that cannot be one, such as "a..b", fail in their encoding.
        raise PostelError(f"cannot listen on {address}: not a host name; set {setting} to another address") from None
    return listener


def reachable(address: str) -> str:
    """Where this machine itself reaches what listens on an address: loopback, where that is every interface.

    Args:
        address: ``host:port`` or ``[v6]:port``.
    """
    host, _, port = address.rpartition(":")
    try:
        ip = ip_address(host.strip("[]"))
    except ValueError:
        return address
    if not ip.is_unspecified:
        return address
    return f"[::1]:{port}" if isinstance(ip, IPv6Address) else f"127.0.0.1:{port}"


def overlap(one: str, other: str) -> bool:
    """Whether two programs cannot listen on both addresses: one port, and one host or one of them everywhere.

    Args:
        one: ``host:port`` or ``[v6]:port``.
        other: the same.
    """
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if port != other_port:
        return False
    return host == other_host or reachable(one) != one or reachable(other) != other


def is_loopback(host: str) -> bool:
    """Whether a host name or address, with or without brackets, is this machine to itself."""
    name = host.strip("[]").lower()
    # RFC 6761 section 6.3: names below localhost are loopback too.
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
