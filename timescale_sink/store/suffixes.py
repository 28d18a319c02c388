"""The public suffixes of the registries, as a function of the database: by them its hosts are told to who runs them.

From the Public Suffix List (https://publicsuffix.org/list) in the package ``publicsuffixlist``: it reads no network,
and is renewed with the package (:mod:`timescale_sink.store.migrate`). Suffixes of a company's own, such as a cloud's,
are left out: hosts below them are that company's. ``sql/views/0009_mail_providers.sql`` reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

_BEGIN, _END = "// ===BEGIN ICANN DOMAINS===", "// ===END ICANN DOMAINS==="
# What a rule begins with -> by how many labels its suffixes are longer than the name behind it, weakest first.
_KINDS = {"": 0, "*.": 1, "!": -1}


def suffixes() -> Mapping[str, int]:
    """Name in lower case, in its own letters and in ASCII -> by how many labels its suffixes are longer.

    0 of ``co.uk``, 1 of ``ck`` because of the rule ``*.ck``, -1 of ``www.ck`` because of ``!www.ck``. Of several rules
    with one name the last of these counts.
    """
    found = {}
    rules = [*_rules()]
    for kind, longer in _KINDS.items():
        for rule in rules:
            name = rule.lstrip("*.!")
            if rule == f"{kind}{name}":
                found[name] = found[name.encode("idna").decode()] = longer
    return found


def function() -> str:
    """The statement that makes ``public_suffixes()`` or replaces it."""
    # No label has a quote in any script.
    return (
        "CREATE OR REPLACE FUNCTION public_suffixes() RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS"
        f" $list$ SELECT '{json.dumps(suffixes(), ensure_ascii=False)}'::jsonb $list$;\n"
    )


def digest() -> str:
    """Another one where `function` may be: of the list, and of what makes the statement of it in far more time."""
    return hashlib.sha256(_list() + Path(__file__).read_bytes()).hexdigest()


def _list() -> bytes:
    return files("publicsuffixlist").joinpath("public_suffix_list.dat").read_bytes()


def _rules() -> Iterator[str]:
    text = _list().decode()
    for line in text.partition(_BEGIN)[2].partition(_END)[0].splitlines():
        if (words := line.split()) and not line.startswith("//"):
            yield words[0].lower()
