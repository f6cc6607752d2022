"""What `seele eval` does: put benchmarks to a model without hints, show the scores and write them down."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from seele_trainer.config import Benchmark, Evaluation, RolloutOptions, Verifier
from seele_trainer.data.problem import BadDataError, BadTokenizerError
from seele_trainer.data.prompts import Template
from seele_trainer.evaluation.benchmarks import known_benchmark
from seele_trainer.evaluation.evaluate import LoadedBenchmark, completions_needed, evaluate, load_benchmark
from seele_trainer.evaluation.local_server import local_server
from seele_trainer.rollout.protocol import RolloutEngine, RolloutUnavailable
from seele_trainer.rollout.vllm_client import RequestRefused
from seele_trainer.run_folder.records import BenchmarkScore
from seele_trainer.verify.pool import VerifierPool
from seele_trainer.verify.process import VerifierError
from seele_trainer.weights.stored_tensors import BadSafetensors, stored_tensors

DONE, FAILED, BAD_INPUT = 0, 1, 2
SERVED_NAME = "seele"
URL_SECONDS = 60.0
"""How long a server that is said to be up may be silent."""
TEMPLATES: tuple[Template, ...] = ("r1-zero", "chat", "plain")

EngineKind = Literal["vllm", "transformers"]


class BadModelError(ValueError):
    """The model cannot be evaluated as asked. The message says what to change."""


@dataclass(frozen=True)
class Exam:
    """A model on this machine, its tokenizer, and the problems that it is to answer with at most `max_tokens` tokens."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    benchmarks: tuple[LoadedBenchmark, ...]
    max_tokens: int

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

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
    """Evaluate a model folder or Hugging Face model id; returns the exit code (0 done, 1 failed, 2 bad input).

    `data` gives a benchmark a local file, `limit` its first problems only, `samples` the k of avg@k (by default the
    benchmark's own, 32 for aime24 and amc23). `template` is that of the run which made the model where its config.yaml
    lies beside the model's folder, else r1-zero. With `url` a vLLM server that is up already is asked, under the model
    name `seele`; without, `engine: vllm` starts one. `out` gets the scores as JSON.
    """
    console, errors = Console(), Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        if not benchmarks:
            raise BadDataError("no benchmark is named: give --benchmark gsm8k,math500")
        sources = [_source(title, data.get(title), limit, samples) for title in dict.fromkeys(benchmarks)]
        unknown = sorted(set(data) - set(benchmarks))
        if unknown:
            raise BadDataError(
                f"--data names {unknown[0]!r}, which is not among the benchmarks {', '.join(benchmarks)}"
            )
        if out is not None and not out.absolute().parent.is_dir():
            raise BadDataError(f"--out {out}: the folder {out.absolute().parent} does not exist; make it first")
        if out is not None and out.is_dir():
            raise BadDataError(f"--out {out}: is a folder; give the file that the scores are written to")
        chosen = _template(template, model)
        exam = prepare(model, sources, chosen, max_tokens)
        if url is None:
            _check_weights(exam.folder)
    except (BadDataError, BadTokenizerError, BadModelError) as error:
        errors.print(str(error), markup=False)
        return BAD_INPUT
    try:
        scores = asyncio.run(_examine(exam, engine, url, seed, console))
    except (RolloutUnavailable, RequestRefused, VerifierError) as error:
        errors.print(str(error), markup=False)
        return FAILED
    except KeyboardInterrupt:
        errors.print("stopped; no scores were written")
        return FAILED
    console.print(score_table(model, scores))
    if out is not None:
        shown = {title: score.model_dump(mode="json", by_alias=True) for title, score in scores.items()}
        content = {"model": model, "template": chosen, "maxTokens": exam.max_tokens, "seed": seed, "scores": shown}
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return DONE


