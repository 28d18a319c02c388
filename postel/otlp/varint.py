"""Protobuf's varints: seven bits a byte, the lowest first, and a bit that says whether more follow. Pure.

Source: protobuf's "Encoding", "Base 128 Varints".
"""

from __future__ import annotations

_MORE = 0x80
# 64 bits at most; the tenth byte holds one of them.
_SHIFTS = range(0, 70, 7)


def read(body: bytes, position: int) -> tuple[int, int]:
    """A varint, and where it ends.

    Raises:
        ValueError: there is none.
    """
    value = 0
    for shift in _SHIFTS:
        if position >= len(body):
            break
        byte = body[position]
        position += 1
        if byte < _MORE:
            return value | byte << shift, position
        value |= (byte ^ _MORE) << shift
    raise ValueError("no varint")


def encoded(value: int) -> bytes:
    """A number from 0 on."""
    made = bytearray()
    while value >= _MORE:
        made.append(value & 0x7F | _MORE)
        value >>= 7
    return bytes([*made, value])
