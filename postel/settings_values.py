"""The forms that a setting's value may have; ``description`` is what messages and the reference page call them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

_ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"
# A URL with one @ at most, and that before the path; or libpq's key=value form.
_DATABASE_URL = re.compile(r"postgres(ql)?://([^@/]*@)?[^@?]*(\?.*)?|\s*\w+\s*=.*", re.DOTALL)


def _port_exists(address: str) -> str:
    if int(address.rpartition(":")[2]) > 65535:  # noqa: PLR2004 - the largest 16 bits hold
        raise ValueError("the port is above 65535")
    return address


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")  # noqa: TRY004 - pydantic turns ValueErrors into messages
    return value


def _of_postgresql(url: SecretStr) -> SecretStr:
    # No more than this: libpq, which knows it exactly, would cost the agent memory for nothing.
    if url and not _DATABASE_URL.fullmatch(url.get_secret_value()):
        raise ValueError("not a URL of PostgreSQL")
    return url


# TOML's true is no 1, although Python's is.
Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Port = Annotated[Whole, Field(ge=1, le=65535, description="a port number, 1 to 65535")]
Host = Annotated[str, Field(min_length=1, description="a host name or IP address")]
Address = Annotated[
    str,
    Field(pattern=_ADDRESS, description='"host:port", such as "127.0.0.1:4417"; the port is at most 65535'),
    AfterValidator(_port_exists),
]
Seconds = Annotated[Number, Field(gt=0, le=86400, description="seconds, a number above 0, such as 15")]
# Scheduled times are multiples of the interval; whole seconds keep those of two nodes on the same grid.
Interval = Annotated[Whole, Field(ge=1, le=86400, description="whole seconds, 1 to 86400, such as 15")]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_of_postgresql)]
