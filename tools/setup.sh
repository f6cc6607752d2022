#!/usr/bin/env bash
# Makes .venv with all packages for the quickstart, tests and lint. Called by make; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.13.0
torch_cpu_index=https://download.pytorch.org/whl/cpu

fail() { echo "setup: $*" >&2; exit 1; }

python=${PYTHON:-}
for candidate in "$python" python3.11 python3.12 python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    python=$candidate
    break
  fi
  python=
done
[ -n "$python" ] || fail "Python 3.11 or 3.12 is required: on Debian or Ubuntu run 'apt-get install python3.11 python3.11-venv'"
"$python" -c 'import ensurepip' 2>/dev/null || fail "this Python cannot create virtual environments: run 'apt-get install python3-venv'"

echo "setup: making .venv (about 4 GB, a few minutes the first time)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# Install PyTorch first, by exact version: as a dependency of the others, pip would choose a build with gigabytes of CUDA.
# If the CPU index cannot be reached, pip uses its configured index.
index=()
if ! command -v nvidia-smi >/dev/null 2>&1 && .venv/bin/python - "$torch_cpu_index/torch/" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).close()
PY
then index=(--index-url "$torch_cpu_index"); fi
pip install --quiet --no-deps "${index[@]}" "torch==$torch_version"

# The lock is complete, so nothing is resolved. It omits vLLM's torchvision, torchaudio and torchcodec on purpose: their
# builds do not match a CPU torch and break `import transformers`.
pip install --quiet --no-deps --requirement requirements.lock
pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -c 'import torch, transformers, deepspeed, vllm' 2>/tmp/seele-setup-import.log >/dev/null \
  || { cat /tmp/seele-setup-import.log >&2; fail "the environment cannot be imported: remove .venv and run make again"; }
touch .venv/.ready
