"""docs/install.md, followed in folders of the test's own: the wheel, systemd's units, the containers' secrets."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.bootstrap import copy_project
from support.markdown import blocks, reading, run, variables
from support.running_postel import RunningPostel, until
from support.services import SYSTEMD, make_root


def test_units_and_secrets(migrated_postgres: str, tmp_path: Path) -> None:
    checkout, root, apart = tmp_path / "checkout", make_root(tmp_path / "whole"), make_root(tmp_path / "apart")
    shutil.copytree(Path(__file__).parents[2] / "compose", checkout / "compose")
    instead = {
        "/opt/postel/bin/postel db": "postel db",
        **SYSTEMD,
        # No engine runs here; tests/packaging/test_compose.py reads the file as the engine would.
        "docker compose up --build --detach": "test -f compose/secrets.sh",
        # What this runs in its container tests/packaging/test_compose_services.py runs.
        "docker compose exec --user postgres timescaledb": "test -x compose/roles.sh && :",
        "docker compose up --detach --force-recreate": "true",
    }
    # The wheel is built and installed by the other tests here.
    others = dict.fromkeys(("sh wheel", "sh later"), "tests/docs/test_install_page.py")
    with reading("docs/install.md", instead=instead, others=others) as page:
        environment = variables(POSTEL_COLLECTOR="none", ROOT=str(root))
        (install,), (systemd,), (parts,) = (page.take("sh", kind) for kind in ("install", "systemd", "parts"))
        dry, *rest = install.splitlines()
        assert f"would write {root}/etc/systemd/system/postel.service" in run(dry, tmp_path, environment)
        assert not (root / "etc/systemd/system/postel.service").exists()
        run("\n".join([*rest, systemd]), tmp_path, environment)
        assert (root / "etc/systemd/system/multi-user.target.wants/postel.service").is_symlink()
        assert "postel:" in (root / "etc/passwd").read_text()
        run(parts, tmp_path, {**environment, "ROOT": str(apart)})
        units = {path.name for path in (apart / "etc/systemd/system").glob("*.service")}
        assert units == {f"postel-{part}.service" for part in ("agent", "collector", "sink", "serve")}

        (upgrade,) = page.take("sh", "upgrade")
        said = run(upgrade, tmp_path, {**environment, "POSTEL_DATABASE__URL": migrated_postgres})
        assert said.startswith("the schema is up to date\nthe schema is up to date\n")

        (containers,) = page.take("sh", "containers")
        printed = run(containers, checkout, environment)
        for name in ("read_tokens", "grafana_admin_password"):
            assert (checkout / "secrets" / name).read_text().strip() in printed.splitlines()
        (password,) = page.take("sh", "password")
        run(password, checkout, environment)


@pytest.mark.slow
def test_a_later_wheel_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """Also with the same number, and where files of both are in dist."""
    checkout, opt = copy_project(tmp_path / "checkout"), tmp_path / "opt"
    instead = {
        "/opt/postel": str(opt),
        # These are here already.
        "python3 -m tools.bootstrap runtime": "true",
        ".venv/bin/python": sys.executable,
        f"{opt}/bin/postel up": "true",
    }
    others = {
        f"{block.language} {block.kind}": "tests/docs/test_install_page.py"
        for block in blocks("docs/install.md")
        if block.kind not in ("wheel", "later")
    }
    # What it depends on comes with the wheel that the test below installs.
    environment = variables(PIP_NO_DEPS="1")
    with reading("docs/install.md", instead=instead, others=others) as page:
        (wheel,), (later,) = page.take("sh", "wheel"), page.take("sh", "later")
        run(wheel, checkout, environment, seconds=300)
        (installed,) = opt.glob("lib/python*/site-packages/postel/errors.py")
        assert "of a later version" not in installed.read_text()
        errors = checkout / "postel" / "errors.py"
        errors.write_text(f"{errors.read_text()}\n# of a later version\n")
        run(later, checkout, environment, seconds=300)
        assert installed.read_text() == errors.read_text()
        project = checkout / "pyproject.toml"
        project.write_text(project.read_text().replace('\nversion = "0.1.0.dev0"', '\nversion = "0.2.0"'))
        run(later, checkout, environment, seconds=300)
        assert (installed.parents[1] / "postel-0.2.0.dist-info").is_dir()


@pytest.mark.soak
def test_the_wheel_runs_from_its_folder(tmp_path: Path) -> None:
    postel = RunningPostel(tmp_path, {"POSTEL_INTERVALS__SYSTEM_METRICS": "1", "POSTEL_INTERVALS__SEND_METRICS": "1"})
    # As root the embedded PostgreSQL runs as another user, who has to reach the programs that it consists of.
    with tempfile.TemporaryDirectory(prefix="postel-") as folder:
        opt = Path(folder) / "opt"
        opt.mkdir()
        for each in (Path(folder), opt):
            each.chmod(0o755)
        checkout = copy_project(tmp_path / "checkout")
        done = "sh install", "sh parts", "sh upgrade", "sh systemd", "sh containers", "sh password"
        others = dict.fromkeys(done, "tests/docs/test_install_page.py")
        with reading("docs/install.md", instead={"/opt/postel": f"{opt}/postel"}, others=others) as page:
            (wheel,) = page.take("sh", "wheel")
            *steps, up = wheel.splitlines()
            run("\n".join(steps), checkout, variables(), seconds=900)
            with running(up, postel) as log:
                until(postel.rows_of_host, 120, log.read_text)
                assert httpx.get(postel.page, timeout=20, trust_env=False).status_code == httpx.codes.OK
            (later,) = page.take("sh", "later")
            run(later, checkout, variables(), seconds=900)
    shutil.rmtree(postel.data, ignore_errors=True)


@contextlib.contextmanager
def running(command: str, postel: RunningPostel) -> Iterator[Path]:
    """A command that runs until it is ended, with the block; gives its log."""
    with postel.log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-e", "-c", f"exec {command}"],
            cwd=postel.folder,
            env={**variables(), **postel.variables},
            stdout=output,
            stderr=output,
        )
    try:
        yield postel.log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait(10)
