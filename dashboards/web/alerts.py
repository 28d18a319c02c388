"""The page at ``/alerts``: what fires, is pending or silenced, what changed lately; acknowledge and silence.

``/alerts?state=STATE&q=TEXT`` opens one view: of the alerts in that state (`VIEWS`), those that say the text in their
title, rule or labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from dashboards.web import runbooks
from dashboards.web.charts import age
from dashboards.web.frame import OpenPages, Page, access, moment, moment_html, text
from postel.errors import PostelError
from timescale_sink.api.alerts import Alert, AlertReader, Change, Latest, Silence

# Each view's name and which alerts it has.
VIEWS: Mapping[str, tuple[str, Callable[[Alert], bool]]] = {
    "open": ("Open", lambda alert: alert.state != "resolved"),
    "firing": ("Firing", lambda alert: alert.state == "firing" and not alert.silenced),
    "pending": ("Pending", lambda alert: alert.state == "pending"),
    "silenced": ("Silenced", lambda alert: alert.silenced and alert.state != "resolved"),
    "resolved": ("Resolved", lambda alert: alert.state == "resolved"),
}
_FIRST_VIEW = next(iter(VIEWS))
_EMPTY: Mapping[str, str] = {
    "open": "Nothing is wrong. What is will be here by itself, within a minute of its rule's being met.",
    "firing": "No alert fires. What is silenced or not yet wrong for long enough stands under Silenced and Pending.",
    "pending": "Nothing waits to be wrong for long enough.",
    "silenced": "Nothing that is wrong is silenced. Silence an alert with the button beside it.",
    "resolved": "Nothing was resolved within a week.",
}
_DURATIONS: Mapping[int, str] = {3600: "1 hour", 4 * 3600: "4 hours", 86400: "1 day", 7 * 86400: "1 week"}
# More nobody reads; what is worst stands first.
_MOST_ALERTS, _MOST_CHANGES = 200, 50
_LONGEST = 1000
# The viewer's name is asked for once in a browser.
_REMEMBERED = "localStorage.getItem('postel-author') ?? ''"

Key = tuple[str, str]


def key_of(alert: Alert) -> Key:
    """What tells an alert from others."""
    return alert.rule, json.dumps(alert.labels, sort_keys=True)


def firing(alerts: Sequence[Alert]) -> Sequence[Alert]:
    """Those that somebody should look at: they fire and are not silenced."""
    return [alert for alert in alerts if VIEWS["firing"][1](alert)]


def labels_text(labels: Mapping[str, str]) -> str:
    """Which subject, in words."""
    return ", ".join(f"{name} {value}" for name, value in sorted(labels.items()))


def found(alert: Alert, words: str) -> bool:
    """Whether an alert says all of the words."""
    said = f"{alert.title} {alert.rule} {alert.severity} {labels_text(alert.labels)}".lower()
    return all(word in said for word in words.lower().split())


class _Row:
    """One alert: what is wrong, since when, and what can be done."""

    def __init__(self, page: AlertsPage, alert: Alert) -> None:
        self.alert = alert
        with ui.element("li").classes("alert").props(f"data-rule={alert.rule}") as self.box:
            with ui.element("div").classes("what"):
                with ui.element("div").classes("marks"):
                    self._state = ui.label().classes("mark state")
                    self._severity = ui.label().classes("mark severity")
                    self._silenced = ui.label("silenced").classes("mark")
                self._title = text("h3", alert.title)
                with ui.element("div").classes("facts"):
                    self._became = ui.label()
                    self._since = moment()
                    self._value = ui.label()
                    self._author = ui.label().classes("acknowledged")
                    self._acknowledged = moment()
                self._details = ui.label().classes("hint")
            with ui.element("div").classes("do"):
                # What is only hidden could still be pressed.
                self._acknowledge = self._silence = None
                if page.may_change:
                    self._acknowledge = _button("Acknowledge", lambda: page.ask_acknowledge(self.alert))
                    self._silence = _button("Silence", lambda: page.ask_silence(self.alert))
                if where := page.own_runbooks.get(alert.rule) or runbooks.address(alert.rule):
                    ui.link("Runbook", where)
        self.show(alert)

    def show(self, alert: Alert) -> None:
        """Say what the alert is now; the elements stay, or a keyboard's focus would be lost."""
        self.alert = alert
        self._state.set_text(alert.state)
        self._severity.set_text(alert.severity)
        self._silenced.set_visibility(alert.silenced)
        self.box.classes(remove="pending firing resolved critical warning").classes(alert.state)
        if alert.severity in ("critical", "warning"):
            self.box.classes(alert.severity)
        self._title.default_slot.children[0].set_text(alert.title)  # type: ignore[attr-defined]
        told = [f"{name} {value}" for name, value in sorted(alert.details.items()) if value != ""]
        self._details.set_text(" · ".join(told))
        self._details.set_visibility(bool(told))
        self._became.set_text(f"{alert.state} since")
        self._since.set_content(moment_html(alert.since))
        self._value.set_text(f"({age((datetime.now(UTC) - alert.since).total_seconds())}) · value {alert.value:,.6g}")
        known = alert.acknowledged_at is not None
        self._author.set_text(f"· {alert.acknowledged_by} looks after it since")
        if alert.acknowledged_at is not None:
            self._acknowledged.set_content(moment_html(alert.acknowledged_at))
        for element in (self._author, self._acknowledged):
            element.set_visibility(known)
        if self._acknowledge and self._silence:
            self._acknowledge.set_visibility(alert.state != "resolved" and alert.acknowledged_by is None)
            self._silence.set_visibility(alert.state != "resolved" and not alert.silenced)


