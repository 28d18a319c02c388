"""What ``postel plugins``, ``plugins install`` and ``plugins uninstall`` print and do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from postel.errors import PostelError
from postel.listening import reachable
from postel.plugins import haraka, zone_mta
from postel.plugins.bundle import Bundle, bundles
from postel.plugins.install import Record, plan_install, plan_uninstall
from postel.plugins.servers import Look, PluginError, Server
from postel.settings import Intake, Settings
from postel.steps import Plan

_BUFFER = "/var/lib/postel/plugins"


@dataclass(frozen=True)
class Where:
    """The folders that the user named; of none: the whole host."""

    zone_mta: Path | None = None
    zone_mta_config: Path | None = None
    haraka: Path | None = None


def show(settings: Settings, where: Where) -> int:
    """Print what is installed where.

    Returns:
        The exit code: 0.
    """
    del settings
    known = bundles()
    look = _look(where, known)
    for server in look.servers:
        click.echo(f"{server}: {_state(server, known[server.kind])}")
    for sentence in look.unusable:
        click.echo(f"not looked at: {sentence}")
    if not look.servers:
        click.echo(_nothing_found(known))
    return 0


def install(settings: Settings, where: Where, *, dry_run: bool) -> int:
    """Put the plugins into the servers.

    Returns:
        The exit code: 0, or 2 where one of the servers could not be given its plugin.
    """
    known = bundles()
    given = _given(settings.intake)

    def work(server: Server) -> bool:
        plan = plan_install(server, known[server.kind], given)
        _do(server, plan, dry_run=dry_run)
        if not plan.steps:
            return False
        click.echo(f"  undo: postel plugins uninstall {_options(server)}")
        for hint in _hints(settings.intake, server, given):
            click.echo(f"  {hint}")
        return True

    return _each(where, known, work, "loads the plugin", dry_run=dry_run)


def uninstall(settings: Settings, where: Where, *, dry_run: bool) -> int:
    """Take the plugins out of the servers.

    Returns:
        As `install`.
    """
    del settings
    known = bundles()

    def work(server: Server) -> bool:
        plan = plan_uninstall(server)
        _do(server, plan, dry_run=dry_run)
        if plan.steps:
            name = known[server.kind].name
            click.echo(f"  events that nobody took yet, if any, are in {_BUFFER}/{name}-*")
        return bool(plan.steps)

    return _each(where, known, work, "lets go of the plugin", dry_run=dry_run)


def _each(
    where: Where, known: Mapping[str, Bundle], work: Callable[[Server], bool], effect: str, *, dry_run: bool
) -> int:
    look = _look(where, known)
    for sentence in look.unusable:
        click.echo(f"postel: {sentence}", err=True)
    if not look.servers:
        raise PluginError(_nothing_found(known))
    failed = bool(look.unusable)
    for server in look.servers:
        try:
            if work(server) and server.running and not dry_run:
                click.echo(f"  {server.title} {effect} when it is restarted: {server.running.restart()}")
        except PostelError as error:
            click.echo(f"postel: {server}: {error}", err=True)
            failed = True
    return 2 if failed else 0


def _look(where: Where, known: Mapping[str, Bundle]) -> Look:
    named = where.zone_mta or where.haraka
    looks = []
    if where.zone_mta or not named:
        looks.append(zone_mta.find(where.zone_mta, where.zone_mta_config))
    if where.haraka or not named:
        looks.append(haraka.find(where.haraka))
    return Look(
        [server for look in looks for server in look.servers if server.kind in known],
        [sentence for look in looks for sentence in look.unusable],
    )


def _nothing_found(known: Mapping[str, Bundle]) -> str:
    options = " or ".join(f"--{kind} DIR" for kind in known)
    return f"no mail server that a plugin is for was found, running or in its usual folders: name it with {options}"


def _do(server: Server, plan: Plan, *, dry_run: bool) -> None:
    steps = plan.carry_out(dry_run=dry_run)
    click.echo(f"{server}:{'' if steps else ' nothing to do'}")
    for line in (*steps, *plan.notes):
        click.echo(f"  {line}")


def _state(server: Server, bundle: Bundle) -> str:
    record = Record.of(server)
    if record is None:
        if server.elsewhere or server.code.exists():
            return f"a plugin in {server.elsewhere or server.code}, which is not Postel's to look after"
        return "no plugin; `postel plugins install` puts it there"
    newer = "" if record.digest == bundle.digest() else f"; this Postel has {bundle.version}, install it anew"
    return f"{bundle.name} {record.version}, {_loaded(server)}{newer}"


def _loaded(server: Server) -> str:
    if server.running is None:
        return "the server does not run"
    installed = server.code.stat().st_ctime
    if server.running.started < installed:
        return f"not loaded before a restart: {server.running.restart()}"
    return "there when the server started; `postel doctor` tells whether it is heard"


def _given(intake: Intake) -> dict[str, str]:
    """The plugin's settings by which it reaches the agent, as far as they are not its defaults."""
    # Who gives the agent a socket wants it used: by TCP anybody of the host is heard.
    if intake.socket:
        return {"endpoint": f"unix:{intake.socket}"}
    if not intake.tls_certificate and intake.address == Intake().address:
        return {}
    given = {"endpoint": f"{intake.scheme}://{reachable(intake.address)}"}
    if intake.tls_certificate:
        files = {
            "tlsCa": intake.tls_ca,
            "tlsClientCertificate": intake.tls_client_certificate,
            "tlsClientKey": intake.tls_client_key,
        }
        given |= {name: str(file.absolute()) for name, file in files.items() if file}
    return given


def _hints(intake: Intake, server: Server, given: Mapping[str, str]) -> Iterator[str]:
    """What the settings that were written leave to the user."""
    paths = [str(intake.socket)] if intake.socket else [file for name, file in given.items() if name != "endpoint"]
    if paths:
        yield f"the user that {server.title} runs as must be let to {', '.join(paths)}"
    if intake.token:
        yield f"the agent asks for a token: set token = ... in {server.config}, where [intake] token has it"
    if intake.socket or not intake.tls_certificate:
        return
    host = reachable(intake.address).rpartition(":")[0].strip("[]")
    yield f"the agent's certificate must be of {host}, else set endpoint = ... in {server.config}"
    if intake.tls_client_ca and not intake.tls_client_certificate:
        yield f"the agent asks for a certificate: set tlsClientCertificate = ... in {server.config}"
    if not intake.tls_ca:
        yield f"where Node.js does not trust the agent's certificate: set tlsCa = ... in {server.config}"


def _options(server: Server) -> str:
    return f"--{server.kind} {server.folder}"
