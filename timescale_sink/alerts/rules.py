"""The alert rules: `rules.yaml` beside this file, and those of ``[alerts] rules``, checked when they are read.

A rule is a query that gives, for each subject that it can judge, labels and one value, whether or not the value is
wrong; a bound says from where it is. So a subject whose value is fine and one of which nothing is known are told apart.
The query is asked for a moment, ``%(now)s``, and looks at nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from postel.errors import SettingsError
from postel.yaml_loader import safe_load

Severity = Literal["warning", "critical"]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(text: Any) -> Any:
    """``90s``, ``10m``, ``4h``, ``7d``, or 0."""
    if text == 0:
        return timedelta(0)
    if isinstance(text, str) and text[:-1].isdecimal() and text[-1:] in _UNITS:
        return timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
    raise ValueError("is not a whole number and one of s, m, h, d, such as 10m")


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class Rule(BaseModel):
    """One rule.

    Attributes:
        name: lowercase words joined by hyphens; the runbook is ``docs/runbooks/<name>.md``.
        title: what is wrong, with {label}, {detail} and {value} of it, by their plain names.
        also: what people are told behind the title, of details whose texts change while it is wrong.
        runbook: the address of what to do; of a shipped rule the page has it.
        sql: gives the label columns, any further columns as details, and ``value``.
        labels: the columns that tell subjects apart.
        above, below: the value is wrong above or below this.
        unit: of the value, UCUM.
        for_: how long it is wrong until the alert fires.
        keep: how long it is fine until the alert is resolved, so that one that flaps fires once.
        missing: what an alert does whose subject the query does not give any more: it stays as it is, for a day at
            most; it is resolved as if it were fine; or it is forgotten, and nobody is told that it is over.
        every: how often it is evaluated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str
    also: str = ""
    runbook: str = Field("", pattern=r"^(https?://\S+)?$")
    severity: Severity
    sql: str
    labels: tuple[str, ...]
    above: float | None = None
    below: float | None = None
    unit: str = ""
    for_: Duration = Field(timedelta(minutes=5), alias="for")
    keep: Duration = timedelta(minutes=5)
    missing: Literal["keep", "resolve", "forget"] = "resolve"
    every: Duration = timedelta(minutes=1)

    @field_validator("title", "also")
    @classmethod
    def _plain(cls, title: str) -> str:
        # Another form fails once it is told, which is too late.
        for _, name, form, conversion in Formatter().parse(title):
            if name is not None and (not name.isidentifier() or form or conversion):
                raise ValueError(f"{{{name}}} is not the plain name of a column; a brace itself is written twice")
        return title

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("give one of above and below")
        return self

    def is_wrong(self, value: float) -> bool:
        """Whether the condition is met; a value that is no number meets none."""
        return value > self.above if self.above is not None else self.below is not None and value < self.below


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: tuple[Rule, ...]

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.name for rule in rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} stands there twice")
        return rules


def shipped() -> Sequence[Rule]:
    """The rules that come with Postel."""
    text = files(__package__).joinpath("rules.yaml").read_text("utf-8")
    return _File.model_validate(safe_load(text)).rules


def load(path: Path | None) -> Sequence[Rule]:
    """The shipped rules, those of a file behind them; one of the same name takes a shipped one's place.

    Raises:
        SettingsError: the file cannot be read, or is none of rules.
    """
    rules = {rule.name: rule for rule in shipped()}
    if path is not None:
        try:
            own = _File.model_validate(safe_load(path.read_text("utf-8"))).rules
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"[alerts] rules: {path} cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise SettingsError(f"[alerts] rules: {path} is not YAML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise SettingsError(f"[alerts] rules: {path}, {place}: {first['msg']}") from None
        rules |= {rule.name: rule for rule in own}
    return tuple(rules.values())
