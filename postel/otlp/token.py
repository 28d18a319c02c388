"""The bearer token of a receiver, checked the same over HTTP and gRPC.

Source: RFC 6750 section 2.1; the Collector's `bearertokenauth` extension sends it in both protocols.
"""

from __future__ import annotations

import hmac

from postel.otlp.errors import Unauthenticated


def check(authorization: str, token: str | None) -> None:
    """Compare the value of the ``Authorization`` header with the token that is asked for.

    Args:
        authorization: the header's value, empty where there is none.
        token: the expected token; None: every sender is taken.

    Raises:
        Unauthenticated: there is no token, or not this one; how much of it is right cannot be told by the time.
    """
    if token is None:
        return
    scheme, _, given = authorization.partition(" ")
    # Starlette reads headers as Latin-1, so this gives back the bytes that were sent; gRPC lets only ASCII through.
    same = hmac.compare_digest(given.strip().encode("latin-1", errors="replace"), token.encode())
    if scheme.lower() != "bearer" or not same:
        raise Unauthenticated("this receiver asks for its token: send the header 'Authorization: Bearer <token>'")
