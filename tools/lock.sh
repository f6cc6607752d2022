#!/usr/bin/env bash
# Updates requirements.lock: resolves pyproject.toml with all extras in a new environment and freezes the result.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
pip() { "$environment/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet "$(grep -oE '^torch_version=.*' tools/setup.sh | sed 's/torch_version=/torch==/')"
pip install --quiet ".[operator,trainer,rollout-cpu,wandb,mlflow,dev]"
{
  echo "# The development environment, exactly. Made by tools/lock.sh; torch itself is installed by tools/setup.sh."
  pip freeze --all | grep -viE '^(pip|seele|torch|torchvision|torchaudio|torchcodec)( @|==)' | LC_ALL=C sort -f
} > requirements.lock
