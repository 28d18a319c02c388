"""Says what is wrong with a setting: the file or variable, the key and the accepted form, and never a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Model = type[BaseModel]

# How a variable says what is not one value.
_IN_JSON = {"dict": 'a JSON object such as {"name": "..."}', "tuple": 'a JSON list such as ["host:port"]'}


def explain(error: ValidationError, settings: Model, path: Path | None, standard: Mapping[str, str]) -> str:
    """All faults of one reading, a line each.

    Args:
        error: what pydantic found.
        settings: the model of all settings.
        path: the file that was read; None: none was.
        standard: key of ``[otlp]`` -> the standard variable that it comes from.
    """
    lines = []
    for fault in error.errors():
        keys = [str(key) for key in fault["loc"]]
        field = _field(settings, keys)
        # A union reports each branch under its own name behind the key; the key is what the user wrote.
        keys = keys[:2] if keys[:1] and keys[0] in settings.model_fields else keys
        variable = _set("POSTEL_" + "__".join(keys).upper())
        named = f"[{keys[0]}] {'.'.join(keys[1:])}" if len(keys) > 1 else ".".join(keys)
        if len(keys) > 1 and keys[0] == "otlp" and variable not in os.environ:
            variable = standard.get(keys[1], variable)
        place = f"environment, {variable}" if variable in os.environ else f"{path or 'settings'}: {named}"
        if fault["type"] == "extra_forbidden":
            known = _siblings(settings, keys)
            lines.append(f"{place} is not a known key; known are: {', '.join(known)}")
        elif field is None:
            lines.append(f"{path or 'settings'}: {fault['msg'].removeprefix('Value error, ')}")
        else:
            value = "a value that is not shown" if _secret(field) else repr(_shown(fault["input"]))
            keys_of_it = ", ".join(_section_fields(settings, keys[0])) if len(keys) == 1 else ""
            accepted = f"a section with the keys {keys_of_it}" if keys_of_it else field.description or fault["msg"]
            lines.append(f"{place} = {value} is wrong; accepted: {accepted}")
    return "\n".join(dict.fromkeys(lines))


def explain_unreadable(section: str, settings: Model) -> str:
    """A variable of this section that is no JSON where one is needed, or that names the section itself."""
    variable = f"POSTEL_{section.upper()}"
    if variable in os.environ:
        return f"environment, {variable} is a section; set its keys one by one: {variable}__KEY"
    fields = _section_fields(settings, section)
    wanted = {
        f"{variable}__{name.upper()}": form
        for name, field in fields.items()
        for kind, form in _IN_JSON.items()
        if kind in str(field.annotation)
    }
    # Of several that could be meant, those that are there.
    there = {name.upper() for name in os.environ}
    wanted = {_set(name): form for name, form in wanted.items() if _set(name) in there} or wanted
    forms = " or ".join(dict.fromkeys(wanted.values()))
    return f"environment, {' or '.join(wanted)} is wrong; accepted: {forms}"


def secret_keys(settings: Model) -> list[str]:
    """Every key that holds a secret, as ``section__key``."""
    return [
        f"{section}__{key}"
        for section in settings.model_fields
        for key, field in _section_fields(settings, section).items()
        if _secret(field)
    ]


def _set(variable: str) -> str:
    """The variable that a value came from: this one, or the one that named a file with it."""
    of_file = f"{variable}_FILE"
    return of_file if of_file in os.environ and variable not in os.environ else variable


def _shown(value: object) -> object:
    """The value without what may be a password or key in a URL."""
    return re.sub(r"(?<=://).*(?=@)|(?<=[?#]).+", "...", value, flags=re.DOTALL) if isinstance(value, str) else value


def _secret(field: FieldInfo) -> bool:
    """Whether the field, or a key of the section that it is, holds a secret."""
    if section := _model(field):
        return any(_secret(key) for key in section.model_fields.values())
    return "Secret" in str(field.annotation)


def _field(settings: Model, keys: list[str]) -> FieldInfo | None:
    model: Model | None = settings
    field = None
    for key in keys:
        if model is None or key not in model.model_fields:
            break
        field = model.model_fields[key]
        model = _model(field)
    return field


def _siblings(settings: Model, keys: list[str]) -> list[str]:
    return list((_section_fields(settings, keys[0]) if len(keys) > 1 else {}) or settings.model_fields)


def _section_fields(settings: Model, name: str) -> dict[str, FieldInfo]:
    """The keys of a section; {} for what is none."""
    field = settings.model_fields.get(name)
    section = _model(field) if field else None
    return section.model_fields if section else {}


def _model(field: FieldInfo) -> Model | None:
    """The section that a field is; None where it is a key."""
    section = field.annotation
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None
