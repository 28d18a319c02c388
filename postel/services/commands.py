"""What ``postel install`` and ``postel uninstall`` print and do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from postel.collector import PROGRAM, find_collector
from postel.errors import SettingsError
from postel.services.install import Plan, plan_install, plan_uninstall
from postel.services.units import DATA, PARTS, SETTINGS, VARIABLES
from postel.settings import load_settings, read_file

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
    steps = plan.carry_out(dry_run=dry_run)
    for line in [*(steps or ["nothing to do"]), *plan.notes]:
        click.echo(line)


def _hints(parts: Sequence[str], root: Path) -> list[str]:
    """What the parts lack, as far as it can be seen now."""
    settings, chosen = root / SETTINGS, set(parts)
    try:
        load_settings(settings)
        said = read_file(settings)
    except SettingsError as error:
        return [f"correct {line}" for line in str(error).splitlines()]
    otlp = said.get("otlp", {})
    hints = []
    if {"sink", "serve"} & chosen and not said.get("database", {}).get("url"):
        hints.append(f"[database] url in {settings}: sink and serve run apart, and share a PostgreSQL that is there")
    if {"up", "collector", "gateway", "kafka-member"} & chosen and find_collector() is None:
        without = "; without one the agent sends straight to the sink" if "up" in chosen else ""
        hints.append(f"the Collector as /usr/local/bin/{PROGRAM} (`make collector` in a checkout builds it){without}")
    if "agent" in chosen and not {"collector", "gateway"} & chosen and not otlp.get("endpoint"):
        hints.append(f"[otlp] endpoint in {settings}, unless a Collector listens on this host")
    variables = root / VARIABLES
    named = variables.read_text("utf-8") if variables.exists() else ""
    if "gateway" in chosen:
        hints += _of_gateway(root, otlp, named)
    reads = "kafka-member" in chosen or "to-kafka" in otlp.get("collector_layers", ())
    if reads and "POSTEL_KAFKA_BROKERS" not in named:
        hints.append(f"POSTEL_KAFKA_BROKERS in {variables}: without it Kafka is looked for at 127.0.0.1:9092")
    return hints


def _of_gateway(root: Path, otlp: Mapping[str, Any], named: str) -> Iterator[str]:
    settings, folder = root / SETTINGS, root / "etc/postel/gateway"
    key, file = (
        ("POSTEL_GATEWAY_CLIENT_CA", "clients.crt")
        if "gateway-mtls" in otlp.get("collector_layers", ())
        else ("POSTEL_GATEWAY_TOKENS", "tokens")
    )
    files = {"POSTEL_GATEWAY_CERTIFICATE": "tls.crt", "POSTEL_GATEWAY_KEY": "tls.key", key: file}
    if lacks := [name for key, name in files.items() if key not in named and not (folder / name).exists()]:
        yield f"{', '.join(lacks)} in {folder}, which the group postel may read (docs/gateway.md)"
    if not {"collector_grpc_address", "collector_http_address"} & otlp.keys():
        yield f"[otlp] collector_grpc_address and collector_http_address in {settings}: it listens on loopback else"
    if not otlp.get("endpoint"):
        yield f"[otlp] endpoint in {settings}: where agent and sink of this host tell of themselves"
