"""The API keeps what its OpenAPI document says, whatever it is asked: schemathesis asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.page import serving
from support.roles import logins
from timescale_sink.store.roles import SERVE

# Whether a value can be is told by more than its schema: a table's columns, a silence's end behind its start.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


# In `make test` always the same questions, so that it tells of a change; in `make soak` new ones each time.
@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(["--max-examples", "30", "--generation-deterministic"], id="the same", marks=pytest.mark.slow),
        pytest.param(
            ["--max-examples", "1000", "--generation-database", "none"], id="new ones", marks=pytest.mark.soak
        ),
    ],
)
def test_no_answer_is_an_error_of_the_servers_or_another_than_documented(
    migrated_database: str, tmp_path: Path, drawn: list[str]
) -> None:
    """Under a login that is in `postel_serve` alone: there is no question that needs another right."""
    with logins(migrated_database) as urls, serving(tmp_path, urls[SERVE]) as address:
        asked = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", f"{address}/api/v1/openapi.json"),
                *("--checks", ",".join(CHECKS)),
                *drawn,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
    assert asked.returncode == 0, asked.stdout[-8000:]
