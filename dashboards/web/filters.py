"""What a page of outbound mail is narrowed to beside node and range: a zone, a domain, a provider.

It stands in the page's address, ``&zone=bulk&domain=bigmail.test``, so that a link shows the same to whoever opens it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nicegui import ui

# As long as a name of the DNS may be.
_LONGEST = 253
_EVERY_ZONE = ""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is shown; '': all of it.

    Attributes:
        provider: the registered domain of mail exchangers.
    """

    zone: str = ""
    domain: str = ""
    provider: str = ""

    @classmethod
    def told(cls, address: Mapping[str, str]) -> Narrowed:
        """As an address has it, which may hold anything."""
        return cls(**{field.name: cleaned(field.name, address.get(field.name, "")) for field in fields(cls)})

    @property
    def in_address(self) -> Mapping[str, str]:
        """What an address has to hold of it."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}

    @property
    def conditions(self) -> tuple[str, ...]:
        """The same as filters of `delivery_events` (`timescale_sink.api.filters.parse`)."""
        # A provider's hosts end with its name; a part of it is enough, and may be of others' too.
        forms = {"zone": "zone={}", "domain": "to_domain={}", "provider": "mx~{}"}
        return tuple(forms[name].format(value) for name, value in self.in_address.items())


def cleaned(name: str, value: str) -> str:
    """A value as it is looked for: domains are stored in small letters, and no name has a control character."""
    shown = "".join(character for character in value if character.isprintable()).strip()[:_LONGEST]
    return shown if name == "zone" else shown.lower().rstrip(".")


class FilterBar:
    """The fields in which they are chosen: a zone of those there are, names by Enter or by leaving the field.

    Args:
        narrowed: what the page opens with.
        choose: takes what was chosen.
    """

    def __init__(self, narrowed: Narrowed, choose: Callable[[Narrowed], Awaitable[None]]) -> None:
        self._narrowed, self._choose = narrowed, choose
        self._zones: Sequence[str] | None = None
        with ui.element("div").classes("filters").props('role=group aria-label="Filters"'):
            self._zone = ui.select({_EVERY_ZONE: "All zones"}, value=_EVERY_ZONE, on_change=self._choose_zone)
            self._zone.props('outlined dense options-dense aria-label="Zone"')
            self._texts = {name: self._field(name) for name in ("domain", "provider")}
            self._note = ui.label("Charts are of all domains: a server counts its attempts by zone alone.")
            self._note.classes("hint")
        self.offer(())
        self._tell()

    def offer(self, zones: Sequence[str]) -> None:
        """These zones are there; one that an address names stays, though it be none of them any more."""
        chosen = self._narrowed.zone
        if zones != self._zones:
            self._zones = zones
            there = dict.fromkeys([*zones, *([chosen] if chosen else [])])
            self._zone.set_options({_EVERY_ZONE: "All zones", **{zone: zone for zone in there}}, value=chosen)

    def _field(self, name: str) -> ui.input:
        field = ui.input(name.capitalize(), value=getattr(self._narrowed, name))
        field.props(f'outlined dense clearable spellcheck=false autocapitalize=off data-filter="{name}"')

        async def choose(_: Any = None) -> None:
            await self._chosen(**{name: field.value or ""})

        field.on("keydown.enter", choose).on("blur", choose).on("clear", choose)
        return field

    async def _choose_zone(self, event: Any) -> None:
        await self._chosen(zone=event.value)

    async def _chosen(self, **values: str) -> None:
        narrowed = replace(self._narrowed, **{name: cleaned(name, value) for name, value in values.items()})
        if narrowed != self._narrowed:
            self._narrowed = narrowed
            self._tell()
            await self._choose(narrowed)

    def _tell(self) -> None:
        for name, field in self._texts.items():
            field.set_value(getattr(self._narrowed, name))
        self._note.set_visibility(bool(self._narrowed.domain or self._narrowed.provider))
