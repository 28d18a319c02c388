"""The ``postel`` command: one sub-command per program, each importing only what it runs.

Exit codes: 0 done; 1 a check found something (``db check``, ``doctor``), or data of a demo still comes
(``demo --remove``); 2 Postel says what is wrong (a setting, an address in use, the database). All commands take
``--config FILE``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from postel.collector import Tier
from postel.errors import PostelError

if TYPE_CHECKING:
    from postel.settings import Settings


class _Group(click.Group):
    """Shows a PostelError as its message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PostelError as error:
            click.echo(f"postel: {error}", err=True)
            ctx.exit(2)


class _SettingsType(click.ParamType[Any]):
    name = "FILE"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Any:
        from postel.settings import load_settings

        if not isinstance(value, str):
            return value
        if value:
            # The programs that `up` starts read the same file.
            os.environ["POSTEL_CONFIG"] = str(Path(value).absolute())
        return load_settings(Path(value) if value else None)


config_option = click.option(
    "--config",
    "settings",
    type=_SettingsType(),
    default="",
    show_default="postel.toml, then /etc/postel/postel.toml",
    help="The settings file.",
)


@click.group(cls=_Group)
@click.version_option(package_name="postel")
def main() -> None:
    """Know what a mail platform does: receivers, sink, database, page."""


@main.command()
@config_option
@click.option("--demo", is_flag=True, help="Add synthetic mail traffic, marked postel.demo=true.")
def up(settings: Settings, *, demo: bool) -> None:
    """Run all of it on this host: database, sink, Collector, agent, page."""
    from postel.up import run

    raise SystemExit(asyncio.run(run(settings, demo=demo)))


@main.command()
@config_option
@click.option("--once", is_flag=True, help="Print what is collected as OTLP JSON, a request a line, and send nothing.")
def agent(settings: Settings, *, once: bool) -> None:
    """Collect this host's metrics and events and send them by OTLP."""
    from otel_receivers import agent as program
    from postel import log

    log.configure("agent")
    asyncio.run(program.run_once(settings) if once else program.run(settings))


@main.command()
@config_option
@click.option(
    "--tier",
    type=click.Choice([tier.value for tier in Tier]),
    default=Tier.AGENT.value,
    show_default=True,
    help="Which one: that beside an agent, as `up` runs it, a gateway, or what reads from Kafka for a sink.",
)
def collector(settings: Settings, *, tier: str) -> None:
    """Run an OpenTelemetry Collector of Postel's in the place of this program."""
    from postel.collector_process import run

    run(settings, Tier(tier))


@main.command()
@config_option
def sink(settings: Settings) -> None:
    """Take OTLP and write it into the database."""
    # gRPC would warn at each fork; the only child is pg_ctl, which uses no gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from postel import log
    from timescale_sink.ingest import service

    log.configure("sink")
    asyncio.run(service.run(settings))


@main.command()
@config_option
def serve(settings: Settings) -> None:
    """Serve the API and the live page, and evaluate the alert rules."""
    from dashboards.web import app
    from postel import log
    from postel.listening import reachable
    from timescale_sink.alerts import notify
    from timescale_sink.alerts.evaluate import Evaluator
    from timescale_sink.alerts.rules import load

    log.configure("serve")
    alerts = settings.alerts
    notify.check(alerts.notify)
    page = alerts.page or f"{settings.serve.scheme}://{reachable(settings.serve.address)}"
    rules = load(alerts.rules)
    runbooks = {rule.name: rule.runbook for rule in rules if rule.runbook}
    asyncio.run(app.run(settings, Evaluator(rules, alerts, page).run, runbooks))


@main.command()
@config_option
@click.option("--remove", is_flag=True, help="Delete all demo data from the database instead.")
def demo(settings: Settings, *, remove: bool) -> None:
    """Send believable synthetic mail traffic by OTLP, marked postel.demo=true."""
    from postel import demo as program
    from postel import log

    log.configure("demo")
    if remove:
        raise SystemExit(asyncio.run(program.remove(settings)))
    asyncio.run(program.run(settings))


_parts = click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["up", "agent", "collector", "gateway", "kafka-member", "sink", "serve"]),
    help="What this host runs, again for each; without it: what is installed as services, else `up`.",
)


@main.command()
@config_option
@_parts
def doctor(settings: Settings, parts: tuple[str, ...]) -> None:
    """Check every connection and permission; name what is wrong and how to mend it."""
    from postel import doctor as program

    raise SystemExit(asyncio.run(program.run(settings, parts)))


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.argument("queue_id", metavar="ID")
def message(settings: Settings, queue_id: str, *, as_json: bool) -> None:
    """Show where the message with this queue id stands in Zone-MTA's queue: next attempt, last answer, its log."""
    from postel import message as program

    raise SystemExit(asyncio.run(program.run(settings, queue_id, as_json=as_json)))


