"""Generated files are what `make generated` would write."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tools import generate

FILES = generate.generated_files()


@pytest.mark.parametrize("path", FILES)
def test_a_generated_file_is_current(path: str) -> None:
    assert generate.present(path) == FILES[path](), "run `make generated`"


def test_a_stale_file_is_named_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "REPOSITORY", tmp_path)
    monkeypatch.setattr(generate, "generated_files", lambda: {"docs/table.md": lambda: "new\n"})

    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/table.md is stale: run `make generated`\n"
    assert generate.main([]) == 0
    assert (tmp_path / "docs/table.md").read_text() == "new\n"
    assert generate.main(["--check"]) == 0


def test_one_call_also_updates_files_made_of_generated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ("manifests/crd-without-cel.yaml", "manifests/before-1.23/install.yaml")
    shutil.copytree(generate.REPOSITORY / "manifests", tmp_path / "manifests")
    (tmp_path / paths[0]).write_text("of another spec\n")
    monkeypatch.setattr(generate, "REPOSITORY", tmp_path)
    monkeypatch.setattr(generate, "generated_files", lambda: {path: FILES[path] for path in paths})

    generate.main([])

    assert generate.main(["--check"]) == 0


def test_an_unknown_option_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--chek"]) == 2
    assert "usage" in capsys.readouterr().err


def test_generating_imports_no_torch() -> None:
    code = "import sys; from tools import generate; generate.stale(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
