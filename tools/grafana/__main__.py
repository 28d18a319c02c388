"""Writes the dashboards and how Grafana finds them into the checkout: `python -m tools.grafana`."""

from __future__ import annotations

from pathlib import Path

from postel.signals import load_all
from tools.grafana.boards import BOARDS
from tools.grafana.render import render

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana" / "dashboards"


def files() -> dict[str, str]:
    """Name -> text of each dashboard's file."""
    declarations = load_all()
    return {f"{board.key}.json": render(board, declarations) for board in BOARDS}


def main() -> None:
    """Write them, and remove what is no dashboard any more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = files()
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, "utf-8")
    print(f"{FOLDER.relative_to(Path.cwd())}: {len(made)} dashboards")


if __name__ == "__main__":
    main()
