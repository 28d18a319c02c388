"""``make audit``: asks OSV whether faults are known in what Postel is made of, and fails where there are.

Contract: asked about are the locked packages of Python and npm, and the Go modules that are linked into the Collector.
The exit code is 1 where a fault is known that ``requirements/accepted.toml`` does not accept, and 2 where the question
was wrong. Where OSV cannot be asked, a line says so and of how many packages nothing is known; that is no failure,
since not every machine that builds reaches it, unless ``--required`` makes it one, with 3.

Source: https://google.github.io/osv.dev/post-v1-querybatch/ and /get-v1-vulns/; OSV schema 1.x (``aliases``,
``withdrawn``).
"""

from __future__ import annotations

import argparse
import json
import re
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from postel.collector import built_collector
from tools.bootstrap.collector import find_go
from tools.bootstrap.console import CHECKOUT

OSV = "https://api.osv.dev"
# Of one request, by OSV's documentation.
_BATCH = 1000
_SECONDS = 30.0
_ACCEPTED = CHECKOUT / "requirements" / "accepted.toml"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_MODULE = re.compile(r"^\t(dep|=>)\t(\S+)\tv(\S+)", re.MULTILINE)
_GO = re.compile(r": go(\d+\.\d+(?:\.\d+)?)")


class UnreachableError(Exception):
    """OSV did not answer, or something between did in its place; the message is why."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is asked about.

    Attributes:
        ecosystem: in OSV's words.
        where: that says it is used.
    """

    ecosystem: str
    name: str
    version: str
    where: str

    @property
    def query(self) -> dict[str, Any]:
        """For OSV."""
        return {"package": {"ecosystem": self.ecosystem, "name": self.name}, "version": self.version}


def packages() -> list[Package]:
    """All that the locks name, and the modules of the Collector, where it is built; each once."""
    found: dict[tuple[str, str, str], Package] = {}
    for package in (*_of_python(), *_of_npm(), *_of_collector()):
        found.setdefault((package.ecosystem, package.name, package.version), package)
    return [*found.values()]


def _of_python() -> Iterator[Package]:
    # Those that Postel runs on first: the others are of who develops it.
    for name in ("runtime", "uv", "go", "dev"):
        text = (CHECKOUT / "requirements" / f"{name}.txt").read_text("utf-8")
        yield from (Package("PyPI", found[1], found[2], f"requirements/{name}.txt") for found in _PINNED.finditer(text))


def _of_npm() -> Iterator[Package]:
    lock = json.loads((CHECKOUT / "mail_plugins" / "package-lock.json").read_text("utf-8"))
    for path, entry in lock["packages"].items():
        _, inside, name = path.rpartition("node_modules/")
        # The plugins themselves are links to folders beside it.
        if inside and not entry.get("link"):
            yield Package("npm", entry.get("name", name), entry["version"], "mail_plugins/package-lock.json")


def _of_collector() -> Iterator[Package]:
    program = built_collector(CHECKOUT)
    if program and program.exists() and (go := find_go()):
        told = subprocess.run([go, "version", "-m", program], capture_output=True, text=True, check=True).stdout
        yield from modules(told)


def modules(told: str) -> Iterator[Package]:
    """What ``go version -m`` tells of a program: its modules, those in place of others, and Go's own library."""
    if go := _GO.search(told):
        yield Package("Go", "stdlib", go[1], "the Collector")
    found: list[Package] = []
    for kind, name, version in _MODULE.findall(told):
        if kind == "=>":
            found.pop()
        found.append(Package("Go", name, version, "the Collector"))
    # One of this repository's folders has no version.
    yield from (package for package in found if package.version != "0.0.0")