def _button(name: str, clicked: Callable[[], Any]) -> ui.button:
    # Without a colour of Quasar's, which does not follow dark and light.
    return ui.button(name, on_click=clicked, color=None).props("outline dense no-caps")


class _Needed(ui.input):
    """A field that must not stay empty; the last of a form is the viewer's name."""

    def __init__(self, label: str, value: str = "") -> None:
        super().__init__(label, value=value, validation={"is needed": lambda text: bool(text and text.strip())})
        self.without_auto_validation().props(f"outlined dense maxlength={_LONGEST} hide-bottom-space")


class AlertsPage(Page):
    """One open list of alerts: its elements and what its viewer chose."""

    def __init__(self, reader: AlertReader, view: str, words: str, own_runbooks: Mapping[str, str]) -> None:
        super().__init__("/alerts")
        self._reader = reader
        self.own_runbooks = own_runbooks
        self.may_change = access() != "read"
        self._view = view if view in VIEWS else _FIRST_VIEW
        self._words = words[:_LONGEST]
        self._latest: Latest | None = None
        self._rows: dict[Key, _Row] = {}
        self._listed: tuple[Sequence[Silence], Sequence[Change]] | None = None
        with self.bar:
            self._search = ui.input(placeholder="Title, rule, label", value=self._words, on_change=self._choose_words)
            self._search.props('outlined dense clearable debounce=300 aria-label="Filter alerts"')
            self._views = ui.toggle({name: label for name, (label, _) in VIEWS.items()}, value=self._view)
            self._views.props("unelevated").on_value_change(self._choose_view)
        with self.body:
            self._list = ui.element("ul").classes("alerts").props("aria-label=Alerts")
            self._more = ui.label().classes("hint")
            self._empty = ui.label().classes("empty panel")
            self._empty.set_visibility(False)
            self._silences = ui.element("section").classes("silences")
            self._changes = ui.element("section").classes("changes")
            self._dialog = ui.dialog()

    async def show(self) -> None:
        """Show alerts, silences and changes; what the database raises is told on the page."""
        self._latest = await self._reader.latest()
        self._show()

    def _show(self) -> None:
        if self._latest is None:
            return
        alerts, belongs = self._latest.alerts, VIEWS[self._view][1]
        matching = [alert for alert in alerts if belongs(alert) and found(alert, self._words)]
        meant = {key_of(alert): alert for alert in matching[:_MOST_ALERTS]}
        for key in self._rows.keys() - meant.keys():
            self._rows.pop(key).box.delete()
        for place, (key, alert) in enumerate(meant.items()):
            if key not in self._rows:
                with self._list:
                    self._rows[key] = _Row(self, alert)
            elif self._rows[key].alert != alert or alert.state != "resolved":
                self._rows[key].show(alert)
            box = self._rows[key].box
            if self._list.default_slot.children.index(box) != place:
                box.move(target_index=place)
        self._more.set_text(f"and {len(matching) - len(meant)} more; filter them by a text")
        self._more.set_visibility(len(matching) > len(meant))
        self._empty.set_text("No alert of this view says that." if self._words else _EMPTY[self._view])
        self._empty.set_visibility(not meant)
        self._list.set_visibility(bool(meant))
        count = Counter(name for name, (_, has) in VIEWS.items() for alert in alerts if has(alert))
        labels = {name: f"{label} {count[name] or ''}".strip() for name, (label, _) in VIEWS.items()}
        if self._views.options != labels:
            self._views.set_options(labels, value=self._view)
        if self._listed != (self._latest.silences, self._latest.changes):
            self._listed = (self._latest.silences, self._latest.changes)
            self._show_silences(self._latest.silences)
            self._show_changes(self._latest.changes)

    def _show_silences(self, silences: Sequence[Silence]) -> None:
        self._silences.clear()
        with self._silences:
            text("h2", "Silences").classes("section-name")
            if not silences:
                ui.label("Nothing is silenced.").classes("empty panel")
                return
            with ui.element("ul").classes("lines"):
                for silence in silences:
                    with ui.element("li").classes("silence"):
                        ui.label(silence.rule or "every rule").classes("name")
                        ui.label(labels_text(silence.labels) or "whatever the subject")
                        if silence.starts > datetime.now(UTC):
                            ui.label("· from")
                            moment(silence.starts)
                        ui.label("· until")
                        moment(silence.ends)
                        ui.label(f"· {silence.author}: {silence.reason}").classes("reason")
                        if self.may_change:
                            _button("End", partial(self._end, silence))

    def _show_changes(self, changes: Sequence[Change]) -> None:
        self._changes.clear()
        with self._changes:
            text("h2", "Changes within a day").classes("section-name")
            if not changes:
                ui.label("Nothing began to fire and nothing was resolved.").classes("empty panel")
                return
            with ui.element("ol").classes("lines"):
                for change in changes[:_MOST_CHANGES]:
                    with ui.element("li").classes(f"change {change.state}"):
                        moment(change.time)
                        ui.label(change.state).classes("mark state")
                        ui.label(change.rule).classes("name")
                        ui.label(labels_text(change.labels))
                        ui.label(f"· value {change.value:,.6g}")
            if len(changes) > _MOST_CHANGES:
                ui.label(
                    f"and {len(changes) - _MOST_CHANGES} earlier ones; GET /api/v1/alerts/changes has all"
                ).classes("hint")

    async def ask_acknowledge(self, alert: Alert) -> None:
        """Ask who looks after an alert."""

        async def said() -> None:
            if not await self._reader.acknowledge(alert.rule, alert.labels, author.value.strip()):
                ui.notify("It is over already.", type="warning")

        remembered = await ui.run_javascript(_REMEMBERED, timeout=5)
        with self._ask("Acknowledge", alert.title, said) as form:
            ui.label("It is not told again until it fires anew.").classes("hint")
            author = _Needed("Your name", remembered)
        self._open(form, "Acknowledge")

    async def ask_silence(self, alert: Alert) -> None:
        """Ask for how long and why an alert, or all of its rule, is told to nobody."""

        async def said() -> None:
            await self._reader.silence(
                rule=alert.rule,
                labels=alert.labels if scope.value == "one" else {},
                ends=datetime.now(UTC) + timedelta(seconds=duration.value),
                author=author.value.strip(),
                reason=reason.value.strip(),
            )

        remembered = await ui.run_javascript(_REMEMBERED, timeout=5)
        with self._ask("Silence", alert.title, said) as form:
            scope = ui.select({"one": "This alert", "all": f"All of {alert.rule}"}, value="one", label="What")
            duration = ui.select(dict(_DURATIONS), value=next(iter(_DURATIONS)), label="For how long")
            for field in (scope, duration):
                field.props("outlined dense options-dense")
            reason = _Needed("Reason")
            author = _Needed("Your name", remembered)
        self._open(form, "Silence")

    def _ask(self, what: str, title: str, said: Callable[[], Awaitable[None]]) -> ui.element:
        async def submit() -> None:
            fields = [element for element in form.descendants() if isinstance(element, _Needed)]
            if all([field.validate() for field in fields]):  # noqa: C419 - each of them has to show its fault
                ui.run_javascript(f"localStorage.setItem('postel-author', {json.dumps(fields[-1].value.strip())})")
                if await self._write(said):
                    self._dialog.close()

        self._dialog.clear()
        with self._dialog, ui.element("form").classes("ask").props(f'aria-label="{what}"') as form:
            text("h2", what)
            ui.label(title)
        form.on("submit.prevent", submit)
        return form

    def _open(self, form: ui.element, what: str) -> None:
        with form, ui.element("div").classes("do"):
            _button("Cancel", self._dialog.close)
            ui.button(what).props("unelevated dense no-caps type=submit")
        self._dialog.open()

    async def _end(self, silence: Silence) -> None:
        await self._write(lambda: self._reader.end_silence(silence.id))

    async def _write(self, said: Callable[[], Awaitable[object]]) -> bool:
        try:
            await said()
        except PostelError as error:
            ui.notify(f"{error}", type="negative")
            return False
        await self.refresh()
        return True

    def _choose_view(self, event: Any) -> None:
        if event.value in VIEWS and event.value != self._view:
            self._view = event.value
            self._chosen()

    def _choose_words(self, event: Any) -> None:
        self._words = (event.value or "")[:_LONGEST]
        self._chosen()

    def _chosen(self) -> None:
        chosen = {"state": self._view, **({"q": self._words} if self._words else {})}
        ui.navigate.history.replace("/alerts?" + urlencode(chosen))
        self._show()


def add(opened: OpenPages, reader: AlertReader, own_runbooks: Mapping[str, str]) -> None:
    """Make the alerts of this reader the page at ``/alerts``; ``own_runbooks``: rule -> address, before those here."""

    @ui.page("/alerts", title="Alerts · Postel")
    async def alerts(state: str = "", q: str = "") -> None:
        await opened.open(AlertsPage(reader, state, q, own_runbooks))
