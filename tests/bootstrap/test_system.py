"""The distribution's programs: what set-up installs, what it says when it cannot, and what the tests then find."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.bootstrap import programs, system

# A package -> the programs that come with it; a program answers --version with the words behind the colon.
DEBIAN = {
    "rspamd": ["rspamd:Rspamd daemon version 3.4"],
    "redis-server": ["redis-server:Redis server v=7.0.15"],
    "nginx": ["nginx:nginx version: nginx/1.22.1"],
    "systemd": ["systemd-analyze:systemd 252"],
    "default-jre-headless": ["java:openjdk 17.0.15 2025-04-15"],
    "maven": ["mvn:Apache Maven 3.8.7"],
    "chromium": ["chromium:Chromium 156.0.1 built on Debian"],
    "chromium-driver": ["chromedriver:ChromeDriver 156.0.2"],
    "postgresql": ["postgres:postgres (PostgreSQL) 17.2", "initdb:", "pg_config:"],
}
# Ubuntu knows Chromium by other names, under which there is nothing that runs where snap does not.
UBUNTU = {
    **{name: made for name, made in DEBIAN.items() if not name.startswith("chromium")},
    "default-jre-headless": ["java:openjdk 11.0.27 2025-04-15"],
    "openjdk-17-jre-headless": ["java:openjdk 17.0.15 2025-04-15"],
    "chromium-browser": ["chromium-browser!needs the snap"],
    "chromium-chromedriver": [],
}
UBUNTU_WITH_SNAP = {
    **UBUNTU,
    "chromium-browser": ["chromium-browser:Chromium 160.0 snap"],
    "chromium-chromedriver": ["chromium.chromedriver:ChromeDriver 160.0"],
}
OLD = {"postgresql": ["postgres:postgres (PostgreSQL) 14.9", "initdb:", "pg_config:"]}
FIRST = ["rspamd", "redis-server", "nginx", "systemd", "default-jre-headless", "maven"]
EVERYTHING = [*FIRST, "chromium", "chromium-driver", "postgresql"]


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


class Machine:
    """A distribution whose apt knows some packages, on a machine that has none of them yet.

    As the real apt, it installs nothing of a line in which one name is unknown.
    """

    def __init__(self, folder: Path, packages: dict[str, list[str]]) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._asked = folder / "asked"
        known = folder / "known"
        for package, made in packages.items():
            files = known / package
            files.mkdir(parents=True)
            for each in made:
                name, _, says = each.partition("!" if "!" in each else ":")
                program(files, name, f"echo {says!r}" if "!" not in each else f"echo {says!r} >&2; exit 1")
        program(self.bin, "apt-cache", f'test "$1" = show && test -d {known}/"$2"')
        program(
            self.bin,
            "apt-get",
            f'echo "$*" >> {self._asked}\n'
            'while [ "$1" ] && [ "$1" != install ] && [ "$1" != update ]; do shift; done\n'
            '[ "$1" = update ] && exit\n'
            "shift 3\n"
            f'for name; do test -d {known}/"$name" || {{ echo "E: Unable to locate package $name"; exit 100; }}; done\n'
            f'for name; do cp {known}/"$name"/* {self.bin} 2>/dev/null; done; true',
        )
        (self.bin / "cp").symlink_to("/bin/cp")

    def installed(self) -> list[str]:
        """The packages that apt was asked for, in turn."""
        lines = self._asked.read_text().splitlines() if self._asked.exists() else []
        return [package for line in lines for package in line.partition("--no-install-recommends ")[2].split()]


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, request.param)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(system, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(system, "LOGS", tmp_path / "log")
    monkeypatch.setattr(programs, "_DEBIAN_POSTGRES", tmp_path / "lib" / "postgresql")
    monkeypatch.setattr(programs, "_DEBIAN_SERVERS", tmp_path / "lib" / "postgresql")
    monkeypatch.setattr(programs, "_DRIVERS", [name for name in programs._DRIVERS if not name.startswith("/")])
    return made


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("machine", [DEBIAN], indirect=True)
def test_on_debian_all_is_installed_and_found(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    system.ensure()
    assert machine.installed() == EVERYTHING
    assert [line for line in said(capsys) if "no " in line] == []
    assert programs.find_browser() == programs.Browser(machine.bin / "chromium", machine.bin / "chromedriver")
    assert programs.find_postgres() == [programs.PostgresServer(17, machine.bin)]
    assert programs.find_java() == programs.Java(machine.bin / "java", machine.bin / "mvn")
    system.ensure()
    assert machine.installed() == EVERYTHING, "nothing is asked for a second time"


@pytest.mark.parametrize("machine", [UBUNTU], indirect=True)
def test_what_cannot_be_had_is_named_and_holds_up_nothing_else(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    system.ensure()
    # The Java of the first name is too old.
    others = ["openjdk-17-jre-headless", "maven", "chromium-browser", "chromium-chromedriver", "postgresql"]
    assert machine.installed() == [*FIRST, *others]
    (missing,) = (line for line in said(capsys) if "no " in line)
    assert missing == (
        "set-up: no Chromium with its driver: chromium-browser and chromium-chromedriver by apt did not bring it;"
        " the tests that look at the page are skipped"
    )
    assert programs.find_redis()
    assert programs.find_rspamd()
    assert programs.find_postgres()
    assert programs.find_browser() is None


@pytest.mark.parametrize("machine", [UBUNTU_WITH_SNAP], indirect=True)
def test_other_names_of_the_same_programs_are_found(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    system.ensure()
    assert [line for line in said(capsys) if "no " in line] == []
    browser = programs.Browser(machine.bin / "chromium-browser", machine.bin / "chromium.chromedriver")
    assert programs.find_browser() == browser


@pytest.mark.parametrize("machine", [{"redis-server": DEBIAN["redis-server"]}], indirect=True)
def test_a_name_that_apt_does_not_know_is_said_in_its_words(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    system.ensure()
    assert programs.find_redis() == machine.bin / "redis-server"
    missing = [line for line in said(capsys) if "no " in line]
    assert len(missing) == 6
    assert missing[0].startswith("set-up: no Rspamd: apt-get failed: E: Unable to locate package rspamd (all of it: ")
    assert missing[0].endswith("; the tests that run it are skipped")
    assert missing[5].endswith("; the tests run on the embedded PostgreSQL alone")


@pytest.mark.parametrize("machine", [OLD], indirect=True)
def test_a_postgresql_that_is_too_old_for_the_tests_is_none(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    system.ensure()
    assert "postgresql" in machine.installed()
    assert "set-up: no PostgreSQL 15 or later: postgresql by apt did not bring it" in "\n".join(said(capsys))
    assert programs.find_postgres() == []


@pytest.mark.parametrize("machine", [UBUNTU], indirect=True)
def test_who_is_not_root_reads_what_to_type_in_the_names_of_the_distribution(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    system.ensure()
    assert machine.installed() == []
    (line,) = said(capsys)
    wanted = " ".join([*FIRST, "chromium-browser", "chromium-chromedriver", "postgresql"])
    assert line.startswith(f"set-up: for the tests type: sudo apt-get install --no-install-recommends {wanted}; ")


@pytest.mark.parametrize("machine", [{}], indirect=True)
def test_a_driver_of_another_version_is_none(machine: Machine) -> None:
    program(machine.bin, "chromium", "echo Chromium 156.0.1")
    program(machine.bin, "google-chrome", "echo Google Chrome 155.0.3")
    program(machine.bin, "chromedriver", "echo ChromeDriver 155.0.9")
    browser = programs.Browser(machine.bin / "google-chrome", machine.bin / "chromedriver")
    assert programs.find_browser() == browser


@pytest.mark.parametrize("machine", [{}], indirect=True)
def test_the_tests_run_on_the_oldest_postgresql_that_is_new_enough(machine: Machine, tmp_path: Path) -> None:
    for version in (18, 9, 16):
        folder = tmp_path / "lib" / "postgresql" / str(version) / "bin"
        folder.mkdir(parents=True)
        for name in ("postgres", "initdb", "pg_config"):
            program(folder, name, f"echo 'postgres (PostgreSQL) {version}.1 (Debian)'")
    del machine
    assert [server.version for server in programs.find_postgres()] == [16, 18]