def prepare(model: str, sources: Sequence[Benchmark], template: Template, max_tokens: int) -> Exam:
    """Find the model and read the problems. Raises BadModelError, BadDataError or BadTokenizerError."""
    folder = _folder(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        context = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadModelError(
            f"--model: {model} cannot be loaded: {reason} Give the folder that save_pretrained wrote, with its tokenizer"
        ) from error
    loaded = tuple(load_benchmark(source, tokenizer, template) for source in sources)
    longest = max(len(prompt) for benchmark in loaded for prompt in benchmark.prompts)
    room = context - longest if context else max_tokens
    if room < 1:
        raise BadModelError(f"the longest prompt has {longest} tokens, and the context of {model} is {context}")
    return Exam(folder, tokenizer, loaded, min(max_tokens, room))


def score_table(model: str, scores: Mapping[str, BenchmarkScore]) -> Table:
    """The scores for people, in percent."""
    table = Table(title=f"{model}, without hints", title_justify="left")
    for name in ("benchmark", "problems", "greedy pass@1", "avg@k", "cut off"):
        table.add_column(name, justify="left" if name == "benchmark" else "right")
    for title, score in scores.items():
        sampled = "–" if score.sampled_accuracy is None else f"{100 * score.sampled_accuracy:.1f}% (k={score.samples})"
        table.add_row(
            title, str(score.problems), f"{100 * score.greedy_accuracy:.1f}%", sampled, f"{100 * score.truncated:.1f}%"
        )
    if len(scores) > 1:
        mean = sum(score.greedy_accuracy for score in scores.values()) / len(scores)
        table.add_row("mean", "", f"{100 * mean:.1f}%", "", "")
    return table


async def _examine(
    exam: Exam, kind: EngineKind, url: str | None, seed: int, console: Console
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
                return await evaluate(
                    engine,
                    exam.benchmarks,
                    verifier,
                    exam.decode,
                    temperature=Evaluation().temperature,
                    max_tokens=exam.max_tokens,
                    seed=seed,
                    answered=lambda count: bar.advance(task, count),
                )
            finally:
                await verifier.close()


@asynccontextmanager
async def _engine(
    exam: Exam, kind: EngineKind, url: str | None, waiting: Callable[[str], None]
) -> AsyncIterator[RolloutEngine]:
    # Imported here: one brings torch, the other does without.
    if url is not None:
        from seele_trainer.rollout.pool import VllmPool

        async with _closing(
            VllmPool([url], RolloutOptions(server_start_timeout_seconds=URL_SECONDS), SERVED_NAME, waiting=waiting)
        ) as engine:
            yield engine
        return
    import torch

    gpu = torch.cuda.is_available()
    if kind == "transformers":
        from seele_trainer.rollout.transformers_engine import TransformersEngine

        device = "cuda" if gpu else "cpu"
        async with _closing(TransformersEngine(exam.folder, RolloutOptions(), device=device)) as engine:
            yield engine
        return
    from seele_trainer.rollout.pool import VllmPool

    with tempfile.TemporaryDirectory(prefix="seele-eval-") as folder:
        log = Path(folder) / "vllm.log"
        async with (
            local_server(exam.folder, SERVED_NAME, exam.context_length, log, gpu=gpu) as address,
            _closing(VllmPool([address], RolloutOptions(), SERVED_NAME, waiting=waiting)) as engine,
        ):
            yield engine


@asynccontextmanager
async def _closing(engine: RolloutEngine) -> AsyncIterator[RolloutEngine]:
    try:
        yield engine
    finally:
        await engine.close()


def _source(title: str, path: str | Path | None, limit: int | None, samples: int | None) -> Benchmark:
    benchmark = known_benchmark(title, None if path is None else str(path))
    return benchmark.model_copy(
        update={
            "limit": benchmark.limit if limit is None else limit,
            "samples": benchmark.samples if samples is None else samples,
        }
    )


def _check_weights(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise BadModelError(f"--model: {folder} has no weights (*.safetensors); save the model with save_pretrained")
    for file in files:
        try:
            stored_tensors(file)
        except BadSafetensors as error:
            raise BadModelError(f"--model: {error}") from error


def _template(given: str | None, model: str) -> Template:
    """The template that was asked for, or the one that the run which made the model trained with."""
    if given is None:
        beside = Path(model).absolute().parent / "config.yaml"
        try:
            tree = yaml.safe_load(beside.read_bytes()) if Path(model).is_dir() and beside.is_file() else None
        except (OSError, yaml.YAMLError) as error:
            raise BadModelError(
                f"{beside} cannot be read, and it names the prompt template: give --template"
            ) from error
        dataset = tree.get("dataset") if isinstance(tree, dict) else None
        given = dataset.get("promptTemplate") if isinstance(dataset, dict) else None
    for template in TEMPLATES:
        if (given or "r1-zero") == template:
            return template
    raise BadModelError(f"--template: {given!r} is no prompt template; use {', '.join(TEMPLATES)}")


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_absolute() or model.startswith("."):
        raise BadModelError(f"--model: the folder {model} does not exist")
    try:
        return Path(snapshot_download(model))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BadModelError(
            f"--model: {model} is neither a folder here nor a model that can be had from the Hugging Face hub: "
            f"{' '.join(str(error).split())}; give the path of a folder, or check the id, HF_TOKEN and the network"
        ) from error
