"""Checks of a SeeleRun against the files of this machine. Names on the Hugging Face Hub are not looked up."""

import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import HUB_ID, nearest, shown, yaml_path
from seele_operator.validation.local_tokenizer import TOKENIZER_FILES, tokenizer_faults
from seele_operator.validation.rules import LineCheck
from seele_operator.validation.rules.lengths import problems_in_context
from seele_trainer.config import DatasetSource
from seele_trainer.data.golds import without_unsatisfiable
from seele_trainer.data.problem import BadDataError, BadRows, Problem
from seele_trainer.data.sources import load_problems
from seele_trainer.weights.stored_tensors import BadSafetensors, check_safetensors

logger = logging.getLogger(__name__)


def local_files(base_dir: Path) -> tuple[LineCheck, ...]:
    """Data sets and models that are missing, empty, or not as the run describes. Relative paths start at `base_dir`."""
    checks = (_training_data_and_tokenizer, _benchmarks, _model_problems)
    return tuple(partial(check, base_dir=base_dir) for check in checks)


def _training_data_and_tokenizer(spec: SeeleRunSpec, base_dir: Path) -> Iterator[str]:
    source, on_bad_row = spec.dataset, spec.dataset.on_bad_row
    data = _check_data(
        ("spec", "dataset"), source, base_dir, need_solution=spec.training.method.reads_solutions, on_bad_row=on_bad_row
    )
    yield from data.faults
    problems = data.problems
    # Without the library, as in the operator's image, only trainers can tell.
    if problems and importlib.util.find_spec("math_verify") is not None:
        try:
            problems, unsatisfiable = without_unsatisfiable(problems, spec.verifier)
        except BadDataError as error:
            yield f"spec.dataset.path: {error}"
            return
        if unsatisfiable.count:
            logger.warning("warning: spec.dataset.path: %s; a run skips them", unsatisfiable)
    if problems and len(problems) < spec.training.problems_per_step:
        yield (
            f"spec.dataset.path: {shown(source.path)} has {len(problems)} problems, and a step takes "
            f"{spec.training.problems_per_step} different ones; lower training.problemsPerStep, or give more problems"
        )
    yield from tokenizer_faults(spec, base_dir / spec.model.name, data.problems)


def _benchmarks(spec: SeeleRunSpec, base_dir: Path) -> Iterator[str]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        place = ("spec", "evaluation", "benchmarks", index)
        yield from _check_data(place, benchmark, base_dir, need_solution=False).faults


@dataclass(frozen=True)
class _Data:
    """What is wrong with a data file, and otherwise its problems, if they can be read here."""

    faults: Sequence[str] = ()
    problems: Sequence[Problem] = ()


def _check_data(
    path: tuple[str | int, ...],
    source: DatasetSource,
    base_dir: Path,
    *,
    need_solution: bool,
    on_bad_row: Literal["fail", "skip"] = "fail",
) -> _Data:
    if source.path is None:
        return _Data()
    place = yaml_path((*path, "path"))
    file = base_dir / source.path
    try:
        columns = _first_row(file)
    except FileNotFoundError:
        return _Data([f"{place}: {shown(source.path)} does not exist{_near_file(file)}; give the path of a data file"])
    except IsADirectoryError:
        return _Data([f"{place}: {shown(source.path)} is a folder; give the path of a .jsonl, .json or .parquet file"])
    except OSError as error:
        reason = error.strerror or error
        return _Data([f"{place}: {shown(source.path)} cannot be read: {reason}; check its permissions"])
    except ValueError as error:
        if on_bad_row == "fail":
            return _Data([f"{place}: {shown(source.path)} {error}"])
        columns = {}
    if columns is None:
        return _Data()
    if on_bad_row == "fail":
        found = [*_column_problems(path, source, columns, need_solution or source.fields.answer is None)]
        if found:
            return _Data(found)
    return _read(place, source.model_copy(update={"path": str(file)}), need_solution, on_bad_row)


def _read(place: str, source: DatasetSource, need_solution: bool, on_bad_row: Literal["fail", "skip"]) -> _Data:
    """All rows as the trainer reads them, so that no run starts only to find one that it refuses."""
    try:
        return _Data(problems=load_problems(source, need_solution=need_solution, bad_rows=BadRows(on_bad_row)))
    except BadDataError as error:
        return _Data([f"{place}: {error}"])


def _column_problems(
    path: tuple[str | int, ...], source: DatasetSource, columns: Mapping[str, object], need_solution: bool
) -> Iterator[str]:
    if source.format == "gsm8k":
        for column in ("question", "answer"):
            if column not in columns:
                yield (
                    f"{yaml_path((*path, 'format'))}: gsm8k needs a column {column}, and the file has "
                    f"{_listed(columns)}; use format: generic and name its columns in fields"
                )
        return
    for field, column in source.fields.model_dump(by_alias=True).items():
        place = yaml_path((*path, "fields", field))
        unused = field == "solution" and (not need_solution or source.fields.steps is not None)
        if column is None or column in columns or unused:
            continue
        near = nearest(column, list(columns))
        remedy = f"did you mean {near}?" if near else "name the right one"
        yield f"{place}: the file has no column {shown(column)}, only {_listed(columns)}; {remedy}"
    question = columns.get(source.fields.problem, "")
    if not isinstance(question, str):
        place = yaml_path((*path, "fields", "problem"))
        yield f"{place}: column {shown(source.fields.problem)} is not text; name another"


