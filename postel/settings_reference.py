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
wins over the file, and an empty variable is as if unset. A secret (a token, a password, a URL that may hold one) may be
in a file of its own, whose path is `POSTEL_SECTION__KEY_FILE`. `OTEL_EXPORTER_OTLP_` `ENDPOINT`, `PROTOCOL`,
`HEADERS`, `COMPRESSION`, `TIMEOUT`, `CERTIFICATE`, `CLIENT_CERTIFICATE`, `CLIENT_KEY` count for `[otlp]` where neither
says anything. This is the whole file with its defaults; a key that is commented out has none.
"""


_SAMPLE_HEAD = (
    "# Postel's settings, written by `postel install`. A key that is commented out shows its default, if it has one.",
    "# A service knows a change when it is restarted. `postel describe` says what there is in a later version.",
    "",
)


def render() -> str:
    """The page as Markdown."""
    return _HEAD + "\n```toml\n" + "\n".join(_toml()).strip() + "\n```\n"


def sample(*, data_dir: str) -> str:
    """A ``postel.toml`` that says nothing but ``data_dir``: every key with its default, commented out.

    Args:
        data_dir: of the services that read it.
    """
    lines = list(_toml())
    keys = (line if not line or line.startswith(("#", "[")) else f"# {line}" for line in lines[2:])
    return "\n".join([*_SAMPLE_HEAD, lines[0], f'data_dir = "{data_dir}"', *keys]) + "\n"


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
    forms = [
        form for one in get_args(field.annotation) for form in (one, *get_args(one)) if isinstance(form, FieldInfo)
    ]
    return forms[0].description or "" if forms else ""


def _assignment(key: str, field: FieldInfo) -> str:
    default: Any = field.default
    if default is PydanticUndefined or default is None or default == "":
        return f"# {key} ="
    if isinstance(default, str):
        return f'{key} = "{default}"'
    if isinstance(default, tuple):
        return f"{key} = {list(default)}"
    return f"{key} = {default}"
