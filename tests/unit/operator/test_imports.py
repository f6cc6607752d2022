"""The operator's process, as its image starts it, without what only trainers need."""

import subprocess
import sys


def test_all_of_the_operator_is_imported_without_the_trainers_libraries() -> None:
    script = (
        "import importlib, pkgutil, sys\n"
        "import seele_operator\n"
        "for module in pkgutil.walk_packages(seele_operator.__path__, 'seele_operator.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'deepspeed', 'numpy', 'scipy', 'datasets'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)

    assert result.stdout == "[]\n"