def _listed(columns: Mapping[str, object]) -> str:
    names = sorted(columns)
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _near_file(file: Path) -> str:
    siblings = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    near = nearest(file.name, siblings)
    return f" (there is {near})" if near else ""


def _first_row(file: Path) -> Mapping[str, object] | None:
    """First row of a data file; None if pyarrow is needed and missing. Raises OSError or ValueError."""
    if file.suffix == ".parquet":
        return _parquet_columns(file)
    with file.open(encoding="utf-8-sig") as lines:
        try:
            first = next((text for line in lines if (text := line.strip().lstrip("\ufeff"))), None)
            if first is None:
                raise ValueError("is empty; give a file with problems")
            if file.suffix == ".json" and first.startswith("["):
                lines.seek(0)
                return _row(next(iter(json.loads(lines.read().lstrip("\ufeff"))), None))
            return _row(json.loads(first))
        except UnicodeDecodeError as error:
            raise ValueError("is not UTF-8 text; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(
                f"does not begin with a JSON object: {error.msg}; write one problem on each line"
            ) from error
        except RecursionError as error:
            raise ValueError("begins with brackets nested too deeply; write one problem on each line") from error


def _row(row: object) -> Mapping[str, object]:
    if not isinstance(row, dict):
        raise ValueError("does not begin with a JSON object; write one problem on each line")
    return row


def _parquet_columns(file: Path) -> Mapping[str, object] | None:
    if file.stat().st_size == 0:
        raise ValueError("is empty; give a file with problems")
    if importlib.util.find_spec("pyarrow") is None:
        return None
    import pyarrow as arrow  # type: ignore[import-untyped]
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    try:
        with parquet.ParquetFile(file) as content:
            if content.metadata.num_rows == 0:
                raise ValueError("has no rows; give a file with problems")
            return {field.name: "" if _is_text(field.type) else None for field in content.schema_arrow}
    except arrow.ArrowInvalid as error:
        raise ValueError("is not a Parquet file; give one, or JSON lines with the ending .jsonl") from error


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds  # type: ignore[import-untyped]

    if kinds.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(is_kind(kind) for is_kind in (kinds.is_string, kinds.is_large_string, kinds.is_string_view))


def _model_problems(spec: SeeleRunSpec, base_dir: Path) -> Iterator[str]:
    name = spec.model.name
    folder = base_dir / name
    if not folder.is_dir():
        if HUB_ID.fullmatch(name) is None:
            yield (
                f"spec.model.name: {shown(name)} is neither a folder here nor a Hugging Face ID; "
                "give the path of a model folder, or an ID such as Qwen/Qwen2.5-1.5B"
            )
        return
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        yield f"spec.model.name: {shown(name)} has no weights (*.safetensors); save the model with save_pretrained"
    for file in weights:
        try:
            check_safetensors(file)
        except (BadSafetensors, OSError) as error:
            yield f"spec.model.name: {error}"
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        yield f"spec.model.name: {shown(name)} has no tokenizer (tokenizer.json); save the tokenizer there too"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield f"spec.model.name: {shown(name)} has no config.json; give the folder that save_pretrained wrote"
    except (OSError, ValueError) as error:
        yield f"spec.model.name: config.json in {shown(name)} cannot be read: {error}; save the model again"
    else:
        if not isinstance(config, dict):
            yield f"spec.model.name: config.json in {shown(name)} is not a JSON object; save the model again"
            return
        yield from _config_problems(spec, config)


def _config_problems(spec: SeeleRunSpec, config: Mapping[str, Any]) -> Iterator[str]:
    context = config.get("max_position_embeddings")
    scaled = bool(config.get("rope_scaling"))
    if isinstance(context, int) and not scaled:
        for field, value in (
            ("model.contextLength", spec.model.context_length),
            ("rollout.maxModelLen", spec.rollout.max_model_len),
        ):
            if value is not None and value > context:
                yield f"spec.{field}: {value} is above max_position_embeddings of the model, {context}; lower it"
        yield from problems_in_context(spec, context)
    rollout = spec.rollout
    heads, parts = config.get("num_attention_heads"), rollout.tensor_parallel_size
    if isinstance(heads, int) and heads % parts and rollout.engine == "vllm":
        fitting = max(size for size in range(1, parts) if heads % size == 0)
        yield (
            f"spec.rollout.tensorParallelSize: {parts} does not divide the model's attention heads, of which there are "
            f"{heads}, and vLLM cannot split it so; use {fitting}"
        )
    tied = config.get("tie_word_embeddings") is True
    if tied and not rollout.untie_embeddings and rollout.engine == "vllm" and rollout.weight_transport == "directory":
        yield (
            "spec.rollout.untieEmbeddings: false cannot serve this model, whose embeddings are tied: after a reload "
            "from the directory transport vLLM answers with neither the old nor the new weights; use true"
        )
