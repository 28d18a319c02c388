"""docs/compatibility.md is what the tests run."""

from __future__ import annotations

from testbed import haraka, zone_mta
from testbed.compatibility import DISTRIBUTION, HEADING, PAGE, asked, distribution, render
from testbed.npm_packages import FOLDERS

MEND = "write it anew: PYTHONPATH=.:tests .venv/bin/python -m testbed.compatibility"


def test_the_page_is_what_is_pinned_and_runs_here() -> None:
    page = PAGE.read_text("utf-8")
    programs = asked()
    if distribution() != DISTRIBUTION or len(programs) < page.partition(HEADING)[2].count("\n| ") - 1:
        # Another's programs, or not all of them: what is pinned is the same everywhere.
        assert page.partition(HEADING)[0] == render({"": ""}).partition(HEADING)[0], MEND
        return
    assert page == render(programs), MEND


def test_each_version_that_the_testbed_has_is_on_it() -> None:
    page = PAGE.read_text("utf-8")
    for version in (*zone_mta.RELEASES, *haraka.RELEASES):
        assert f" {version} (`" in page
    pinned = {release.folder for release in zone_mta.RELEASES.values()} | set(haraka.RELEASES.values())
    folders = {path.name for path in FOLDERS.iterdir() if path.name.startswith(("zone-mta", "haraka"))}
    assert pinned == folders, "what is installed is run, and what is run is installed"


def test_two_minor_versions_of_haraka_are_on_it() -> None:
    minors = {version.rpartition(".")[0] for version in haraka.RELEASES}
    assert len(minors) == 2
