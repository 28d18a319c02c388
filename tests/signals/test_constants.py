import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from postel.cli import main
from postel.errors import PostelError
from postel.signals import constants, load_all

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "mail_plugins/lib/signals.json"


def test_the_plugins_constants_are_what_the_declarations_render_to() -> None:
    assert FILE.read_text("utf-8") == constants.render(load_all()), (
        "run: postel describe --constants mail_plugins/lib/signals.json"
    )


def test_the_events_of_plugins_are_in_it_with_the_types_of_their_attributes() -> None:
    rendered = json.loads(constants.render(load_all()))
    assert set(rendered) >= {"agent", "zone_mta"}
    assert list(rendered["agent"]["events"]) == ["plugin_heartbeat"]
    declaration = load_all()["zone_mta"]
    events = rendered["zone_mta"]["events"]
    assert {event["name"] for event in events.values()} == {
        *(f"zonemta.message.{word}" for word in ("queued", "refused", "dropped", "deleted")),
        *(f"zonemta.delivery.{word}" for word in ("accepted", "deferred", "rejected")),
    }
    for key, event in events.items():
        assert event["name"] == declaration.event(key).name
        assert set(event["attributes"]) <= rendered["zone_mta"]["attributes"].keys()
    assert rendered["zone_mta"]["attributes"]["email.to.address"] == "string[]"


def test_describe_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "signals.json"
    done = CliRunner().invoke(main, ["describe", "--constants", str(path)])
    assert (done.exit_code, done.output) == (0, "")
    assert path.read_text("utf-8") == FILE.read_text("utf-8")


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PostelError, match=r"missing/signals\.json: cannot be written: No such file"):
        constants.write("{}", tmp_path / "missing/signals.json")
