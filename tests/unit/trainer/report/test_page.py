import re
import struct
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.figure import Figure

from seele_trainer.formatting import amount, percent
from seele_trainer.report.page import ReportError, write_report
from seele_trainer.report.plots import PLOTS, Plot
from seele_trainer.report.style import LIGHT, smoothed, style
from seele_trainer.report.summary import stages, summarise_run
from seele_trainer.run_folder.journal import Journal, read_records
from seele_trainer.run_folder.records import Descent, StepRecord
from seele_trainer.telemetry.metric import hint_rate_histogram
from tests.support.run_folder import evaluation_record, make_run_folder, sample_rollouts, step_record


def text_of(page: Path) -> str:
    """The visible text, with white space collapsed."""
    html = page.read_text(encoding="utf-8")
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", body)).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run_folder(tmp_path_factory.mktemp("finished"), steps=40)
    write_report(folder)
    return folder


def test_the_page_opens_with_the_accuracy_without_hints_before_and_after(finished: Path) -> None:
    seen = text_of(finished / "report.html")
    headline = seen.index("2.0%→67.0% accuracy on held-out problems without hints, greedy; before training → step 40")
    assert headline < seen.index("Learning")
    records = read_records(finished / "metrics.jsonl", StepRecord)
    generated = sum(record.tokens.generated for record in records)
    figures = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)", (finished / "report.html").read_text(encoding="utf-8")))
    assert figures["steps"] == "40"
    assert figures["tokens generated"] == amount(generated)
    first, last = records[:5], records[-5:]
    rates = [percent(sum(record.hint_rate for record in part) / 5) for part in (first, last)]
    assert f"mean hint rate{rates[0]}→{rates[1]}" in seen


