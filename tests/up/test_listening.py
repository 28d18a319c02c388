"""Which address reaches what listens on another one."""

import pytest

from postel.errors import PostelError
from postel.listening import listen, reachable


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0:3001", "127.0.0.1:3001"),
        ("[::]:3001", "[::1]:3001"),
        ("[0:0:0:0:0:0:0:0]:3001", "[::1]:3001"),
        ("192.0.2.7:3001", "192.0.2.7:3001"),
        ("mail.example.org:3001", "mail.example.org:3001"),
        ("localhost:3001", "localhost:3001"),
    ],
)
def test_every_interface_is_reached_by_loopback(address: str, reached: str) -> None:
    assert reachable(address) == reached


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_what_is_no_host_name_is_said_with_its_setting(host: str) -> None:
    with pytest.raises(PostelError, match=r"not a host name; set \[serve\] address to another address"):
        listen(f"{host}:3001", "[serve] address")
