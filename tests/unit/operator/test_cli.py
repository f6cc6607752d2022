"""The `seele` command as a user meets it: exit codes, one line a problem, nothing left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_operator.plan.objects import plan
from seele_operator.validation.load import load_run
from tests.support import REPOSITORY

EXAMPLE = REPOSITORY / "tests" / "unit" / "data" / "plan" / "one-of-each.run.yaml"
LOCAL = ("run", "validate", "render", "crd", "train", "prepare-model", "eval", "report", "operator")
CLIENT = ("submit", "status", "logs", "suspend", "resume", "delete")


@pytest.fixture
def seele(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def changed(folder: Path, old: str, new: str) -> Path:
    path = folder / "changed.yaml"
    path.write_text(EXAMPLE.read_text().replace(old, new))
    return path


@pytest.mark.parametrize("command", [*LOCAL, *CLIENT])
def test_every_command_explains_itself_with_an_example(seele: CliRunner, command: str) -> None:
    result = seele.invoke(app, [command, "--help"])

    assert result.exit_code == 0
    assert f"seele {command}" in result.output.partition("Example")[2]
    if command in CLIENT:
        assert all(option in result.output for option in ("--kubeconfig", "--context", "--namespace", "-n"))


def test_a_good_run_is_valid(seele: CliRunner) -> None:
    result = seele.invoke(app, ["validate", "-f", str(EXAMPLE)])

    assert (result.exit_code, result.stdout) == (0, "one: valid\n")


@pytest.mark.parametrize("command", ["validate", "render"])
def test_what_is_valid_but_probably_unintended_is_a_warning_on_stderr(
    seele: CliRunner, command: str, tmp_path: Path
) -> None:
    idle = changed(tmp_path, "  model:\n", '  trainer: {resources: {limits: {nvidia.com/gpu: "4"}}}\n  model:\n')
    result = seele.invoke(app, [command, "-f", str(idle)])

    assert result.exit_code == 0
    assert "warning" not in result.stdout
    assert [line.partition(": ")[2].partition(": ")[0] for line in result.stderr.splitlines()] == [
        "spec.trainer.processesPerReplica",
        "spec.rollout.resources.limits",
    ]


@pytest.mark.parametrize("command", ["validate", "run", "render"])
def test_every_problem_is_one_line_on_stderr(seele: CliRunner, command: str, tmp_path: Path) -> None:
    bad = changed(tmp_path, "  model:\n", "  tarining: {}\n  hints: {targetAccuracy: 2}\n  model:\n")
    result = seele.invoke(app, [command, "-f", str(bad)])

    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert any(line.startswith("spec.tarining") for line in lines)
    assert any(line.startswith("spec.hints.targetAccuracy") for line in lines)
    assert [entry.name for entry in tmp_path.iterdir()] == ["changed.yaml"]


def test_a_missing_file_is_named(seele: CliRunner) -> None:
    result = seele.invoke(app, ["run", "-f", "none.yaml"])

    assert result.exit_code == 2
    assert result.stderr.startswith("none.yaml: no such file")


def test_render_prints_the_plan(seele: CliRunner) -> None:
    result = seele.invoke(app, ["render", "-f", str(EXAMPLE), "--attempt", "3"])

    assert result.exit_code == 0
    assert list(yaml.safe_load_all(result.stdout)) == plan(load_run(EXAMPLE), 3)


def test_render_refuses_what_validate_refuses(seele: CliRunner, tmp_path: Path) -> None:
    bad = changed(tmp_path, "  model:\n", "  training: {problemsPerStep: 64, problemsPerUpdate: 30}\n  model:\n")
    rendered, validated = (seele.invoke(app, [command, "-f", str(bad)]) for command in ("render", "validate"))

    assert (rendered.exit_code, rendered.stdout) == (validated.exit_code, validated.stdout) == (2, "")
    assert rendered.stderr == validated.stderr
    assert rendered.stderr.startswith("spec.training.problemsPerUpdate: 30 does not divide problemsPerStep")


@pytest.mark.parametrize("command", ["validate", "run", "render", "submit"])
def test_a_file_without_its_option_gets_the_right_command(seele: CliRunner, command: str) -> None:
    result = seele.invoke(app, [command, "run.yaml"])

    assert result.exit_code == 2
    assert "write -f run.yaml" in result.stderr


def test_other_commands_keep_the_messages_about_their_options(seele: CliRunner) -> None:
    assert "Missing option '--config'" in seele.invoke(app, ["train", "config.yaml"]).stderr
    assert "Missing option '--file'" in seele.invoke(app, ["validate"]).stderr
    assert "unexpected extra argument" in seele.invoke(app, ["validate", "-f", "a.yaml", "b.yaml"]).stderr


@pytest.mark.parametrize("command", [[], ["run"], ["crd"], ["delete"]])
def test_help_shows_no_value_for_a_flag(seele: CliRunner, command: list[str]) -> None:
    output = seele.invoke(app, [*command, "--help"]).output

    assert "--help" in output
    assert "bool" not in output.lower()


def test_help_separates_the_commands_of_pods(seele: CliRunner) -> None:
    output = seele.invoke(app, ["--help"]).output
    people, _, pods = output.partition("Used by pods and manifests")

    assert all(f" {command} " in people for command in ("run", "validate", "render", "eval", "report", *CLIENT))
    assert all(f" {command} " in pods for command in ("crd", "train", "prepare-model", "operator"))


def test_crd_prints_the_definition(seele: CliRunner) -> None:
    result = seele.invoke(app, ["crd"])

    assert yaml.safe_load(result.stdout)["metadata"]["name"] == "seeleruns.seele.dev"


@pytest.mark.parametrize("content", [None, "a: [", "name: x\n", "- 1\n"])
@pytest.mark.parametrize("command", ["train", "prepare-model"])
def test_pods_refuse_a_file_that_is_not_a_configuration(
    seele: CliRunner, tmp_path: Path, command: str, content: str | None
) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    more = ["--out", "model"] if command == "prepare-model" else []
    result = seele.invoke(app, [command, "--config", str(config), *more])

    assert result.exit_code == 2
    assert result.stderr.startswith("--config: ")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--data", "gsm8k"], '--data: "gsm8k" is not NAME=PATH'),
        (["--data", "gsm8k=none.jsonl"], "--data: none.jsonl does not exist"),
    ],
)
def test_eval_refuses_what_it_cannot_use(seele: CliRunner, arguments: list[str], line: str) -> None:
    result = seele.invoke(app, ["eval", "--model", "m", "--benchmark", "gsm8k", *arguments])

    assert result.exit_code == 2
    assert result.stderr.startswith(line)


def test_a_model_that_cannot_be_written_is_refused_with_its_folder(seele: CliRunner, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(f"name: one\nmodel: {{name: {model}}}\ndataset: {{path: train.jsonl}}\n")
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "initial"
    result = seele.invoke(app, ["prepare-model", "--config", str(tmp_path / "config.yaml"), "--out", str(out)])

    assert result.exit_code == 1
    assert result.stderr.startswith(f"--out: the model cannot be written to {out}: ")
    assert len(result.stderr.splitlines()) == 1


def test_eval_refuses_an_unknown_benchmark_before_it_loads_anything(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from seele_operator.cli import app\n"
        "result = CliRunner().invoke(app, ['eval', '--model', 'm', '--benchmark', 'gsm8k,math50'])\n"
        "print(result.exit_code, 'transformers' in sys.modules, result.stderr, end='')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    )

    assert result.stdout.startswith("2 False --benchmark: unknown benchmark 'math50'; use ")
    assert result.stdout.endswith("did you mean 'math500'?\n")


def test_a_folder_without_a_run_gets_no_report(seele: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, line in ((".", ". is not the folder of a run"), ("none", "none: no such"), ("file", "file: is not a")):
        result = seele.invoke(app, ["report", folder])

        assert result.exit_code == 2
        assert result.stderr.startswith(line)


def test_help_and_validation_import_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from seele_operator.cli import app\n"
        "for arguments in (['--help'], ['validate', '-f', sys.argv[1]], ['render', '-f', sys.argv[1]]):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "print({'torch', 'transformers', 'vllm', 'kopf', 'kubernetes', 'aiohttp', 'numpy', 'rich.live'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLE)], capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout == "set()\n"
