"""Tables of events, and attributes that several files share: what a declaration may say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from postel.errors import DeclarationError
from postel.signals import Declarations, load

SHARED = """
type: post
scope: postel.post
service: post
shared: true
description: What all have in common.
attributes:
  post.id: {description: Its id., type: string}
  post.to: {description: To whom., type: "string[]"}
event_tables:
  post_events:
    description: Each letter.
    columns:
      fate: {type: text, description: What became of it.}
      id: {type: text, attributes: [post.id], description: Its id.}
      towns: {type: "text[]", attributes: [post.to], part: domains, description: Where to.}
"""

SOURCE = """
type: fresh
scope: postel.fresh
service: fresh
description: A source.
attributes:
  fresh.weight: {description: How heavy., type: int}
events:
  fresh.sent:
    key: sent
    description: A letter was sent.
    severity: info
    attributes: [post.id, post.to, fresh.weight]
    source: {reader: outbox}
    row: {table: post_events, values: {fate: sent}}
"""


def loaded(folder: Path, shared: str = SHARED, source: str = SOURCE) -> Declarations:
    (folder / "shared.yaml").write_text(shared, "utf-8")
    (folder / "source.yaml").write_text(source, "utf-8")
    return load([folder / "shared.yaml", folder / "source.yaml"])


def test_a_source_has_the_shared_attributes_that_it_uses(tmp_path: Path) -> None:
    declarations = loaded(tmp_path)
    assert set(declarations["fresh"].attributes) == {"post.id", "post.to", "fresh.weight"}
    event = declarations.events["fresh.sent"]
    assert event.row is not None
    assert (event.row.table, event.row.values) == ("post_events", {"fate": "sent"})
    assert [column.name for column in declarations.event_tables["post_events"].columns] == ["fate", "id", "towns"]


def test_a_source_may_say_in_its_own_words_what_a_shared_attribute_is(tmp_path: Path) -> None:
    own = "attributes:\n  post.id: {description: The number on the label., type: string}\n"
    declarations = loaded(tmp_path, source=SOURCE.replace("attributes:\n", own, 1))
    assert declarations["fresh"].attributes["post.id"].description == "The number on the label."


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("source", "table: post_events", "table: stamps", r"fresh\.sent\.row\.table: no file declares .* 'stamps'"),
        ("source", "{fate: sent}", "{faet: sent}", r"row\.values: 'faet' is no text column of post_events; .* fate"),
        ("source", "{fate: sent}", "{towns: sent}", r"row\.values: 'towns' is no text column"),
        ("source", "{fate: sent}", "{fate: 3}", r"row\.values\.fate: Input should be a valid string"),
        ("source", "post.id, post.to,", "post.id,", r"attributes\.post\.to: no metric, event or table of any file"),
        (
            "source",
            "attributes:\n",
            "attributes:\n  post.id: {description: Its number., type: int}\n",
            r"attributes\.post\.id\.type: is string in what all files share",
        ),
        (
            "shared",
            "      id: {",
            "      event_id: {",
            r"columns\.event_id: every event table has a column of this name",
        ),
        ("shared", "[post.to], part", "[post.too], part", r"columns\.towns\.attributes: no file declares 'post\.too'"),
        ("shared", '"text[]"', "text", r"columns\.towns\.type: text cannot hold a part of an address"),
        ("shared", "part: domains", "part: street", r"columns\.towns\.part: Input should be"),
        ("shared", "shared: true\n", "", r"attributes\.post\.\w+: no metric, event or table uses it"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    texts = {"shared": SHARED, "source": SOURCE}
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    with pytest.raises(DeclarationError, match=message):
        loaded(tmp_path, **texts)
