"""The dashboard of one run: is it learning, fast and healthy?"""

from tools.grafana.dashboard import Choice, Dashboard, Mark, Row
from tools.grafana.looks import BLUE, ORANGE
from tools.grafana.queries import of_run
from tools.grafana.run.gpu import GPU
from tools.grafana.run.health import HEALTH
from tools.grafana.run.learning import LEARNING
from tools.grafana.run.overview import OVERVIEW
from tools.grafana.run.speed import SPEED

UID = "seele-run"

_ATTEMPTS = f"count by (attempt) ({of_run('seele_attempt')}"

_SAVED = f"max by (run) ({of_run('seele_checkpoint_step')}"

DASHBOARD = Dashboard(
    uid=UID,
    title="Seele / Run",
    description="One training run: is it learning, fast and healthy? See docs/dashboards.md.",
    rows=(
        Row("", OVERVIEW),
        Row("Is it learning?", LEARNING),
        Row("Is it fast?", SPEED),
        Row("Is it healthy?", HEALTH),
        Row("GPUs (needs the DCGM exporter)", GPU, folded=True),
    ),
    choices=(
        Choice("namespace", "Namespace", "label_values(seele_training_steps_total_planned, namespace)"),
        Choice("run", "Run", 'label_values(seele_training_steps_total_planned{namespace="$namespace"}, run)'),
    ),
    marks=(
        # Each attempt has its own series, so a series that did not exist a minute ago is a start. This needs no operator.
        Mark(
            "Starts and restarts", f"{_ATTEMPTS}) unless {_ATTEMPTS} offset 1m)", "attempt {{attempt}} starts", ORANGE
        ),
        # Not `changes`: its window would have to be wider than the scrape interval, which is unknown here.
        Mark("Checkpoints", f"{_SAVED}) > {_SAVED} offset 1m)", "checkpoint", BLUE),
    ),
    since="now-1h",
    refresh="30s",
    other=("All runs", "/d/seele-fleet"),
)
