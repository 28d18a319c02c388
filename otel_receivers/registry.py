"""The sources that there are: each folder beside this file with a ``source.py``, whose ``SOURCE`` says what it has."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import otel_receivers
from otel_receivers.building import Build, BuildDoor, BuildStanding, Source
from otel_receivers.discovery import Place, only_looked_for
from postel.errors import SettingsError
from postel.settings import Discovery


def _found() -> Iterator[Source]:
    for package in sorted(each.name for each in pkgutil.iter_modules(otel_receivers.__path__) if each.ispkg):
        name = f"{otel_receivers.__name__}.{package}.source"
        if find_spec(name):
            source = import_module(name).SOURCE
            if not isinstance(source, Source):
                raise TypeError(f"{name}: SOURCE is no Source")
            yield source


_SOURCES = tuple(_found())
# By the name of the place where each is looked for.
SOURCES: Mapping[str, Build] = {name: build for source in _SOURCES for name, build in source.builds.items()}
# What sources answer at the intake's address.
DOORS: Sequence[BuildDoor] = tuple(door for source in _SOURCES for door in source.doors)
# What sources have whatever is found.
STANDING: Sequence[BuildStanding] = tuple(build for source in _SOURCES for build in source.standing)


def places(settings: Discovery) -> tuple[Place, ...]:
    """All places to look at, from ``[discovery]``.

    Raises:
        SettingsError: ``targets`` names a source that is looked for elsewhere, or none.
    """
    asked = tuple(place for source in _SOURCES for place in source.places(settings))
    known = [place.source for place in asked if place.named]
    for name in settings.targets:
        if name not in known:
            accepted = f"the sources without keys of their own: {', '.join(known) or 'none is there'}"
            raise SettingsError(f"[discovery] targets: {name} is not one of {accepted}")
    return asked + only_looked_for(settings)
