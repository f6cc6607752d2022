"""Writes every generated file of the repository: `make generated`, or with `--check` only says which are stale.

A file that is generated has an entry in `generated_files`, and no other place writes it; tests/unit/tools/test_generated.py
holds all of them against what is committed. Entries import what they need themselves, and nothing that imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CHART = "charts/seele-operator"
DASHBOARDS = ("run", "fleet")

PROMETHEUS_RULE = """\
# Written by `make generated` from rules.yaml, for the Prometheus operator. Give it the labels by which your Prometheus selects
# its PrometheusRules.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: seele-operator
  namespace: seele-system
  labels:
    app.kubernetes.io/name: seele-operator
spec:
"""

Text = Callable[[], str]


def generated_files() -> dict[str, Text]:
    """Path in the repository → what returns the text that belongs there."""
    files: dict[str, Text] = {
        "manifests/crd.yaml": definition,
        "manifests/crd-without-cel.yaml": definition_without_cel,
        "manifests/before-1.23/install.yaml": install_without_cel,
        # The chart's own copies: Helm reads nothing outside of a chart.
        f"{CHART}/files/crd.yaml": definition,
        f"{CHART}/files/crd-without-cel.yaml": definition_without_cel,
        f"{CHART}/README.md": chart_readme,
        "docs/metrics.md": metrics_page,
        "docs/seelerun.md": seelerun_page,
        "docs/choosing-a-method.md": methods_page,
        "manifests/prometheus/prometheusrule.yaml": prometheus_rule,
    }
    files[f"{CHART}/files/rules.yaml"] = copy_of("manifests/prometheus/rules.yaml")
    files |= benchmarks_page()
    for name in DASHBOARDS:
        files[f"manifests/grafana/{name}.json"] = dashboard(name)
        files[f"{CHART}/files/dashboards/{name}.json"] = dashboard(name)
    return files


def definition() -> str:
    """The CustomResourceDefinition."""
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.validation.crd import crd

    return yaml_text(crd())


def definition_without_cel() -> str:
    """The CustomResourceDefinition for servers and kubectls before Kubernetes 1.23."""
    from seele_operator.api.yaml_files import yaml_text
    from seele_operator.validation.crd import crd

    return yaml_text(crd(cel=False))


def seelerun_page() -> str:
    """The reference of all fields."""
    from tools.seelerun_page import page

    return page()


def metrics_page() -> str:
    """What Prometheus can scrape."""
    from tools.metrics_page import page

    return page()


def prometheus_rule() -> str:
    """The rules as an object of the Prometheus operator."""
    from textwrap import indent

    rules = (REPOSITORY / "manifests/prometheus/rules.yaml").read_text(encoding="utf-8")
    return PROMETHEUS_RULE + indent(rules[rules.index("groups:") :], "  ")


def dashboard(name: str) -> Text:
    """The Grafana dashboard `grafana.<name>`."""

    def built() -> str:
        from tools import grafana

        return grafana.text(name)

    return built


def install_without_cel() -> str:
    """All of manifests/kustomization.yaml in one file, with the definition that old servers take."""
    import yaml

    manifests = REPOSITORY / "manifests"
    names = yaml.safe_load((manifests / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    # The definition as it is to be, and not the file: that one is generated too, and may still be stale.
    made = {"crd.yaml": definition_without_cel}
    return "---\n".join(made.get(name, copy_of(f"manifests/{name}"))() for name in names)


def chart_readme() -> str:
    """The chart's README as it is, with the table of its values anew."""
    from tools.chart_values import with_table

    chart = REPOSITORY / CHART
    return with_table(*((chart / name).read_text(encoding="utf-8") for name in ("README.md", "values.yaml")))


def methods_page() -> str:
    """The page about methods, with the table of those that there are."""
    from tools.methods_page import page

    return page()


def benchmarks_page() -> dict[str, Text]:
    """The page on the study of all methods, with its tables, and its plots."""
    from benchmarks.methods_study.plots import pictures
    from benchmarks.methods_study.results import load
    from benchmarks.methods_study.tables import page

    study, longer = (
        load(REPOSITORY / "benchmarks" / "results" / name) for name in ("methods.json", "longer_chains.json")
    )
    plots = {f"docs/images/benchmarks/{name}": draw for name, draw in pictures(study, longer).items()}
    return {"docs/benchmarks.md": lambda: page(copy_of("docs/benchmarks.md")(), study, longer), **plots}


def copy_of(source: str) -> Text:
    """The text of another file of the repository."""
    return lambda: (REPOSITORY / source).read_text(encoding="utf-8")


def present(path: str) -> str | None:
    """What is in the file now; None where there is none."""
    file = REPOSITORY / path
    return file.read_text(encoding="utf-8") if file.exists() else None


def stale() -> dict[str, str]:
    """Paths of files that are not as they should be, with the text that belongs there."""
    wanted = {path: text() for path, text in generated_files().items()}
    return {path: text for path, text in wanted.items() if present(path) != text}


def main(arguments: list[str]) -> int:
    """Write what is stale; with `--check` only name it, and return 1 where there is something."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m tools.generate [--check]", file=sys.stderr)
        return 2
    found = stale()
    for path, text in found.items():
        if arguments:
            print(f"{path} is stale: run `make generated`", file=sys.stderr)
            continue
        file = REPOSITORY / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(path)
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
