"""`seele eval`: runs benchmarks on a model without hints, shows the scores and writes them to a file."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import AutoConfig

from seele_trainer.config import Benchmark, Evaluation, Rewards, RolloutOptions, Truncated, Verifier
from seele_trainer.data.problem import BadDataError
from seele_trainer.data.prompts import Template, stop_strings
from seele_trainer.data.tokenizer import TextTokenizer, load_tokenizer
from seele_trainer.evaluation.benchmarks import known_benchmark
from seele_trainer.evaluation.evaluate import Examiner, LoadedBenchmark, completions_needed, load_benchmark
from seele_trainer.evaluation.local_server import local_server
from seele_trainer.formatting import percent
from seele_trainer.rollout.grading import Grader, StopStrings
from seele_trainer.rollout.protocol import RolloutEngine
from seele_trainer.run_folder.attempt import CONFIG_FILE, ConfigError, read_tree
from seele_trainer.run_folder.records import BenchmarkScore
from seele_trainer.termination import ExitCode, ExpectedFailure
from seele_trainer.verify.pool import VerifierPool
from seele_trainer.weights.prepare import BadModelError
from seele_trainer.weights.stored_tensors import BadSafetensors, check_safetensors

SERVED_NAME = "seele"
URL_SECONDS = 60.0
"""How long a server given by URL, which should be up already, may take to answer."""

EngineKind = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Rules:
    """How questions are asked, what ends an answer, and what a truncated one earns."""

    template: Template
    stop: tuple[str, ...]
    truncated: Truncated


@dataclass(frozen=True)
class Exam:
    """A local model, its tokenizer, and the problems that it has to answer with at most `max_tokens` tokens."""

    folder: Path
    text: TextTokenizer
    benchmarks: tuple[LoadedBenchmark, ...]
    max_tokens: int
    stop: StopStrings

    @property
    def context_length(self) -> int:
        """Longest prompt and completion, in tokens."""
        return max(len(prompt) for benchmark in self.benchmarks for prompt in benchmark.prompts) + self.max_tokens


def run(
    model: str,
    benchmarks: Sequence[str],
    data: Mapping[str, str | Path],
    limit: int | None = None,
    samples: int | None = None,
    engine: EngineKind = "vllm",
    template: str | None = None,
    max_tokens: int = 2048,
    out: Path | None = None,
    *,
    url: str | None = None,
    seed: int = 0,
) -> int:
    """Evaluate a model folder or Hugging Face model id; returns the exit code.

    `data` maps benchmarks to local files, `limit` keeps only the first problems of each, and `samples` is the k of avg@k
    (by default the benchmark's own, 32 for aime24 and amc23). If the config.yaml of the run that trained the model lies
    next to its folder, its stop strings and its rule for truncated answers apply. `template` defaults to that of this run,
    else to r1-zero. `url` names a running vLLM server that serves the model as `seele`;
    without it, `engine: vllm` starts one. The scores are written to `out` as JSON.
    """
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        sources = _sources(benchmarks, data, limit, samples)
        _check_out(out)
        rules = _rules(model, template)
        exam = prepare(model, sources, rules, max_tokens)
        if url is None:
            _check_weights(exam.folder)
        scores = asyncio.run(_examine(exam, rules.truncated, engine, url, seed, console))
    except ExpectedFailure as failure:
        errors.print(str(failure), markup=False)
        return failure.exit_code
    except KeyboardInterrupt:
        errors.print("stopped; no scores were written")
        return ExitCode.FAILED
    console.print(score_table(model, scores))
    if out is not None:
        shown = {title: score.model_dump(mode="json", by_alias=True) for title, score in scores.items()}
        content = {
            "model": model,
            **asdict(rules),
            "maxTokens": exam.max_tokens,
            "seed": seed,
            "scores": shown,
        }
        # Not replaced by a new file: it may be /dev/stdout, a pipe or a link.
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return ExitCode.DONE


def prepare(model: str, sources: Sequence[Benchmark], rules: Rules, max_tokens: int) -> Exam:
    """Find the model and read the problems. Raises BadModelError, BadDataError or BadTokenizerError."""
    folder = _folder(model)
    try:
        tokenizer = load_tokenizer(str(folder))
        context = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadModelError(
            f"--model: {model} cannot be loaded: {reason} Give the folder that save_pretrained wrote, with its tokenizer"
        ) from error
    loaded = tuple(load_benchmark(source, tokenizer, rules.template) for source in sources)
    longest = max(len(prompt) for benchmark in loaded for prompt in benchmark.prompts)
    room = context - longest if context else max_tokens
    if room < 1:
        raise BadModelError(f"the longest prompt has {longest} tokens, and the context of {model} is {context}")
    text = TextTokenizer(tokenizer.backend_tokenizer)
    stop = StopStrings(rules.stop, partial(text.text, special=True))
    return Exam(folder, text, loaded, min(max_tokens, room), stop)


def score_table(model: str, scores: Mapping[str, BenchmarkScore]) -> Table:
    """The scores for people, in percent."""
    table = Table(title=f"{model}, without hints", title_justify="left")
    for name in ("benchmark", "problems", "greedy pass@1", "avg@k", "cut off"):
        table.add_column(name, justify="left" if name == "benchmark" else "right")
    for title, score in scores.items():
        sampled = percent(score.sampled_accuracy) + (f" (k={score.samples})" if score.samples else "")
        table.add_row(title, str(score.problems), percent(score.greedy_accuracy), sampled, percent(score.truncated))
    if len(scores) > 1:
        mean = sum(score.greedy_accuracy for score in scores.values()) / len(scores)
        table.add_row("mean", "", percent(mean), "", "")
    return table


async def _examine(
    exam: Exam, truncated: Truncated, kind: EngineKind, url: str | None, seed: int, console: Console
) -> dict[str, BenchmarkScore]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=completions_needed(exam.benchmarks))
        verifier = VerifierPool(Verifier())
        async with _engine(exam, kind, url, lambda line: console.print(line, markup=False, soft_wrap=True)) as engine:
            await engine.start()
            await verifier.start()
            bar.update(task, description="answers")
            try:
                examiner = Examiner(
                    engine,
                    Grader(verifier, exam.text.text, exam.stop, truncated),
                    temperature=Evaluation().temperature,
                    max_tokens=exam.max_tokens,
                    seed=seed,
                    answered=lambda count: bar.advance(task, count),
                )
                return await examiner.scores(exam.benchmarks)
            finally:
                await verifier.close()


@asynccontextmanager
async def _engine(
    exam: Exam, kind: EngineKind, url: str | None, waiting: Callable[[str], None]
) -> AsyncIterator[RolloutEngine]:
    # Engines are imported where they are used: only one of them needs torch.
    engine: RolloutEngine
    async with AsyncExitStack() as stack:
        if url is None and kind == "transformers":
            from seele_trainer.rollout.transformers_engine import TransformersEngine

            engine = TransformersEngine(
                exam.folder, RolloutOptions(), stop=exam.stop, device="cuda" if _has_gpu() else "cpu"
            )
        else:
            from seele_trainer.rollout.pool import VllmPool

            options = RolloutOptions() if url is None else RolloutOptions(server_start_timeout_seconds=URL_SECONDS)
            if url is None:
                log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seele-eval-"))) / "vllm.log"
                server = local_server(exam.folder, SERVED_NAME, exam.context_length, log, gpu=_has_gpu())
                url = await stack.enter_async_context(server)
            engine = VllmPool([url], options, SERVED_NAME, stop=exam.stop.strings, waiting=waiting)
        stack.push_async_callback(engine.close)
        yield engine


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _sources(
    benchmarks: Sequence[str], data: Mapping[str, str | Path], limit: int | None, samples: int | None
) -> list[Benchmark]:
    if not benchmarks:
        raise BadDataError("no benchmark is named: give --benchmark gsm8k,math500")
    changes = {name: value for name, value in (("limit", limit), ("samples", samples)) if value is not None}
    sources = [
        known_benchmark(title, str(data[title]) if title in data else None).model_copy(update=changes)
        for title in dict.fromkeys(benchmarks)
    ]
    if unknown := sorted(set(data) - set(benchmarks)):
        raise BadDataError(f"--data names {unknown[0]!r}, which is not among the benchmarks {', '.join(benchmarks)}")
    return sources


def _check_out(out: Path | None) -> None:
    if out is not None and not out.absolute().parent.is_dir():
        raise BadDataError(f"--out {out}: the folder {out.absolute().parent} does not exist; create it first")
    if out is not None and out.is_dir():
        raise BadDataError(f"--out {out}: is a folder; give the file to write the scores to")


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise BadModelError(f"--model: {folder} has no weights (*.safetensors); save the model with save_pretrained")
    for file in files:
        try:
            check_safetensors(file)
        except BadSafetensors as error:
            raise BadModelError(f"--model: {error}") from error


def _rules(model: str, template: str | None) -> Rules:
    """The rules of the run that trained the model, or the defaults; a given template replaces that of the run."""
    beside, rollout, rewards = Path(model).absolute().parent / CONFIG_FILE, RolloutOptions(), Rewards()
    if Path(model).is_dir() and beside.is_file():
        try:
            tree = read_tree(beside)
            template = template or tree.get("dataset", {}).get("promptTemplate")
            rollout = RolloutOptions(stop=tree.get("rollout", {}).get("stop"))
            rewards = Rewards.model_validate(tree.get("rewards", {}))
        except (ConfigError, AttributeError, ValidationError) as error:
            raise BadModelError(
                f"{beside} cannot be read for the run's prompt template, stop strings and rewards: mend it, or move the "
                "model's folder away from it"
            ) from error
    for known in get_args(Template):
        if (template or "r1-zero") == known:
            return Rules(known, stop_strings(known, rollout.stop), rewards.truncated)
    raise BadModelError(f"--template: {template!r} is not a prompt template; use {' or '.join(get_args(Template))}")


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_absolute() or model.startswith("."):
        raise BadModelError(f"--model: the folder {model} does not exist")
    try:
        return Path(snapshot_download(model))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BadModelError(
            f"--model: {model} is neither a local folder nor a model that can be downloaded from the Hugging Face hub: "
            f"{' '.join(str(error).split())}; give the path of a folder, or check the id, HF_TOKEN and the network"
        ) from error
