"""Migrations stay as they were applied: an edited one is seen here, before a database refuses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from timescale_sink.store.migrate import scripts
from tools.freeze import LIST, MIGRATIONS, EditedError, freeze, frozen

EDITED = "0016_system_rollups.community.sql"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's migrations, with their list."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


def test_each_migration_is_the_one_that_was_frozen() -> None:
    known, there = frozen(MIGRATIONS), {script.name: script.checksum for script in scripts("migrations")}
    changed = [name for name, checksum in known.items() if there.get(name) != checksum]
    assert not changed, f"{changed} are frozen: restore them, and put the change into a new migration"
    new = sorted(there.keys() - known.keys())
    assert not new, f"{new} are not frozen yet: python -m tools.freeze"


def test_the_list_is_as_sha256sum_reads_it() -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", LIST], cwd=MIGRATIONS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(scripts("migrations"))


def test_a_new_one_is_added_behind_the_others(copy: Path) -> None:
    before = (copy / LIST).read_text()
    (copy / "0002_between.sql").write_text("SELECT 1;\n")
    assert freeze(copy) == ["0002_between.sql"]
    assert (copy / LIST).read_text().startswith(before)
    assert freeze(copy) == []


@pytest.mark.parametrize("gone", [False, True], ids=["a space more", "gone"])
def test_what_was_changed_is_refused_and_nothing_added(copy: Path, gone: bool) -> None:  # noqa: FBT001
    before = (copy / LIST).read_text()
    (copy / "9999_new.sql").write_text("SELECT 1;\n")
    if gone:
        (copy / EDITED).unlink()
    else:
        (copy / EDITED).write_text((copy / EDITED).read_text() + " ")
    with pytest.raises(EditedError, match=EDITED):
        freeze(copy)
    assert (copy / LIST).read_text() == before