def test_every_picture_is_a_png_in_the_folder_and_inside_the_page(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 2 * len(PLOTS)
    for plot in PLOTS:
        content = (finished / f"{plot.name}.png").read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", content[16:24])
        assert width > 900
        assert height > 400


def test_the_page_is_self_contained_and_supports_dark_and_narrow_screens(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|srcset)\s*=\s*["'](?!data:)""", html)
    assert not re.search(r"url\(|@import|<script|<link", html)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_hints_are_marked_in_the_samples_and_completions_are_escaped(finished: Path) -> None:
    html = (finished / "report.html").read_text(encoding="utf-8")
    early = sample_rollouts(1, round(0.75 * (1 - 1 / 40), 2))[0]
    assert f"<mark>{early.hint}</mark>" in html
    assert "a 3 b 8 c &lt;b&gt;0&lt;/b&gt;" in html
    assert "<b>0</b>" not in html
    seen = text_of(finished / "report.html")
    assert [seen.index(title) for title in ("Early · step 1", "Middle · step 21", "Late · step 40")] == sorted(
        seen.index(title) for title in ("Early · step 1", "Middle · step 21", "Late · step 40")
    )


def test_rounds_are_means_over_the_last_half_against_the_target(finished: Path) -> None:
    records = read_records(finished / "metrics.jsonl", StepRecord)
    half = records[20:]
    expected = sum(record.accuracy_by_round[2] or 0 for record in half) / 20
    summary = summarise_run(records, [])
    assert summary.half_from == 21
    assert summary.rounds[2].accuracy == pytest.approx(expected)
    assert summary.rounds[2].distance == pytest.approx(expected - 0.5)
    assert summary.learning_efficiency == pytest.approx(sum(record.learning_efficiency for record in half) / 20)
    assert f"3 {percent(expected)}".replace(" ", "") in text_of(finished / "report.html").replace(" ", "")


def test_the_time_table_adds_up_to_the_run() -> None:
    phases = {"rollout": 2.0, "verify": 0.5, "train": 1.0, "sync": 0.25}
    steps = [step_record(step, phase_seconds=phases, step_seconds=4.0) for step in (1, 2)]
    evaluations = [evaluation_record(0, 0.0).model_copy(update={"seconds": 2.0})]
    summary = summarise_run(steps, evaluations)
    assert summary.seconds == pytest.approx(2 * 4.0 + 2.0)
    seconds = {row.phase: row.seconds for row in summary.phases}
    assert seconds == pytest.approx({"rollout": 4, "verify": 1, "train": 2, "sync": 0.5, "eval": 2, "other": 0.5})
    assert sum(row.share for row in summary.phases) == pytest.approx(1)
    assert summary.working_share == pytest.approx(0.6)


def test_an_evaluation_within_a_step_is_counted_once() -> None:
    steps = [step_record(1, phase_seconds={"train": 1.0, "eval": 3.0}, step_seconds=4.0)]
    summary = summarise_run(steps, [evaluation_record(1, 0.5).model_copy(update={"seconds": 3.0})])
    assert summary.seconds == pytest.approx(4.0)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    make_run_folder(tmp_path, steps=7, planned=120)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ti')
    seen = text_of(write_report(tmp_path))
    assert "step 7 of 120, not finished" in seen
    assert "evaluated at step 0 only" in seen


def test_one_step_is_enough(tmp_path: Path) -> None:
    make_run_folder(tmp_path, steps=1, planned=120)
    seen = text_of(write_report(tmp_path))
    assert "step 1 of 120, not finished" in seen
    assert "Late · step 1" in seen


def test_optional_files_may_be_missing(tmp_path: Path) -> None:
    folder = tmp_path / "my-run"
    make_run_folder(folder, steps=3)
    for name in ("eval.jsonl", "rollouts.jsonl", "config.yaml"):
        (folder / name).unlink()
    seen = text_of(write_report(folder))
    assert "my-run" in seen
    assert "accuracy of probes without hints on training problems" in seen
    assert "Sample rollouts" not in seen
    assert "Configuration" not in seen


def test_a_method_without_hints_has_a_report_too(tmp_path: Path) -> None:
    with Journal(tmp_path / "metrics.jsonl") as journal:
        for step in (1, 2, 3):
            journal.append(
                step_record(
                    step,
                    irt=None,
                    unhinted_accuracy=None,
                    accuracy_by_round=(0.25,),
                    hint_rate_by_round=(0.0,),
                    hint_rate=0.0,
                    mismatch_kl=0.0,
                )
            )
    (tmp_path / "config.yaml").write_text("{ not yaml")
    seen = text_of(write_report(tmp_path))
    assert "mean reward in training, without hints; nothing was evaluated on held-out problems" in seen
    assert "with hints" not in seen
    assert not (tmp_path / "irt.png").exists()
    with Journal(tmp_path / "metrics.jsonl") as journal:
        journal.append(step_record(4, irt=None, unhinted_accuracy=None, hint_rate=0.25))
    assert "mean reward in training, with hints; nothing was measured without them" in text_of(write_report(tmp_path))


def test_a_method_without_rollouts_has_a_report_of_what_it_measured(tmp_path: Path) -> None:
    nothing = {
        "irt": None,
        "unhinted_accuracy": None,
        "reward": None,
        "accuracy_by_round": (),
        "hint_rate": None,
        "hint_rate_by_round": (),
        "hint_rate_histogram": hint_rate_histogram([]),
        "learning_efficiency": None,
        "zero_gradient_groups": None,
        "truncated_completions": None,
        "mismatch_kl": 0.0,
        "rollouts": 0,
    }
    with Journal(tmp_path / "metrics.jsonl") as journal:
        for step in (1, 2, 3):
            journal.append(step_record(step, **nothing))
    seen = text_of(write_report(tmp_path))
    assert "nothing was sampled and nothing evaluated" in seen
    assert "mean hint rate" not in seen
    assert "Rounds, over the last half" not in seen
    assert {path.stem for path in tmp_path.glob("*.png")} == {"learning", "time", "optimisation"}
    with Journal(tmp_path / "eval.jsonl") as journal:
        journal.append(evaluation_record(0, 0.25), evaluation_record(3, 0.5))
    assert "25.0%→50.0% accuracy on held-out problems without hints" in text_of(write_report(tmp_path))


def test_steps_without_rollouts_are_excluded_from_means() -> None:
    supervised = [step_record(step, reward=None, learning_efficiency=None) for step in (1, 2)]
    summary = summarise_run([*supervised, step_record(3, reward=0.5, learning_efficiency=0.75)], [])
    assert summary.reward is not None
    assert (summary.reward.first, summary.reward.last) == (0.5, 0.5)
    assert summary.learning_efficiency == 0.75


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"has no metrics\.jsonl: give the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ReportError, match="has no steps yet"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ReportError, match=r"metrics\.jsonl, line 1: .*Field required"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_unreadable_configuration_does_not_prevent_the_report(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path, steps=2)
    (folder / "config.yaml").write_bytes(b"\xff\xfe")
    assert write_report(folder).exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html"])
def test_a_folder_that_cannot_be_read_or_written_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = make_run_folder(tmp_path, steps=2)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(ReportError, match=rf"{name}: Is a directory; a report needs to read and write"):
        write_report(folder)


def test_the_identity_is_fitted_to_what_was_measured(tmp_path: Path) -> None:
    exact = tuple(
        Descent(accuracy=n / 16, descent=0.125 * n / 16 * (1 - n / 16)) for n in range(1, 16) for _ in range(3)
    )
    figure = Figure()
    (plot,) = [plot for plot in PLOTS if plot.name == "identity"]
    assert not plot.shown([step_record(1), step_record(2)])
    plot.draw(figure, LIGHT, [step_record(1), step_record(2, descents=exact)], [])
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert "0.12 · a(1−a)" in labels
    curve = next(drawn for drawn in axes.lines if drawn.get_label() == "0.12 · a(1−a)")
    np.testing.assert_allclose(curve.get_ydata(), [0.125 * a * (1 - a) for a in np.linspace(0, 1, 101)], atol=1e-12)
    assert len(axes.collections[0].get_offsets()) == 45
    # A single group can be drawn too.
    plot.draw(Figure(), LIGHT, [step_record(1, descents=exact[:1])], [])


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_no_legend_is_cut_off(plot: Plot) -> None:
    steps = [step_record(step, descents=(Descent(accuracy=0.5, descent=0.131),) * 3) for step in range(1, 6)]
    evaluations = [evaluation_record(0, 0.0), evaluation_record(5, 0.5, sampled=0.4)]
    with rc_context(style(LIGHT)):
        figure = plot.figure(LIGHT, steps, evaluations)
        figure.canvas.draw()
        legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
        assert [legend.get_window_extent().x1 <= figure.bbox.x1 for legend in legends] == [True] * len(legends)


def test_stages_show_right_wrong_and_unhinted_rollouts() -> None:
    (stage,) = stages(sample_rollouts(5, 0.5))
    assert stage.title == "Late"
    assert [(bool(sample.hint), sample.reward) for sample in stage.rollouts] == [
        (True, 1.0),
        (True, 0.0),
        (False, None),
    ]
    assert [stage.step for stage in stages([*sample_rollouts(5, 0.5), *sample_rollouts(9, 0.5)])] == [5, 9]
    assert stages([]) == ()


def test_a_line_begins_at_the_first_value() -> None:
    mean, low, _ = smoothed([None, None, 0.5, None, 0.5, None])
    assert [value == value for value in mean] == [value == value for value in low] == [False] * 2 + [True] * 3 + [False]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=60))
def test_a_running_mean_stays_within_the_values_and_has_gaps_only_without_values(
    values: list[float | None],
) -> None:
    mean, low, high = smoothed(values)
    measured = [value for value in values if value is not None]
    finite = mean[mean == mean]
    assert len(mean) == len(values)
    if measured:
        assert finite.min() >= min(measured) - 1e-9
        assert finite.max() <= max(measured) + 1e-9
    assert all(mean[index] == mean[index] for index, value in enumerate(values) if value is not None)
    assert ((low <= mean) & (mean <= high))[mean == mean].all()
