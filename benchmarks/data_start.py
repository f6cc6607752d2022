"""Measures how long a run prepares its data before it can start: 100,000 made rows of 1.9 kB.

    python -m benchmarks.data_start [--rows N] [--kind jsonl|parquet]

Prints seconds and peak memory of reading and preparing the rows, in a process that does nothing else; the same for a second
process, which finds them prepared; and the same for 10 of the rows. The tokenizer is a byte-level BPE trained on a part of
them.
"""

import argparse
import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Libraries are imported where they are used: the processes that cut solutions import this file, too.

VOCABULARY = 16_000
QUESTION_CHARACTERS, ROW_BYTES = 250, 1900
SENTENCES = (
    "We have the number of this sum by that, which means",
    "Therefore both sides can be divided by the first term of the sequence, so",
    "Then the triangle inside the square has a circle of the same length, and its angle gives",
    "For apples at two dollars, with the train's speed in the remaining hours, the total is",
    "The product of an integer and a prime factor of the polynomial has the root",
    "Since the series converges and is bounded, its maximum and its derivative satisfy",
)


def made_rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows of about 1.9 kB as JSON, with lines of words and LaTeX, and the answer in a box at the end."""
    rng = random.Random(seed)
    for _ in range(count):
        question = _text(rng, QUESTION_CHARACTERS) + "?"
        answer = str(rng.randrange(10_000, 99_999))
        worked = _text(rng, ROW_BYTES - 200 - len(question))
        yield {"problem": question, "solution": f"{worked}\nThe answer is \\boxed{{{answer}}}.", "answer": answer}


def _text(rng: random.Random, characters: int) -> str:
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        words = rng.choice(SENTENCES)
        a, b = rng.randrange(2, 99), rng.randrange(2, 99)
        lines.append(f"{words} ${a}x^2 + \\frac{{{b}}}{{{a}}} = {a + b}$.\n")
    return "".join(lines).strip()


def write_inputs(folder: Path, rows: int, kind: str) -> None:
    """The data file and the tokenizer."""
    made = list(made_rows(rows))
    if kind == "parquet":
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(made), folder / "rows.parquet")
    else:
        with (folder / "rows.jsonl").open("w") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in made)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["problem"] + row["solution"] for row in made[:3000]), trainer)
    whole = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|endoftext|>"
    )
    whole.save_pretrained(folder)


def measure(folder: Path, kind: str, limit: int | None) -> None:
    """Prepare the data as a trainer does, and print the figures of this process."""
    from seele_trainer.config import Dataset, Fields, Verifier
    from seele_trainer.data.prepared import PREPARED_FILE, Preparer, read_prepared, write_prepared
    from seele_trainer.data.sources import fingerprint, load_problems
    from seele_trainer.data.tokenizer import load_tokenizer

    before = _peak_gigabytes()
    started, used = time.perf_counter(), _cpu_seconds()
    tokenizer = load_tokenizer(str(folder))
    dataset = Dataset(path=str(folder / f"rows.{kind}"), fields=Fields(answer="answer"), limit=limit)
    problems = load_problems(dataset, need_solution=True)
    read = time.perf_counter() - started
    longest, last = 0.0, time.perf_counter()

    def progress(done: int) -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    preparer, path = Preparer(tokenizer, dataset, Verifier()), folder / PREPARED_FILE
    key = preparer.key(fingerprint(problems))
    prepared, how = read_prepared(path, key, problems), "found prepared"
    if prepared is None:
        prepared, how = preparer.prepare(problems, progress, lambda total: progress), "prepared"
        write_prepared(path, key, problems, prepared, lambda: None)
    kept, dropped = prepared.problems, prepared.dropped
    tokens = sum(len(problem.solution) for problem in kept) / max(1, len(kept))
    print(
        f"{len(problems):,} rows of {kind}, {how}: read in {read:.1f} s, ready after {time.perf_counter() - started:.1f} s "
        f"({_cpu_seconds() - used:.1f} s of CPU time), "
        f"peak memory {_peak_gigabytes():.2f} GB ({before:.2f} GB before the start); "
        f"{len(kept):,} kept, {dropped.total:,} too long, {tokens:.0f} tokens a solution, "
        f"longest silence {longest:.2f} s, file of {path.stat().st_size / 1e6:.0f} MB"
    )


def _cpu_seconds() -> float:
    """Of this process and of those that it started."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Make the rows, and measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.measure:
        measure(arguments.measure, arguments.kind, arguments.limit)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), arguments.rows, arguments.kind)
        command = [sys.executable, "-m", "benchmarks.data_start", "--kind", arguments.kind, "--measure", folder]
        for more in ([], [], ["--limit", "10"]):
            subprocess.run([*command, *more], check=True)


if __name__ == "__main__":
    main()