@main.command()
@config_option
@click.option("--write", type=click.Path(file_okay=False, path_type=Path), help="Write the pages into this folder.")
@click.option(
    "--constants",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the mail servers' plugins know of it into this file.",
)
def describe(settings: Settings, write: Path | None, constants: Path | None) -> None:
    """Print the reference of every metric, event, typed column and setting."""
    from postel import settings_reference
    from postel.signals import constants as plugin_constants
    from postel.signals import load_all, reference

    del settings
    pages = {**reference.render(load_all()), "settings.md": settings_reference.render()}
    if write:
        reference.write(pages, write)
    if constants:
        plugin_constants.write(plugin_constants.render(load_all()), constants)
    if not (write or constants):
        click.echo("\n".join(pages.values()))


def _where(command: Callable[..., None]) -> Callable[..., None]:
    """The folders that the commands of plugins look at."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in (
        click.option("--haraka", type=folder, help="The folder of Haraka's -c; only this one is looked at."),
        click.option("--zone-mta-config", type=file, help="Zone-MTA's configuration, where it cannot be seen."),
        click.option("--zone-mta", type=folder, help="The folder that Zone-MTA runs in; only this one is looked at."),
    ):
        command = option(command)
    return command


@main.group(invoke_without_command=True)
@config_option
@click.pass_context
def plugins(context: click.Context, settings: Settings) -> None:
    """Put Postel's plugins into the mail servers of this host; alone: say where they are."""
    if context.invoked_subcommand is None:
        from postel.plugins import commands

        raise SystemExit(commands.show(settings, commands.Where()))


@plugins.command("install")
@config_option
@_where
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def plugins_install(settings: Settings, *, dry_run: bool, **where: Path | None) -> None:
    """Install or upgrade the plugins; the servers have to be restarted then."""
    from postel.plugins import commands

    raise SystemExit(commands.install(settings, commands.Where(**where), dry_run=dry_run))


@plugins.command("uninstall")
@config_option
@_where
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def plugins_uninstall(settings: Settings, *, dry_run: bool, **where: Path | None) -> None:
    """Take the plugins out again, and all that `plugins install` wrote."""
    from postel.plugins import commands

    raise SystemExit(commands.uninstall(settings, commands.Where(**where), dry_run=dry_run))


_root = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/",
    help="The folder that is / to the host, such as an image's.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@main.command()
@config_option
@_parts
@_root
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    default=lambda: sys.executable,
    show_default="this one",
    help="The Python of the environment that Postel is in on that host.",
)
@_dry_run
def install(settings: Settings, parts: tuple[str, ...], *, root: Path, python: Path, dry_run: bool) -> None:
    """Write systemd units for the parts that this host runs, and a postel.toml where none is."""
    from postel.services import commands

    del settings
    raise SystemExit(commands.install(parts, root=root.absolute(), python=python.absolute(), dry_run=dry_run))


@main.command()
@config_option
@_root
@_dry_run
def uninstall(settings: Settings, *, root: Path, dry_run: bool) -> None:
    """Take out all that `postel install` wrote; what was changed since stays."""
    from postel.services import commands

    del settings
    raise SystemExit(commands.uninstall(root=root.absolute(), dry_run=dry_run))


@main.group()
def db() -> None:
    """Look after the database."""


@db.command()
@config_option
@click.option(
    "--check", is_flag=True, help="Say what would be done and which tables it holds how long; change nothing."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="How long --check may hold what it tells of.",
)
def migrate(settings: Settings, *, check: bool, seconds: float) -> None:
    """Bring the schema to this version."""
    from timescale_sink.store import commands

    if check:
        raise SystemExit(asyncio.run(commands.rehearse(settings, seconds)))
    asyncio.run(commands.migrate(settings))


@db.command()
@config_option
def roles(settings: Settings) -> None:
    """Make roles for the sink, for serve and for readers that may do no more than these need."""
    from timescale_sink.store import commands

    asyncio.run(commands.make_roles(settings))


@db.command("keep-house")
@config_option
@click.option(
    "--every", type=click.FloatRange(min=0, min_open=True), metavar="HOURS", help="Again and again, until it is ended."
)
def keep_house(settings: Settings, *, every: float | None) -> None:
    """Do once what a sink does each hour, where its role may not: as the tables' owner."""
    from postel import log
    from timescale_sink.store import commands

    log.configure("db")
    asyncio.run(commands.keep_house(settings, every))


@db.command()
@config_option
def status(settings: Settings) -> None:
    """Print the server, the migrations and the tables."""
    from timescale_sink.store import commands

    asyncio.run(commands.status(settings))


@db.command()
@config_option
def check(settings: Settings) -> None:
    """Recount the tables against the ledger; exit 1 where they differ."""
    from timescale_sink.store import commands

    raise SystemExit(asyncio.run(commands.check(settings)))


@db.command()
@config_option
def url(settings: Settings) -> None:
    """Print the URL of the database in use, for psql "$(postel db url)".

    An embedded PostgreSQL that does not run is started, and left running for whoever asks it next. The next command
    that uses it stops it when it ends, if no other still does: `postel db status`, say, or `postel up`.
    """
    from timescale_sink.store import commands

    asyncio.run(commands.url(settings))


if __name__ == "__main__":
    main()
