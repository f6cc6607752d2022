"""What the pages say is true: commands are tested, links have targets, options and fields exist, runs are valid."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from seele_operator.cli import app
from seele_operator.validation.load import check_run, parse_run
from seele_operator.validation.schema import run_schema
from tests.support import REPOSITORY
from tests.support.docs_pages import Block, blocks, commands, headings, pages, prose, shows, text_of
from tests.support.spec_data import patched, small_run

PAGES = pages()
LANGUAGES = {"console", "yaml", "json", "python", "diff", "promql", "text", "mermaid"}
HOW = """say how the block is tested, in a comment on the line before it:
<!-- run here -->, <!-- run on a cluster -->, <!-- run by tests/….py::test_… --> or <!-- not run: why -->"""


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if not languages or block.language in languages]


# Commands


def test_code_is_fenced_in_a_language_that_is_checked() -> None:
    unknown = [
        f"{block.place}: {block.language or 'no language'}" for block in all_blocks() if block.language not in LANGUAGES
    ]

    assert unknown == [], f"use one of {', '.join(sorted(LANGUAGES))}; commands are `console`"


def test_every_block_of_commands_is_tested_or_says_why_not() -> None:
    assert [
        block.place for block in all_blocks("console") if not (block.where or block.run_by or block.not_run)
    ] == [], HOW


def test_what_runs_a_block_exists() -> None:
    missing = []
    for block in all_blocks("console"):
        for name in block.run_by:
            file, _, test = name.partition("::")
            path = REPOSITORY / file
            if not path.is_file() or (
                test and not re.search(rf"^(?:async )?def {re.escape(test)}\(", path.read_text(), re.M)
            ):
                missing.append(f"{block.place}: {name}")

    assert missing == []


def test_scripts_run_the_make_targets_that_pages_credit_them_with() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    wrong = []
    for block in all_blocks("console"):
        scripts = [REPOSITORY / name.partition("::")[0] for name in block.run_by if not name.startswith("tests/unit")]
        text = "\n".join(script.read_text() for script in scripts if script.is_file())
        for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", block.text, re.M):
            called = re.search(rf"make {target}\b|\"make\", \"{target}\"", text)
            # A target runs its prerequisites too.
            needed = any(
                re.search(rf"^{caller}:.*\b{target}\b", makefile, re.M)
                for caller in re.findall(r"make ([a-z-]+)", text)
            )
            if block.run_by and not (called or needed):
                wrong.append(f"{block.place}: make {target}")

    assert wrong == []


def test_commands_are_separated_from_their_output() -> None:
    shown = Block("p.md", 1, "console", "$ one \\\n> two\na…z\n$ three\n", "run here")
    plain = Block("p.md", 1, "console", "one \\\n  two\nthree   # why\n", "run here, exit code 2")

    assert [(command.text, command.output) for command in commands(shown)] == [("one \\\ntwo", "a…z"), ("three", "")]
    assert [(command.text, command.output) for command in commands(plain)] == [
        ("one \\\n  two", None),
        ("three   # why", None),
    ]
    assert (shown.exit_code, plain.exit_code, plain.where) == (0, 2, "here")


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("a…z", "a b z\n", True),
        ("a\n…\nz", "a\nb\nc\nz", True),
        ("a\n…\nz", "a\nz", True),
        ("a…z", "a\nz", False),
        ("a", "a\nb", False),
        ("a.z", "abz", False),
        ("", "x", False),
    ],
)
def test_an_ellipsis_matches_any_output(shown: str, output: str, same: bool) -> None:
    assert shows(shown, output) is same


# Links


def links(page: str) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", PAGES)
def test_links_have_targets(page: str) -> None:
    dead = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        if not target.exists() or (anchor and anchor not in headings(str(target.resolve().relative_to(REPOSITORY)))):
            dead.append(link)

    assert dead == []


def test_every_page_can_be_reached() -> None:
    reached, pending = set(), ["README.md"]
    while pending:
        page = pending.pop()
        if page in reached or not page.endswith(".md"):
            continue
        reached.add(page)
        for link in links(page):
            target = ((REPOSITORY / page).parent / link.partition("#")[0]).resolve()
            if ":" not in link and target.is_file():
                pending.append(str(target.relative_to(REPOSITORY)))

    assert sorted(set(PAGES) - reached) == []


# Commands and options


@cache
def known_options() -> dict[str, set[str]]:
    """Options by command of `seele`; those of `seele` itself under an empty name."""
    group: Any = typer.main.get_command(app)
    options = {name: {flag for one in command.params for flag in one.opts} for name, command in group.commands.items()}
    return {**options, "": {flag for one in group.params for flag in one.opts}}


def seele_calls(page: str) -> Iterator[list[str]]:
    """Words after `seele` in commands of the page's blocks and in its inline code."""
    lines = [one for block in blocks(page) if block.language == "console" for one in block.text.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose(page))
    for line in lines:
        for found in re.finditer(r"(?:^|[\s|&;(/])seele (?=[a-z-])([^|&;<>#]*)", f" {line}"):
            yield re.findall(r"[^\s'\"`]+", found[1])


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page: str) -> None:
    wrong = []
    for name, *words in seele_calls(page):
        if name.startswith("-"):
            words, name = [name, *words], ""
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - {"--help"}
        known = known_options().get(name)
        if known is None or options - known:
            wrong.append(f"seele {name} {' '.join(words)}")

    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_and_scripts_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    code = "\n".join([*(block.text for block in blocks(page)), *re.findall(r"`([^`]+)`", prose(page))])

    assert set(re.findall(r"\bmake ([a-z0-9-]+)", code)) <= targets
    for script in re.findall(r"\b(?:tools|benchmarks|tests|manifests|charts)/[\w/.-]+\.\w+", code):
        assert (REPOSITORY / script).exists(), script


