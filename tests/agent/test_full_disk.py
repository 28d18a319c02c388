"""A disk that takes nothing costs no telemetry that a receiver takes, and no order, state or start of the agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.mounts import mounting
from support.requirements import require

SCRIPT = Path(__file__).with_name("full_disk.py")
WAITS = "nothing can be written to the spool; data waits in memory"
AGAIN = "the spool can be written again"
REASONS = {
    "limit": {"File too large"},
    # SQLite says it in its own words where it writes, and not at all where it opens a file.
    "tmpfs": {"No space left on device", "database or disk is full"},
    "read-only": {"Read-only file system"},
}


def outcome(scenario: str, disk: str, folder: Path) -> dict[str, Any]:
    require("resource limits", available=os.name == "posix", how="POSIX alone has them")
    command = [] if disk == "limit" else mounting()
    process = subprocess.run(
        [*command, sys.executable, SCRIPT, scenario, disk, folder], stdout=subprocess.PIPE, check=True, timeout=60
    )
    told: dict[str, Any] = json.loads(process.stdout)
    return told


@pytest.mark.parametrize("disk", ["limit", "tmpfs"])
def test_what_waits_in_memory_is_sent_in_order_and_stored_with_its_state_later(disk: str, tmp_path: Path) -> None:
    told = outcome("fills_up", disk, tmp_path)
    assert told["metrics"] == [1, 2, 3, 4, 5], "what the file has goes first"
    assert told["logs"] == [11, 12]
    assert told["again"] == [], "what the file cannot let go of is sent once"
    assert told["later"] == [6]
    assert told["said"] == [["error", WAITS], ["info", AGAIN]]
    assert (told["left"], told["left_logs"]) == ([7, 8], [])
    # Of requests that were sent from memory too.
    assert told["left_state"] == {"a": "5", "b": "2", "c": "1"}
    assert told["dropped"] == {}


@pytest.mark.parametrize("disk", ["limit", "tmpfs", "read-only"])
def test_a_start_on_such_a_disk_goes_on_where_the_run_before_ended(disk: str, tmp_path: Path) -> None:
    told = outcome("starts", disk, tmp_path)
    assert told["state"] == {"a": "1", "b": "1"}
    assert (told["before"], told["metrics"]) == ([1, 2, 3], [4, 5])
    assert_said_once(told, disk, tmp_path)
    assert told["left"] == [6, 7]
    assert told["left_state"] == {"a": "4", "b": "1", "c": "1"}


@pytest.mark.parametrize("disk", ["tmpfs", "read-only"])
def test_so_does_a_start_after_a_kill(disk: str, tmp_path: Path) -> None:
    told = outcome("starts_after_a_kill", disk, tmp_path)
    assert told["state"] == {"a": "1", "b": "1"}
    assert (told["before"], told["metrics"]) == ([1, 2, 3], [4, 5])
    assert told["left"] == [6, 7]
    assert told["left_state"] == {"a": "4", "b": "1", "c": "1"}


def test_what_cannot_be_read_at_the_start_is_sent_when_it_can_be(tmp_path: Path) -> None:
    told = outcome("starts_after_a_kill", "limit", tmp_path)
    assert (told["state"], told["before"], told["metrics"]) == ({}, [], [4, 5])
    assert_said_once(told, "limit", tmp_path)
    assert told["left"] == [1, 2, 3, 6, 7]
    assert told["left_state"] == {"a": "4", "b": "1", "c": "1"}


@pytest.mark.parametrize("disk", ["limit", "tmpfs", "read-only"])
def test_a_first_start_on_such_a_disk_sends_from_memory(disk: str, tmp_path: Path) -> None:
    told = outcome("starts_first", disk, tmp_path)
    assert (told["state"], told["before"], told["metrics"]) == ({}, [], [4, 5])
    assert_said_once(told, disk, tmp_path)
    assert told["left"] == [6, 7]
    assert told["left_state"] == {"a": "4", "c": "1"}


def test_a_folder_that_another_agent_has_when_the_disk_is_back_is_left_to_it(tmp_path: Path) -> None:
    told = outcome("taken_meanwhile", "read-only", tmp_path)
    assert told["metrics"] == [1, 2]
    assert told["said"] == [["error", WAITS], ["info", AGAIN]]
    assert (told["left"], told["left_state"]) == ([3], {"a": "3"})


def test_what_was_sent_leaves_the_file_of_a_full_disk(tmp_path: Path) -> None:
    told = outcome("removes", "tmpfs", tmp_path)
    # The first try makes SQLite's log begin anew; were that not so, all later tries would be refused too.
    assert 0 < len(told["refused"]) <= 3
    assert set(told["refused"]) == {"SQLITE_FULL"}
    assert len(told["left"]) == 2 * len(told["refused"])


def assert_said_once(told: dict[str, Any], disk: str, folder: Path) -> None:
    (level, event, reason), again = told["said"]
    assert (level, event) == ("error", WAITS)
    assert reason in {f"{folder}/spool.db: {why}; mend it, or set data_dir to another disk" for why in REASONS[disk]}
    assert again == ["info", AGAIN, ""]
