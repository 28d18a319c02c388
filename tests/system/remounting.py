"""Mounts a filesystem, makes it read-only between two ticks and prints the events: in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from otel_receivers.epochs import Epochs
from otel_receivers.system.receiver import SystemReceiver
from postel.signals import load_all
from support.hosts import INTERVAL, event_attributes, node, tick


def main(point: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], check=True)
    receiver = SystemReceiver(load_all()["system"], node(), Epochs(), interval=INTERVAL)
    told = [event_attributes(receiver.collect_now(tick(0)))]
    subprocess.run(["mount", "-o", "remount,ro", point], check=True)
    told.append(event_attributes(receiver.collect_now(tick(1))))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