class Osv:
    """The database.

    Args:
        client: to where it is.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def known(self, asked: Sequence[Package]) -> Iterator[tuple[Package, str]]:
        """Each fault that is known, by its id.

        Raises:
            UnreachableError: it cannot be asked.
            httpx.HTTPStatusError: it does not understand the question.
        """
        open_ = [(package, package.query) for package in asked]
        while open_:
            again: list[tuple[Package, dict[str, Any]]] = []
            for start in range(0, len(open_), _BATCH):
                batch = open_[start : start + _BATCH]
                answer = self._answer("POST", "/v1/querybatch", {"queries": [query for _, query in batch]})
                results = answer.get("results")
                if not isinstance(results, list) or len(results) != len(batch):
                    raise UnreachableError("the answer is not of OSV")
                for (package, query), result in zip(batch, results, strict=True):
                    yield from ((package, fault["id"]) for fault in result.get("vulns", ()))
                    if token := result.get("next_page_token"):
                        again.append((package, {**query, "page_token": token}))
            open_ = again

    def fault(self, number: str) -> Mapping[str, Any]:
        """The record of a fault; empty where it is not to be had."""
        try:
            return self._answer("GET", f"/v1/vulns/{number}")
        except (UnreachableError, httpx.HTTPStatusError):
            return {}

    def _answer(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body)
            answer = response.json()
        except (httpx.TransportError, ValueError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from None
        if response.status_code != httpx.codes.BAD_REQUEST and not response.is_success:
            raise UnreachableError(f"HTTP {response.status_code}")
        response.raise_for_status()
        if not isinstance(answer, dict):
            raise UnreachableError("the answer is not of OSV")
        return answer


def accepted(text: str, today: str) -> frozenset[str]:
    """The ids that a file of accepted faults still accepts on a day (ISO 8601)."""
    return frozenset(
        number
        for number, entry in tomllib.loads(text).items()
        if entry["reason"] and entry["until"].isoformat() >= today
    )


def audit(osv: Osv, asked: Sequence[Package], taken: frozenset[str]) -> tuple[int, str | None]:
    """Print each fault that is known and not accepted.

    Returns:
        How many, and why OSV could not be asked about all; None: it could.
    """
    found = 0
    try:
        for package, number in osv.known(asked):
            fault = osv.fault(number)
            names = {number, *fault.get("aliases", ())}
            if "withdrawn" in fault or names & taken:
                continue
            found += 1
            summary = fault.get("summary") or f"{OSV.replace('api.', '')}/vulnerability/{number}"
            print(f"audit: {package.where}: {package.name} {package.version}: {', '.join(sorted(names))}: {summary}")
    except UnreachableError as error:
        return found, str(error)
    return found, None


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, and say.

    Returns:
        The exit code, as the module's head has it.
    """
    parser = argparse.ArgumentParser(prog="make audit", description="Ask OSV for known faults in dependencies.")
    parser.add_argument("--required", action="store_true", help="fail where OSV cannot be asked")
    parser.add_argument("--url", default=OSV, help="of OSV or a mirror of it (%(default)s)")
    options = parser.parse_args(arguments)
    asked = packages()
    if not any(package.ecosystem == "Go" for package in asked):
        print("audit: no Collector is built, or no Go is there: its modules are not asked about")
    taken = accepted(_ACCEPTED.read_text("utf-8"), datetime.now(UTC).date().isoformat())
    # The machine's certificates: a company's proxy has one of its own.
    with httpx.Client(base_url=options.url, timeout=_SECONDS, verify=ssl.create_default_context()) as client:
        try:
            found, why = audit(Osv(client), asked, taken)
        except httpx.HTTPStatusError as error:
            print(f"audit: OSV does not understand the question: {error.response.text}")
            return 2
    if why:
        print(f"audit: COULD NOT ASK {options.url} ({why}): of {len(asked)} packages nothing more is known")
    if found:
        print(f"audit: {found} known faults; one that does no harm here goes into requirements/accepted.toml")
        return 1
    if why:
        return 3 if options.required else 0
    print(f"audit: no known fault in {len(asked)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
