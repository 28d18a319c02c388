from pathlib import Path

import pytest

from support.environment import forget_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch)
    # A command with --config tells its children by this one; what it set is undone with the test.
    monkeypatch.setenv("POSTEL_CONFIG", "")
    monkeypatch.chdir(tmp_path)