# SeeleRuns


def fragments() -> list[Block]:
    """YAML that is a SeeleRun, or a part of one."""
    return [
        block
        for block in all_blocks("yaml")
        if "kind: SeeleRun\n" in block.text or set(yaml.safe_load(block.text) or {}) == {"spec"}
    ]


def test_every_run_on_a_page_is_valid() -> None:
    wrong = []
    for block in fragments():
        body = yaml.safe_load(block.text)
        run = parse_run(body if "kind" in body else patched(small_run(), body))
        wrong += [f"{block.place}: {line}" for line in check_run(run)]

    assert wrong == []
    assert len(fragments()) >= 5


def test_all_yaml_can_be_read() -> None:
    for block in all_blocks("yaml"):
        assert list(yaml.safe_load_all(block.text)) != [None], block.place


@cache
def field_paths() -> frozenset[str]:
    def inside(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, field in schema.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from inside(field, here)
            yield from inside(field.get("items", {}), f"{here}[]")

    return frozenset(inside(run_schema()["properties"]["spec"], ""))


@pytest.mark.parametrize("page", PAGES)
def test_fields_that_are_named_exist(page: str) -> None:
    sections = "|".join(run_schema()["properties"]["spec"]["properties"])
    named = re.findall(rf"`(?:spec\.)?((?:{sections})\.[A-Za-z.\[\]]+?)(?::[^`]*)?`", prose(page))

    unknown = [path for path in named if path.removesuffix("[]") not in field_paths() and Path(path).suffix != ".py"]
    assert unknown == []


@cache
def messages() -> str:
    """All source text, with the parts of a string joined and `…` for each value in it."""
    files = sorted(path for folder in ("operator", "trainer") for path in (REPOSITORY / folder).rglob("*.py"))
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", source))


def symptoms() -> list[str]:
    """Messages that the troubleshooting page quotes: inline code in the first cell of a row."""
    cells = [line.split("|")[1] for line in prose("docs/troubleshooting.md").splitlines() if line.startswith("|")]
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def test_quoted_messages_are_in_the_code() -> None:
    parts = {part.strip() for code in symptoms() for part in code.split("…") if len(part.strip()) > 3}

    assert [part for part in sorted(parts) if not re.search(rf"(?<!\w){re.escape(part)}(?!\w)", messages())] == []
    assert len(parts) > 25


def test_a_field_that_does_not_exist_would_be_found() -> None:
    assert "rollout.replicas" in field_paths()
    assert "evaluation.benchmarks[].title" in field_paths()
    assert "rollout.replcas" not in field_paths()


def test_the_readme_has_its_two_commands_and_stays_short() -> None:
    lines = [shlex.split(line, comments=True) for block in blocks("README.md") for line in block.text.splitlines()]

    assert ["make", "quickstart"] in lines
    assert ["make", "test"] in lines
    assert len(text_of("README.md").splitlines()) <= 100
