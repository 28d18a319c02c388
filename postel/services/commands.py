"""What ``postel install`` and ``postel uninstall`` print and do."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import click

from postel.collector import PROGRAM, find_collector
from postel.services.install import Plan, plan_install, plan_uninstall
from postel.services.units import DATA, PARTS, SETTINGS

# Where systemd says that it runs (sd_booted(3)).
_BOOTED = Path("/run/systemd/system")


def install(parts: Sequence[str], *, root: Path, python: Path, dry_run: bool) -> int:
    """Write the units of these parts.

    Returns:
        The exit code: 0.
    """
    plan = plan_install(root, parts, python)
    _do(plan, dry_run=dry_run)
    if not plan.steps or dry_run:
        return 0
    services = " ".join(PARTS[part] for part in plan.parts)
    click.echo(f"next{'' if _BOOTED.is_dir() else ' (systemd does not run here, so where it does)'}:")
    click.echo("  systemd-sysusers && systemctl daemon-reload")
    for hint in _hints(plan.parts, root):
        click.echo(f"  {hint}")
    click.echo(f"  systemctl enable --now {services}")
    click.echo(f"undo: systemctl disable --now {services} && postel uninstall")
    return 0


def uninstall(*, root: Path, dry_run: bool) -> int:
    """Take the units out again.

    Returns:
        The exit code: 0.
    """
    plan = plan_uninstall(root)
    _do(plan, dry_run=dry_run)
    if plan.steps and not dry_run:
        click.echo("next: systemctl daemon-reload")
        click.echo(f"what Postel kept stays in {DATA}, and its user: rm -r {DATA} && userdel postel")
    return 0


def _do(plan: Plan, *, dry_run: bool) -> None:
    # A step's words are of the time before it.
    steps = [f"{'would' if dry_run else 'done:'} {step}" for step in plan.steps]
    if not dry_run:
        plan.run()
    for line in [*(steps or ["nothing to do"]), *plan.notes]:
        click.echo(line)


def _hints(parts: Sequence[str], root: Path) -> list[str]:
    """What the parts lack, as far as it can be seen now."""
    settings = root / SETTINGS
    said = tomllib.loads(settings.read_text("utf-8"))
    hints = []
    if {"sink", "serve"} & set(parts) and not said.get("database", {}).get("url"):
        hints.append(f"[database] url in {settings}: sink and serve run apart, and share a PostgreSQL that is there")
    if {"up", "collector"} & set(parts) and find_collector() is None:
        without = "" if "collector" in parts else "; without one the agent sends straight to the sink"
        hints.append(f"the Collector as /usr/local/bin/{PROGRAM} (`make collector` in a checkout builds it){without}")
    if "agent" in parts and "collector" not in parts and not said.get("otlp", {}).get("endpoint"):
        hints.append(f"[otlp] endpoint in {settings}, unless a Collector listens on this host")
    return hints
