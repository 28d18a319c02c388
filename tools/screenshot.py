"""Makes ``docs/images``, the pictures in the documentation: sink, page and demo as they are, seen by Chromium.

    python -m tools.screenshot

Takes about a minute; everything runs on free ports with a database of its own and ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
from selenium import webdriver

from tools.bootstrap.programs import find_browser

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
# Picture -> the page, and whether it is dark.
PAGES = {
    "queues": ("/queues", "light"),
    "deliverability": ("/deliverability", "light"),
    "spam": ("/spam", "dark"),
    "mailboxes": ("/mailboxes", "light"),
    "hosts": ("/hosts", "dark"),
}
LARGEST_BYTES = 300 * 1024
_SHOWN = """
const cards = [...document.querySelectorAll(".card")].filter((card) => card.offsetHeight);
return cards.length > 0 && cards.every((card) => card.querySelector("canvas, tr"));
"""
_ALL_TOLD = "return [...document.querySelectorAll('.card .now')].every((now) => now.innerText)"
# What tests and this share: free ports, waiting, Chromium.
sys.path.append(str(ROOT / "tests"))

from support.page import answers, drawn, look, start_chromium  # noqa: E402 - after the path
from support.ports import free_ports  # noqa: E402
from support.running_postel import until  # noqa: E402


def main() -> None:
    """Start what is needed, wait until the demo's day is drawn, take the picture."""
    browser = find_browser()
    if not browser:
        raise SystemExit("Chromium and its driver are needed: `make test` installs them, or says why it cannot")
    # Not below a folder that others tidy: the database's own user must be able to enter it.
    with tempfile.TemporaryDirectory(prefix="postel-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        grpc, http, page, intake = (f"127.0.0.1:{port}" for port in free_ports(4))
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": name,
            "POSTEL_DATA_DIR": str(folder / "data"),
            "POSTEL_SINK__GRPC_ADDRESS": grpc,
            "POSTEL_SINK__HTTP_ADDRESS": http,
            "POSTEL_SERVE__ADDRESS": page,
            "POSTEL_INTAKE__ADDRESS": intake,
            "POSTEL_OTLP__ENDPOINT": f"http://{http}",
        }
        for program in ("sink", "serve", "demo"):
            stack.callback(_end, _start(program, environment, folder))
        until(lambda: answers(f"http://{page}/api/v1/healthz"), 60, "the page's database is there")
        until(lambda: _node(page), 60, "the demo has registered")
        chrome = start_chromium(browser, folder / "chromium")
        stack.callback(chrome.quit)
        look(chrome, width=1280, height=1040)
        chrome.get(f"http://{page}/?range=86400")
        until(lambda: len(drawn(chrome, "cpu").get("busy", ())) > 50, 60, "a day is drawn")  # noqa: PLR2004
        # The sink takes the day piece by piece; a card's head says what is now once that has come.
        until(lambda: chrome.execute_script(_ALL_TOLD), 60, "the day is drawn to its end")
        _keep("page", chrome)
        for picture, (address, scheme) in PAGES.items():
            look(chrome, width=1280, scheme=scheme)
            chrome.get(f"http://{page}{address}")
            until(lambda: chrome.execute_script(_SHOWN), 60, f"{picture} is drawn")
            height = chrome.execute_script("return document.documentElement.scrollHeight")
            look(chrome, width=1280, height=height, scheme=scheme)
            # ECharts draws at the browser's next frames.
            time.sleep(1)
            _keep(picture, chrome)


def _keep(name: str, chrome: webdriver.Chrome) -> None:
    picture = chrome.get_screenshot_as_png()
    if len(picture) > LARGEST_BYTES:
        raise SystemExit(f"{name} has {len(picture)} bytes, more than {LARGEST_BYTES}")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.png").write_bytes(picture)
    print(f"docs/images/{name}.png: {len(picture) // 1024} KiB")


def _start(program: str, environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "postel.cli", program]
    return subprocess.Popen(command, cwd=folder, env=environment)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()


def _node(page: str) -> bool:
    return bool(httpx.get(f"http://{page}/api/v1/nodes", timeout=10, trust_env=False).json()["nodes"])


if __name__ == "__main__":
    main()
