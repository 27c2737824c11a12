"""A Ledger filled by hand: thirty trials with curves, two rounds, every state, and names that mean harm."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.campaigns import FITTED, fill_promoted, fill_sweep

from tuner.analysis.frames import study_frames
from tuner.budget.families import constant_then_decay
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.objective import minimize
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Checkpoint, Claim, Measurement, Numerics, State, TrialUpdate
from tuner.records.budget_origin import BudgetOrigin
from tuner.records.conclusions import BudgetRecord, RegimeVerdict
from tuner.report.material import Material, read_material
from tuner.report.page import report_html
from tuner.report.sections.rounds import studies
from tuner.storage.store import Ledger, open_ledger

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1),
    weight_decay=log_uniform(1e-6, 1e-2, off=0.0),
    dropout=uniform(0.0, 0.5, off=0.0, limits="low"),
    hidden_width=integers(32, 512, log=True, family="architecture"),
    activation=choice("relu", "gelu", "tanh", family="architecture"),
    momentum=0.9,
)
GOAL = "Which learning rate, and does regularization help?"
DIGEST = "5f" * 32


def study_of(space: SearchSpace = SPACE, *, number: int = 1, trials: int = 30, steps: int = 1000) -> Study:
    return Study(
        name=f"round-{number}",
        kind="round",
        goal=GOAL,
        hyperparameters=space.hyperparameters,
        fixed=space.fixed,
        budget=StepBudget.with_evaluations(steps, 50),
        num_trials=trials,
        objective=minimize("validation/error_rate"),
        fitted_when=None,
        optimizer="adamw",
        schedule=constant_then_decay(0.2),
        warmup_steps=20,
        batch_size=64,
        seed=7,
        round=number,
    )


def start(ledger: Ledger, campaign: str, study: Study) -> int:
    """A study with all its trials WAITING; its id."""
    row = ledger.start_study(campaign, study, "fingerprint")
    points = quasi_random_points(study.space, seed=study.seed, start=0, count=study.num_trials)
    schedule = study.schedule.schedule(study.budget.max_train_steps, study.warmup_steps)
    trials = [Trial(n, point, 1000 + n, 17, schedule, f"quasi-random {n}") for n, point in enumerate(points)]
    ledger.plan_trials(row.study_id, trials)
    return row.study_id


def curve(claim: Claim, study: Study, until: int | None = None) -> list[Measurement]:
    """Training and validation error: good near learning rate 3e-2, overfitting a little at the end."""
    point = claim.trial.point
    distance = math.log10(float(point["learning_rate"]) / 3e-2)
    floor = 0.02 + 0.03 * distance**2 + 0.02 * float(point.get("dropout", 0.0))
    measured = []
    for step in study.budget.evaluation_steps:
        if until is not None and step > until:
            break
        done = step / study.budget.max_train_steps
        falling = 0.9 * math.exp(-9.0 * done)
        wobble = 0.002 * math.sin(37.0 * done + claim.trial.number)
        overfitting = 0.02 * max(0.0, done - 0.6)
        measured.append(Measurement(step, "training/error_rate", max(0.0, 0.6 * floor + falling - 0.01 * done)))
        measured.append(Measurement(step, "validation/error_rate", floor + falling + overfitting + wobble))
    return measured


def finish(ledger: Ledger, claims: Sequence[Claim], study: Study) -> None:
    """COMPLETE, with curves and the best checkpoint."""
    updates = []
    for claim in claims:
        measured = curve(claim, study)
        validation = [(m.step, m.value) for m in measured if m.metric == study.objective.metric]
        step, value = min(validation, key=lambda pair: pair[1])
        best = Checkpoint(
            "best", step, f"{study.name}/trial-{claim.trial.number}/best.safetensors", DIGEST, 1000, value
        )
        last = study.budget.max_train_steps
        updates.append(
            TrialUpdate(
                claim.trial_id,
                claim.fence,
                last,
                measured,
                [best],
                State.COMPLETE,
                numerics=Numerics.of({"threads": 1}),
            )
        )
    ledger.record(updates)


def end(ledger: Ledger, claim: Claim, study: Study, state: State, reason: str, step: int = 0) -> None:
    """Any other end, with the curve up to `step`."""
    ledger.record([TrialUpdate(claim.trial_id, claim.fence, step, curve(claim, study, step), None, state, reason)])


def fill_round(ledger: Ledger, campaign: str, study: Study) -> None:
    """The upper learning rates diverge, one trial fails, one is cancelled, one runs and one waits."""
    study_id = start(ledger, campaign, study)
    claims = ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=study.num_trials - 1)
    failed, cancelled, _running, *others = claims
    end(ledger, failed, study, State.FAILED, "RuntimeError: <b>size mismatch</b>", 40)
    end(ledger, cancelled, study, State.CANCELLED, "cancelled by the user", 20)
    diverged = [claim for claim in others if float(claim.trial.point["learning_rate"]) > 6e-2]
    for claim in diverged:
        end(ledger, claim, study, State.INFEASIBLE, "diverged at step 61: the loss is not finite", 60)
    finish(ledger, [claim for claim in others if claim not in diverged], study)
    record_launch(ledger, study_id)


def record_launch(ledger: Ledger, study_id: int, command: str = "tuner launch studies/digits.py --round 1") -> None:
    ledger.add_launch(
        study_id,
        command=command,
        revision={"commit": "0123456789abcdef0123", "uncommitted": True},
        environment={
            "study_file": "studies/digits.py",
            "python": "3.11.9",
            "host": "box",
            "versions": {"tuner": "0.1.0", "torch": "2.13.0"},
        },
        worker="",
    )


def without_images(patched: pytest.MonkeyPatch) -> None:
    """Saving figures takes most of the time of a page, and few tests look at them."""
    patched.setattr("tuner.report.images._bytes_of", lambda drawing, form: b"<svg/>")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as opened:
        yield opened


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """For reading only, because drawing takes a second: `digits`, one round of thirty trials in every state, and
    `grown`, the same with a second, longer round of six complete trials."""
    with open_ledger(str(tmp_path_factory.mktemp("filled") / "tuner.sqlite")) as opened:
        fill_round(opened, "digits", study_of())
        fill_round(opened, "grown", study_of())
        study = replace(study_of(number=2, trials=6, steps=2000), goal="The final model")
        study_id = start(opened, "grown", study)
        finish(opened, opened.claim(study_id, worker="test", lease_seconds=1e6, max_trials=6), study)
        record_launch(opened, study_id)
        yield opened


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """For reading only: `whole`, a campaign that was run to its end: sweep, round 1, three of its points for longer."""
    with open_ledger(str(tmp_path_factory.mktemp("whole") / "tuner.sqlite")) as opened:
        first = study_of(steps=540)
        fill_sweep(opened, "whole", first, FITTED)
        opened.conclude("whole", RegimeVerdict("not_compute_bound", "not_compute_bound"))
        fill_round(opened, "whole", first)
        ranked = study_frames(opened, "whole", "round-1").complete.sort_values("best_value")
        fill_promoted(opened, "whole", first, 1080, [int(trial) for trial in ranked["trial"].head(3)], 0.05)
        origin = BudgetOrigin("sweep", factor=2.0, steps=270)
        opened.conclude("whole", BudgetRecord(origin), opened.study("whole", "round-1").study_id)
        yield opened


@pytest.fixture(scope="session")
def whole_material(whole: Ledger) -> Material:
    return read_material(whole, "whole")


@pytest.fixture(scope="session")
def whole_page(whole: Ledger) -> "Page":
    return Page(report_html(whole, "whole"))


@pytest.fixture(scope="session")
def digits_page(filled: Ledger) -> "Page":
    return Page(report_html(filled, "digits"))


@pytest.fixture(scope="session")
def grown_page(filled: Ledger) -> "Page":
    """With empty images; the pages of `digits` and `whole` are drawn."""
    with pytest.MonkeyPatch.context() as patched:
        without_images(patched)
        return Page(report_html(filled, "grown"))


@pytest.fixture(scope="session")
def digits(filled: Ledger) -> Material:
    return read_material(filled, "digits")


@pytest.fixture(scope="session")
def grown(filled: Ledger) -> Material:
    return read_material(filled, "grown")


@pytest.fixture(scope="session")
def digits_study(digits: Material) -> object:
    """The content of the section of the only study of `digits`, with empty images."""
    with pytest.MonkeyPatch.context() as patched:
        without_images(patched)
        return studies(digits)[0].content


@pytest.fixture
def fill() -> Callable[[Ledger, str, Study], None]:
    """Fills a study of any declaration as `digits` is filled."""
    return fill_round


class Page(HTMLParser):
    """A page taken apart by the standard library: elements with attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of an attribute of all elements of a kind."""
        return [values[name] or "" for element, values in self.elements if element == tag and name in values]

    @property
    def anchors(self) -> list[str]:
        return [values["id"] or "" for _, values in self.elements if "id" in values]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's images are empty."""
    without_images(monkeypatch)


@pytest.fixture
def page(undrawn: None) -> Callable[[Ledger, str], Page]:
    """The page of a campaign, taken apart, with empty images."""
    return lambda ledger, campaign: Page(report_html(ledger, campaign))


@pytest.fixture
def begin() -> Callable[[Ledger, str, Study], int]:
    """Starts a study whose trials all wait."""
    return start


@pytest.fixture
def declared() -> Callable[..., Study]:
    return study_of
