"""Writes dashboards and alert rules for Grafana into the checkout: `python -m tools.grafana`."""

from __future__ import annotations

from pathlib import Path

from postel.signals import load_all
from timescale_sink.alerts.rules import shipped
from tools.grafana import alerts
from tools.grafana.boards import BOARDS
from tools.grafana.render import render

FOLDER = Path(__file__).parents[2] / "dashboards" / "grafana"
DASHBOARDS = FOLDER / "dashboards"
RULES = FOLDER / "provisioning" / "alerting" / "postel.yaml"


def files() -> dict[Path, str]:
    """Path -> text of each file that is made."""
    declarations = load_all()
    boards = {DASHBOARDS / f"{board.key}.json": render(board, declarations) for board in BOARDS}
    return {**boards, RULES: alerts.render(shipped())}


def main() -> None:
    """Write them, and remove what is no dashboard any more."""
    made = files()
    for path in DASHBOARDS.glob("*.json"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    print(f"{FOLDER.relative_to(Path.cwd())}: {len(made) - 1} dashboards, {len(shipped())} alert rules")


if __name__ == "__main__":
    main()
