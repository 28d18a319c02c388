"""The bearer token of a receiver, checked the same over HTTP and gRPC.

Source: RFC 6750 section 2.1; the Collector's `bearertokenauth` extension sends it in both protocols.
"""

from __future__ import annotations

import hmac

from postel.otlp.errors import Unauthenticated


def shown(authorization: str) -> str | None:
    """The token of an ``Authorization`` header; None where it has none or is of another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def same(given: str, token: str) -> bool:
    """Whether a token of a request is this one; how much of it is right cannot be told by the time."""
    # Starlette reads headers as Latin-1, so this gives back the bytes that were sent; gRPC lets only ASCII through.
    return hmac.compare_digest(given.encode("latin-1", errors="replace"), token.encode())


def check(authorization: str, token: str | None) -> None:
    """Compare the value of the ``Authorization`` header with the token that is asked for.

    Args:
        authorization: the header's value, empty where there is none.
        token: the expected token; None: every sender is taken.

    Raises:
        Unauthenticated: there is no token, or not this one.
    """
    if token is None:
        return
    given = shown(authorization)
    if given is None or not same(given, token):
        raise Unauthenticated("this receiver asks for its token: send the header 'Authorization: Bearer <token>'")
