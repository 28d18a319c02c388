"""Recorded Zone-MTA pages, and what one of them must become."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

RECORDINGS = Path(str(files("otel_receivers.zone_mta"))) / "testdata"
JUST_STARTED = (RECORDINGS / "3.11.0" / "just-started.txt").read_bytes()
AFTER_TRAFFIC = (RECORDINGS / "3.11.0" / "after-traffic.txt").read_bytes()


def without_zones(page: bytes) -> bytes:
    """As servers say it that know no `zone` label: one line a status."""
    return (
        b"\n".join(
            line
            for line in page.split(b"\n")
            if not line.startswith(b"zonemta_delivery_status") or b'zone="default"' in line
        )
    ).replace(b',zone="default"', b"")


def large_page(size: int = 1 << 20) -> bytes:
    """A page of at least `size` bytes: the recorded one with thousands of zones."""
    head = b"# TYPE zonemta_delivery_status counter\n"
    lines: list[bytes] = []
    have = len(AFTER_TRAFFIC)
    zone = 0
    while have < size:
        for status in (b"delivered", b"rejected", b"deferred", b"unknown"):
            line = b'zonemta_delivery_status{status="%s",zone="zone-%05d"} %d\n' % (status, zone, zone * 7)
            lines.append(line)
            have += len(line)
        zone += 1
    return AFTER_TRAFFIC.replace(head, head + b"".join(lines))
