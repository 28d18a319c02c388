"""Renders every setting as ``docs/reference/settings.md``, which is itself a postel.toml with all defaults.

The page is made from :class:`postel.settings.Settings`, so that no key, default or accepted form is written twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from postel.settings import Settings

_HEAD = """\
<!-- Made by `postel describe --write docs/reference` from postel/settings.py; do not edit. -->

# Settings

`postel.toml` in the folder where Postel starts, else `/etc/postel/postel.toml`, else the file that `--config` names.
Each key is also an environment variable, `POSTEL_SECTION__KEY`, such as `POSTEL_SINK__GRPC_ADDRESS`; the environment
wins over the file, and an empty variable is as if unset. `OTEL_EXPORTER_OTLP_` `ENDPOINT`, `PROTOCOL`, `HEADERS`,
`COMPRESSION`, `TIMEOUT`, `CERTIFICATE` count for `[otlp]` where neither says anything. This is the whole file with its
defaults; a key that is commented out has none.
"""


def render() -> str:
    """The page as Markdown."""
    return _HEAD + "\n```toml\n" + "\n".join(_toml()).strip() + "\n```\n"


def _toml() -> Iterator[str]:
    data_dir = Settings.model_fields["data_dir"]
    yield f"# {data_dir.description}; also POSTEL_DATA_DIR"
    yield '# data_dir = "~/.local/share/postel"'
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield ""
            yield f"[{name}]  # {_summary(section)}"
            for key, inner in section.model_fields.items():
                yield f"# {_accepted(inner)}"
                yield _assignment(key, inner)


def _summary(section: type[BaseModel]) -> str:
    first = (section.__doc__ or "").splitlines()[0]
    return first.partition("``: ")[2]


def _accepted(field: FieldInfo) -> str:
    if field.description:
        return field.description
    nested = [argument.description for argument in get_args(field.annotation) if isinstance(argument, FieldInfo)]
    return nested[0] or "" if nested else ""


def _assignment(key: str, field: FieldInfo) -> str:
    default: Any = field.default
    if default is PydanticUndefined or default is None or default == "":
        return f"# {key} ="
    if isinstance(default, str):
        return f'{key} = "{default}"'
    if isinstance(default, tuple):
        return f"{key} = {list(default)}"
    return f"{key} = {default}"
