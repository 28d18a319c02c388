"""Who runs a mail exchanger: the registered domain of its host, by the Public Suffix List that ships with its package.

Companies are not known: one that receives under two domains is two providers.
"""

from __future__ import annotations

import ipaddress
from functools import cache

from publicsuffixlist import PublicSuffixList


@cache
def _suffixes() -> PublicSuffixList:
    # Of registries alone: hosts below a suffix of a company's own, such as a cloud's, are that company's.
    return PublicSuffixList(only_icann=True)


def provider(host: str) -> str:
    """The registered domain of a host, in lower case; the host itself where it has none (an address, one label)."""
    name = host.strip().rstrip(".").lower()
    try:
        ipaddress.ip_address(name.strip("[]").removeprefix("ipv6:"))
    except ValueError:
        return _suffixes().privatesuffix(name) or name
    return name
