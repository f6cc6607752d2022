"""The `seele` command. Each command imports what it needs when it runs, so that help and validation stay fast."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from seele_operator.api.types import BadRunError
from seele_operator.client import commands as cluster_commands
from seele_operator.client.commands import Command, Group, RunFile
from seele_trainer.termination import ExitCode, write_termination_message

if TYPE_CHECKING:
    from seele_operator.api.seelerun import SeeleRun
    from seele_trainer.config import TrainerConfig

PODS_PANEL = "Used by pods and manifests"

app = typer.Typer(
    name="seele",
    cls=Group,
    help="Reinforcement learning with adaptive hints (SEELE), on this machine or on Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
cluster_commands.register(app)

ConfigFile = Annotated[
    Path,
    typer.Option("--config", help="The configuration of the run, config.yaml.", metavar="FILE", show_default=False),
]


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(version("seele"))
        raise typer.Exit


@app.callback()
def _seele(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    file: RunFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; if it already holds a run, that run is resumed.",
            metavar="DIR",
            show_default="runs/NAME-TIME",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the complete logs of all processes.")] = False,
) -> None:
    """Train on this machine without a cluster: the pods of the run become local processes.

    Ctrl-C stops the run at the end of its step and saves it; `--out` with the same folder resumes it.

    Examples:

    - `seele run -f manifests/examples/quickstart.yaml`
    - `seele run -f run.yaml --out runs/first --verbose`
    """
    from seele_operator.local.command import run_command

    with _refusals():
        raise typer.Exit(run_command(file, out, verbose))


@app.command()
def validate(file: RunFile) -> None:
    """Check a SeeleRun file, and list all problems, each with its field, its value and the remedy.

    A rule that involves a wrong field is checked once that field is right.

    Examples:

    - `seele validate -f run.yaml`
    - `cat run.yaml | seele validate -f -`
    """
    from seele_operator.validation.load import validate_file

    with _refusals():
        checked = validate_file(file)
    _warn(checked)
    print(f"{checked.metadata.name}: valid")


@app.command()
def render(
    file: RunFile,
    attempt: Annotated[int, typer.Option(min=1, help="Number of the attempt of the pods.")] = 1,
) -> None:
    """Print the Kubernetes objects of a SeeleRun as YAML.

    The file is checked as by `seele validate`, but models and data sets are not looked up on this machine.

    Examples:

    - `seele render -f run.yaml`
    - `seele render -f run.yaml | kubectl apply --dry-run=server -f -`
    """
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.plan.objects import plan
    from seele_operator.validation.load import load_run

    with _refusals():
        run = load_run(file)
        objects = plan(run, attempt)
    _warn(run)
    print(yaml_text(*objects), end="")


@app.command(rich_help_panel=PODS_PANEL)
def crd(
    cel: Annotated[
        bool,
        typer.Option(
            "--cel/--no-cel",
            help="Include the rules that Kubernetes checks from 1.25 on; before 1.23, kubectl rejects them.",
        ),
    ] = True,
) -> None:
    """Print the CustomResourceDefinition of SeeleRun as YAML.

    Examples:

    - `seele crd | kubectl apply -f -`
    - `seele crd --no-cel | kubectl apply -f -`
    """
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.validation.crd import crd as definition

    print(yaml_text(definition(cel=cel)), end="")


@app.command(rich_help_panel=PODS_PANEL)
def train(config: ConfigFile) -> None:
    """Train as one pod of a run (the command of trainer pods).

    Example:

    - `seele train --config /etc/seele/config.yaml`
    """
    with _refusals():
        _read_config(config)
    from seele_trainer.main import train as train_here

    raise typer.Exit(train_here(config))


@app.command(rich_help_panel=PODS_PANEL)
def prepare_model(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder for the model.", metavar="DIR", show_default=False)],
) -> None:
    """Write the model that rollout servers start from (the command of their init containers).

    Example:

    - `seele prepare-model --config /etc/seele/config.yaml --out /seele/run/weights/initial`
    """
    with _refusals():
        checked = _read_config(config)
    from seele_trainer.weights.prepare import BadModelError, ModelUnreachable
    from seele_trainer.weights.prepare import prepare_model as prepare

    try:
        prepare(checked, out)
    except ModelUnreachable as error:
        _refuse([str(error)], ExitCode.FAILED)
    except BadModelError as error:
        _refuse([str(error)])
    except OSError as error:
        # Not the fault of the input: another attempt may succeed.
        _refuse(
            [f"--out: the model cannot be written to {out}: {error}; check the folder and its free space"],
            ExitCode.FAILED,
        )


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Option(help="Folder of a Hugging Face model, or a model id.", metavar="DIR", show_default=False)
    ],
    benchmark: Annotated[
        str, typer.Option(help="Names of benchmarks, separated by commas.", metavar="NAME,...", show_default=False)
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Local file of a benchmark, if its data set cannot be downloaded.", metavar="NAME=PATH"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first problems of each benchmark.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="Sampled answers per problem, for avg@k.", show_default="the benchmark's own"),
    ] = None,
    engine: Annotated[Literal["vllm", "transformers"], typer.Option(help="What generates the answers.")] = "vllm",
    url: Annotated[
        str | None, typer.Option(help="Use this vLLM server, which serves the model as `seele`.", metavar="URL")
    ] = None,
    template: Annotated[
        Literal["r1-zero", "chat", "plain"] | None,
        typer.Option(help="Prompt template.", show_default="the template of the run, else r1-zero"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer in tokens.")] = 2048,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this file as JSON.", metavar="FILE")] = None,
) -> None:
    """Evaluate a model on benchmarks without hints: greedy pass@1, and avg@k.

    Examples:

    - `seele eval --model runs/first/final --benchmark gsm8k,math500`
    - `seele eval --model Qwen/Qwen2.5-1.5B --benchmark aime24 --samples 32 --out scores.json`
    - `seele eval --model final --benchmark gsm8k --data gsm8k=data/gsm8k/test.jsonl --limit 200`
    """
    files: dict[str, str | Path] = {}
    for entry in data or ():
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            _refuse([f'--data: "{entry}" is not NAME=PATH; give the name of a benchmark and its file'])
        if not Path(path).is_file():
            _refuse([f"--data: {path} does not exist; give the file of {name}"])
        files[name] = Path(path)
    names = [name.strip() for name in benchmark.split(",") if name.strip()]
    _check_benchmarks(names)
    from seele_trainer.evaluation.command import run as evaluate_model

    raise typer.Exit(evaluate_model(model, names, files, limit, samples, engine, template, max_tokens, out, url=url))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR", show_default=False)],
    problem: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw what the hint controller knows about this problem; can be repeated. By default, six problems from "
            "the hardest to the easiest are drawn.",
            metavar="ID",
        ),
    ] = None,
) -> None:
    """Write report.html and its figures to the folder of a run.

    Examples:

    - `seele report runs/quickstart-20261122-101500`
    - `seele report runs/first --problem 17 --problem 4`
    """
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "no such folder"
        _refuse([f"{folder}: {wrong}; give a folder created by `seele run`"])
    if not (folder / "config.yaml").is_file():
        _refuse([f"{folder} is not the folder of a run: it has no config.yaml; give a folder created by `seele run`"])
    from seele_trainer.report.page import ReportError, write_report

    try:
        print(write_report(folder, problem or ()))
    except ReportError as error:
        _refuse([str(error)])


@app.command(rich_help_panel=PODS_PANEL)
def operator(
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="Handle only the runs of this namespace; can be repeated.", metavar="NS"),
    ] = None,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /healthz, /readyz and /metrics.")] = 9401,
    workers: Annotated[int, typer.Option(min=1, help="Number of runs handled concurrently.")] = 8,
    lease_namespace: Annotated[
        str | None,
        typer.Option(help="Namespace of the lease.", metavar="NS", show_default="that of the pod, else default"),
    ] = None,
    lease_name: Annotated[
        str, typer.Option(help="Name of the lease shared by operators of the same runs.")
    ] = "seele-operator",
    lease_duration: Annotated[
        float, typer.Option(min=3, help="Seconds after which another operator replaces one that is gone.")
    ] = 15.0,
    leader_election: Annotated[
        bool, typer.Option("--leader-election/--no-leader-election", help="Work only while holding the lease.")
    ] = True,
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            help="Path of the kubeconfig.",
            metavar="FILE",
            show_default="as for kubectl, else the pod's service account",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig.", metavar="NAME", show_default="the current one")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Format of the log: lines for people, or JSON.")
    ] = "text",
) -> None:
    """Create and supervise the pods of a cluster's SeeleRuns (the command of the operator pod).

    Of several operators with the same lease, one works and the others stand by. On SIGTERM the operator finishes its
    current work and releases the lease.

    Examples:

    - `seele operator`
    - `seele operator --namespace research --namespace teaching --log-format json`
    - `seele operator --kubeconfig ~/.kube/config --context lab --no-leader-election`
    """
    from seele_operator.controller.process import OperatorOptions, operator_command

    options = OperatorOptions(
        namespaces=tuple(dict.fromkeys(namespace or ())),
        http_port=http_port,
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        lease_duration=lease_duration,
        leader_election=leader_election,
        workers=workers,
        kubeconfig=kubeconfig,
        context=context,
        log_format=log_format,
    )
    raise typer.Exit(operator_command(options))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Print a line for each problem of bad input, and exit with its code."""
    try:
        yield
    except BadRunError as error:
        _refuse(error.problems)


def _warn(run: SeeleRun) -> None:
    """Print on standard error what is valid but probably unintended."""
    from seele_operator.validation.warnings import run_warnings

    for line in run_warnings(run):
        print(f"warning: {line}", file=sys.stderr)


def _refuse(problems: list[str], code: ExitCode = ExitCode.BAD_INPUT) -> NoReturn:
    write_termination_message("\n".join(problems))
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)


def _check_benchmarks(names: list[str]) -> None:
    # Checked first, since importing transformers takes seconds.
    from seele_trainer.data.problem import BadDataError
    from seele_trainer.evaluation.benchmarks import known_benchmark

    for name in names:
        try:
            known_benchmark(name)
        except BadDataError as error:
            _refuse([f"--benchmark: {error}"])


def _read_config(path: Path) -> TrainerConfig:
    from seele_trainer.run_folder.attempt import ConfigError, read_config

    try:
        return read_config(path)
    except ConfigError as error:
        raise BadRunError(f"--config: {problem}" for problem in error.problems) from error


for command in app.registered_commands:  # Typer has no setting for all of them
    command.cls = Command


def main() -> None:
    """Entry point of the `seele` command."""
    app()


if __name__ == "__main__":
    main()
