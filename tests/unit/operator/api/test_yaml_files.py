"""Reading a SeeleRun file: everything that can be wrong before its fields are checked."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from seele_operator.api.types import BadRunError, shown, yaml_path
from seele_operator.api.yaml_files import read_run_file
from seele_operator.validation.load import load_run
from tests.support.spec_data import small_run


def refusal(path: Path | str) -> str:
    with pytest.raises(BadRunError) as refused:
        load_run(path)
    (problem,) = refused.value.problems
    assert "\n" not in problem
    return problem


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "run.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml").startswith(f"{tmp_path}/none.yaml: no such file; ")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "a: 1")
    file.chmod(0)
    assert "Permission denied" in refusal(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; write a SeeleRun"),
        ("# only a comment\n---\n", "is empty; write a SeeleRun"),
        ("- a\n- b\n", "holds a list"),
        ("text", "holds a single value"),
        ("a: 1\n---\nb: 2\n", "holds 2 documents"),
        (b"a: \xff\n", "byte 3 is not UTF-8"),
        (b"a: \x00\n", "character 3 (code 0) is not text"),
        ("spec:\n  model: {name: x\n  dataset: 1\n", ":3:10: not valid YAML: "),
        ("a: {b: 1\nc: 2\n", ":2:2: not valid YAML: a bracket is not closed; close it with }"),
        ("a: b: c\n", ":1:5: not valid YAML: a value here has its own `: `; check the indentation"),
        ("a:\n  b:\n    c: 1\n   d: 2\n", ":4:4: not valid YAML: this line does not continue the one above; check the"),
        ("a:\n\t- b\n", ":2:1: not valid YAML: found a tab; use spaces, not tabs"),
        ("a: @b\n", ":1:4: not valid YAML: a value cannot start with '@'; put the value in quotes"),
        ("a: - b\n", ":1:4: not valid YAML: a list starts in the middle of a line; "),
        ("a: 1\nb\nc: 2\n", ":3:1: not valid YAML: the line above is not `name: value`; "),
        ("a: 'x\n", ":2:1: not valid YAML: a quote is not closed; close it"),
        ('a: "C:\\q"\n', ":1:8: not valid YAML: a \\ in double quotes starts an escape; use single quotes"),
        ("a: *nowhere\n", ':1:4: not valid YAML: "*nowhere" is an alias that is not defined; put the value in quotes'),
        ("a: !!python/object:os.system {}\n", ":1:4: not valid YAML: a tag (!) has no meaning here; remove it"),
        ("%YAML 3.0\n---\na: 1\n", "; correct the file there"),
        ("a: !!int ten\n", "does not fit its YAML tag"),
        ("a: !!bool maybe\n", "does not fit its YAML tag"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "b.c: is given twice (lines 3 and 5); keep one of them"),
        ("spec:\n- {a: 1, a: 1}\n", "spec[0].a: is given twice (lines 2 and 2)"),
        ("spec:\n  on: 1\n", "spec.on: is a key that is not text (line 2); put it in quotes"),
        ("spec: {1: a}\n", 'spec["1"]: is a key that is not text'),
        ("? [a, b]\n: 1\n", "is a key that is not text"),
        ("spec: &a {b: *a}\n", "spec.b: contains itself by an alias"),
    ],
)
def test_a_broken_file_gets_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refusal(written(tmp_path, text))


def test_excessive_aliases_are_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1]"] + [f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 60)]
    assert "without aliases" in refusal(written(tmp_path, "\n".join(lines)))


def test_excessive_nesting_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refusal(written(tmp_path, "a: " + "[" * 20000))


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(buffer=io.BytesIO(yaml.safe_dump(small_run()).encode()))
    monkeypatch.setattr("sys.stdin", given)
    assert load_run("-").metadata.name == "small"


def test_standard_input_is_named_in_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert refusal("-").startswith("standard input: is empty")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E3", 1000.0),
        ("1.5e+2", 150.0),
        (".5", 0.5),
        ("-7", -7),
        ("0x1f", 31),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("1.2.3", "1.2.3"),
        ("v1e6", "v1e6"),
        ("yes", True),
        ("~", None),
        ("'1'", "1"),
        ("e5", "e5"),
        ("-", "-"),
        (".", "."),
    ],
)
def test_values_have_the_same_types_as_in_kubectl(tmp_path: Path, text: str, value: object) -> None:
    read = read_run_file(written(tmp_path, f"{{a: {text} }}" if text != "-" else 'a: "-"'))["a"]
    assert read == value
    assert type(read) is type(value)


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\nagain: *base\n"
    assert read_run_file(written(tmp_path, text)) == {
        "base": {"a": 1, "b": 2},
        "more": {"a": 1, "b": 3},
        "again": {"a": 1, "b": 2},
    }


def test_a_byte_order_mark_and_a_lone_separator_are_ignored(tmp_path: Path) -> None:
    assert read_run_file(written(tmp_path, b"\xef\xbb\xbf---\na: 1\n---\n")) == {"a": 1}


def test_places_are_written_as_in_yaml() -> None:
    assert yaml_path(("spec", "env", 0, "name")) == "spec.env[0].name"
    assert yaml_path(("limits", "nvidia.com/gpu")) == 'limits["nvidia.com/gpu"]'
    assert yaml_path(()) == "the file"


def test_values_are_shown_on_one_short_line() -> None:
    assert shown("a\nb") == '"a\\nb"'
    assert shown({"a": 1}) == "a mapping"
    assert len(shown("x" * 1000)) == 60
