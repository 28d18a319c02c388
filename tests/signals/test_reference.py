from pathlib import Path

import pytest

from postel import settings_reference
from postel.errors import PostelError
from postel.settings import load_settings
from postel.signals import load_all, reference
from support.environment import forget_settings

REPOSITORY = Path(__file__).parents[2]


def test_reference_pages_are_what_the_declarations_render_to() -> None:
    folder = REPOSITORY / "docs/reference"
    written = {path.name: path.read_text("utf-8") for path in folder.glob("*.md")}
    rendered = {**reference.render(load_all()), "settings.md": settings_reference.render()}
    assert written == rendered, "run: postel describe --write docs/reference"


def test_the_settings_page_is_a_file_that_is_read_as_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_settings(monkeypatch)
    path = tmp_path / "postel.toml"
    path.write_text(settings_reference.render().split("```toml\n")[1].split("```")[0], "utf-8")
    empty = tmp_path / "empty.toml"
    empty.touch()
    assert load_settings(path) == load_settings(empty)


def test_write_removes_the_page_of_a_source_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text(next(iter(reference.render(load_all()).values())), "utf-8")
    (tmp_path / "own.md").write_text("somebody's", "utf-8")
    reference.write(reference.render(load_all()), tmp_path)
    assert not (tmp_path / "gone.md").exists()
    assert (tmp_path / "own.md").exists()
    declared = load_all()["zone_mta"]
    page = (tmp_path / "zone_mta.md").read_text("utf-8")
    assert page.count("### `zonemta.") == len(declared.metrics) + len(declared.events)


def test_write_replaces_nothing_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n", "utf-8")
    with pytest.raises(PostelError, match=r"README\.md is not a page of the reference"):
        reference.write(reference.render(load_all()), tmp_path)
    assert [(path.name, path.read_text("utf-8")) for path in tmp_path.iterdir()] == [("README.md", "# My project\n")]


def test_write_names_the_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PostelError, match="file: cannot be written: File exists"):
        reference.write(reference.render(load_all()), tmp_path / "file")
