"""docs/development.md is a map of the packages: its tree and every file and name on it are compared with the code."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import REPOSITORY
from tests.support.docs_pages import blocks, prose

PAGE = "docs/development.md"
PACKAGES = ("operator/seele_operator", "trainer/seele_trainer")


def tree(text: str) -> list[tuple[str, str]]:
    """Paths of a tree, in order, each with its description. A folder ends with `/`; what it holds is indented below it."""
    found: list[tuple[str, str]] = []
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        name, _, description = line.strip().partition(" ")
        parents = [parent for parent in parents if parent[0] < indent]
        path = "".join([*(parent for _, parent in parents), name])
        parents.append((indent, name))
        found.append((path, description.strip()))
    return found


def paths() -> list[tuple[str, str]]:
    return tree(next(block.text for block in blocks(PAGE) if block.language == "text"))


def expected() -> set[str]:
    """Every folder of the packages that holds modules, and every module outside a folder."""
    found: set[str] = set()
    for package in PACKAGES:
        root = REPOSITORY / package
        found |= {f"{file.parent.relative_to(REPOSITORY)}/" for file in root.rglob("*.py")}
        found |= {str(file.relative_to(REPOSITORY)) for file in root.glob("*.py") if file.name != "__init__.py"}
    return found


def named() -> Iterator[tuple[str, str]]:
    """Every Python file in inline code, with the name in it that is meant; empty for the file itself."""
    for code in re.findall(r"`([^`\n]+)`", prose(PAGE)):
        if match := re.fullmatch(r"([\w/]+\.py)(?:: ([\w.]+)(?:\(\))?)?", code):
            yield match[1], match[2] or ""


def files(path: str) -> list[Path]:
    return [file for root in ("", *PACKAGES) if (file := REPOSITORY / root / path).is_file()]


@cache
def names(file: Path) -> frozenset[str]:
    """Names that a module defines at its top, and those of its classes after a dot."""

    def inside(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            match node:
                case ast.ClassDef():
                    yield prefix + node.name
                    yield from inside(node.body, f"{prefix}{node.name}.")
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield prefix + node.name
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    yield prefix + name

    return frozenset(inside(ast.parse(file.read_text(encoding="utf-8")).body))


def test_the_tree_has_each_folder_once_and_nothing_that_does_not_exist() -> None:
    found = [path for path, _ in paths()]

    assert [path for path in found if not (REPOSITORY / path).exists()] == []
    assert [path for path in found if path.endswith("/") != (REPOSITORY / path).is_dir()] == []
    assert sorted(expected() - set(found)) == []
    assert len(found) == len(set(found))


def test_each_part_of_the_tree_is_described() -> None:
    assert [path for path, description in paths() if not description] == []


def test_every_file_and_name_on_the_page_exists_in_one_place() -> None:
    wrong = []
    for path, name in named():
        match files(path):
            case [file] if not name or name in names(file):
                continue
            case [file]:
                wrong.append(f"{path} has no {name}")
            case found:
                wrong.append(f"{path}: {len(found)} files")

    assert wrong == []
    assert len(list(named())) > 80


def test_the_layers_are_those_that_lint_checks() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    text = " ".join(prose(PAGE).split())

    for contract in settings["tool"]["importlinter"]["contracts"]:
        layers = [re.sub(r"\w+", r"`\g<0>`", layer).replace(" | ", ", ") for layer in contract.get("layers", ())]
        assert " → ".join(layers) in text


def test_a_tree_is_read_by_its_indentation() -> None:
    assert tree("a/     one\n  b/   two\n    c.py three four\n  d/\ne/ five\n") == [
        ("a/", "one"),
        ("a/b/", "two"),
        ("a/b/c.py", "three four"),
        ("a/d/", ""),
        ("e/", "five"),
    ]
