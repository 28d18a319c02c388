import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("POSTEL_", "OTEL_")):
            monkeypatch.delenv(name)
    # A command with --config tells its children by this one; what it set is undone with the test.
    monkeypatch.setenv("POSTEL_CONFIG", "")
    monkeypatch.chdir(tmp_path)
