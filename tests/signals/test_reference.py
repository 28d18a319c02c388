from pathlib import Path

from postel.signals import load_all, reference

REPOSITORY = Path(__file__).parents[2]


def test_reference_pages_are_what_the_declarations_render_to() -> None:
    folder = REPOSITORY / "docs/reference"
    written = {path.name: path.read_text("utf-8") for path in folder.glob("*.md")}
    assert written == reference.render(load_all()), "run: postel describe --write docs/reference"


def test_write_removes_the_page_of_a_source_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("old", "utf-8")
    reference.write(load_all(), tmp_path)
    assert not (tmp_path / "gone.md").exists()
    assert (tmp_path / "zone_mta.md").read_text("utf-8").count("### `zonemta.") == len(load_all()["zone_mta"].metrics)
