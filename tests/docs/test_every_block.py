"""No block of a page comes in without a test that runs it, and what stands in a text as a command is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile

import click
import psycopg

from postel.cli import main
from support.markdown import CHECKOUT, PICTURE, blocks, files, pages, spans

# Decisions tell of what was, and changes too.
OF_TODAY = [page for page in pages() if not page.startswith("docs/decisions/") and page != "CHANGELOG.md"]
LANGUAGES = {PICTURE, "sh", "sql", "toml", "ini", "yaml", "json", "nginx", "python", "js", "markdown"}
COMMAND = re.compile(r"^\s*(\$ |(sudo|postel|make|npm|curl|psql|systemctl|docker|git|pip|python3?)\s)", re.MULTILINE)


def test_each_page_with_blocks_is_followed_by_a_test() -> None:
    texts = [(CHECKOUT / name).read_text("utf-8") for name in files("tests/**/test_*.py")]
    tests = [text for text in texts if "reading(" in text]
    wanted = {page for page in pages() if any(block.language != PICTURE for block in blocks(page))}
    assert {page for page in wanted if not any(f'"{page}"' in text for text in tests)} == set()


def test_each_block_says_its_language_and_no_command_hides_in_a_picture() -> None:
    wrong = [
        f"{block.page}:{block.line}: ```{block.language}"
        for page in pages()
        for block in blocks(page)
        if block.language not in LANGUAGES or (block.language == PICTURE and COMMAND.search(block.text))
    ]
    assert not wrong, "a shell's is ```sh, and a test runs it"


def commands(page: str) -> Iterator[str]:
    for span in spans(page):
        said = re.sub(r"^(\S*/)?postel ", "postel ", span)
        if said.startswith("postel ") and "=" not in said:
            # `postel up [--demo]` and `postel db migrate|status` of the table of commands are several.
            first, *others = said.replace("[", "").replace("]", "").split("|")
            yield first
            yield from (f"{first.rpartition(' ')[0]} {other}" for other in others)


def test_a_command_in_the_text_is_one() -> None:
    said = sorted({(page, command) for page in OF_TODAY for command in commands(page)})
    assert len(said) > 50
    assert [f"{page}: {command}" for page, command in said if not is_one(command)] == []


def test_each_command_is_on_the_first_page() -> None:
    named = {" ".join(takewhile(re.compile("[a-z]").match, said.split())) for said in commands("README.md")}
    assert {f"postel {name}" for name in sub_commands(main)} <= named


def sub_commands(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from sub_commands(command, f"{before}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{before}{name}"


def is_one(command: str) -> bool:
    """Whether there is this sub-command, and its options are."""
    words = shlex.split(command.partition("&&")[0])[1:]
    known: click.Command = main
    while words and isinstance(known, click.Group) and not words[0].startswith("-"):
        if words[0] not in known.commands:
            return False
        known = known.commands[words.pop(0)]
    options = {name for option in known.params for name in option.opts}
    return {word for word in words if word.startswith("--")} <= options


def test_the_targets_of_make_that_pages_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for page in OF_TODAY for span in spans(page) for word in re.findall(r"^make ([a-z]+)", span)}
    assert len(named) > 5
    assert named <= targets


def test_the_queries_of_the_runbooks_are_of_the_schema(migrated_postgres: str) -> None:
    queries = {span for page in pages() if page.startswith("docs/runbooks/") for span in spans(page)}
    asked = [query for query in sorted(queries) if query.startswith("SELECT ")]
    assert len(asked) >= 5
    with psycopg.connect(migrated_postgres, autocommit=True) as connection:
        for query in asked:
            connection.execute(query.encode()).fetchall()
