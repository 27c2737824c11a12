"""The constant-learning-rate sweep on real training: its three outcomes, what it refuses, and that it goes on."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from support.sessions import StopAfter, session_for
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_most,
    log_grid,
    log_uniform,
    minimize,
    uniform,
)
from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.sweep_records import sweep_records
from tuner.errors import DeclarationError, Interrupted, WorkloadError
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted
from tuner.rounds.launch import launch_study
from tuner.rounds.plan import study_of_round
from tuner.rounds.sweep import run_sweep, sweep_plan


class SmallDigits(Workload):
    """The first 300 digits; `flipped` of their labels are wrong."""

    batch_size = 32
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)
    flipped, width = 0.0, 48

    def data(self):
        images, labels = load_digits(return_X_y=True)
        x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
        wrong = torch.rand(300, generator=torch.Generator().manual_seed(0)) < self.flipped
        noisy = torch.where(wrong, (y[:300] + 1) % 10, y[:300])
        return Splits(training=(x[:300], noisy), validation=(x[300:500], y[300:500]))

    def model(self, point):
        return nn.Sequential(
            nn.Linear(64, self.width), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(self.width, 10)
        )

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        logits = model(batch[0])
        return {
            "loss": F.cross_entropy(logits, batch[1], reduction="none"),
            "error_rate": logits.argmax(-1) != batch[1],
        }


SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1), weight_decay=log_uniform(1e-4, 1.0), dropout=uniform(0.0, 0.5)
)
GRID = log_grid(1e-4, 1.0)


def campaign_of(workload=None, **sweep):
    settings = {"learning_rate": GRID, "start_steps": 100, "max_steps": 800, "seeds": 3} | sweep
    return Campaign(workload or SmallDigits(), rounds=[Round("a test", trials=4, space=SPACE)], sweep=Sweep(**settings))


def swept(campaign, folder):
    with session_for(campaign, folder) as session:
        return run_sweep(session, campaign.sweep)


def test_a_training_set_that_can_be_fitted_gives_steps_with_interval_and_spread(tmp_path):
    campaign = campaign_of()
    with session_for(campaign, tmp_path) as session:
        outcome = run_sweep(session, campaign.sweep)
        assert isinstance(outcome, Fitted)
        assert GRID[0] < outcome.learning_rate < GRID[-1]
        assert outcome.low < outcome.high <= outcome.max_steps
        assert outcome.width <= 0.10 or outcome.high <= 20
        assert len(outcome.seed_steps) + outcome.unfitted_seeds == 3
        assert outcome.seed_low <= min(outcome.seed_steps)
        assert outcome.seed_high >= max(outcome.seed_steps)
        rows = session.ledger.studies("test")
        before = [session.ledger.trials(row.study_id) for row in rows]
        assert run_sweep(session, campaign.sweep) == outcome
        assert [session.ledger.trials(row.study_id) for row in rows] == before, "nothing is trained twice"


def test_the_sweep_trains_constant_rates_with_everything_off_for_the_whole_length(tmp_path):
    campaign = campaign_of()
    with session_for(campaign, tmp_path) as session:
        run_sweep(session, campaign.sweep)
        grid = session.ledger.study("test", "sweep-1-grid")
        assert grid.study.augment is False
        for record in session.ledger.trials(grid.study_id):
            assert (record.point["weight_decay"], record.point["dropout"]) == (0.0, 0.0)
            assert set(record.schedule.fractions()) == {1.0}
            assert record.step == grid.study.budget.max_train_steps or record.state == "infeasible"


def test_a_grid_cut_off_below_the_best_rate_is_invalid_and_its_extension_fits(tmp_path):
    cut = tuple(rate for rate in GRID if rate <= 1e-3)
    campaign = campaign_of(learning_rate=cut, max_steps=3200, seeds=1)
    with session_for(campaign, tmp_path) as session:
        outcome = run_sweep(session, campaign.sweep)
        assert isinstance(outcome, Invalid)
        assert (outcome.direction, outcome.learning_rate) == ("upper", cut[-1])
        assert outcome.extended_grid[: len(cut)] == cut
        assert outcome.extended_grid[-1] == pytest.approx(cut[-1] * 10, rel=1e-3)
        wider = run_sweep(session, replace(campaign.sweep, learning_rate=GRID))
        assert isinstance(wider, Fitted)
        assert wider.steps < outcome.bound


class SmallWithWrongLabels(SmallDigits):
    flipped, width = 0.05, 4


def test_wrong_labels_and_a_small_model_give_no_number_and_reasons(tmp_path):
    outcome = swept(campaign_of(SmallWithWrongLabels(), max_steps=400), tmp_path)
    assert isinstance(outcome, NotFitted)
    assert outcome.reasons
    assert not hasattr(outcome, "steps")


def test_every_rate_diverging_is_said_and_nothing_more_is_tried(tmp_path):
    campaign = campaign_of(learning_rate=log_grid(1e30, 1e32), optimizer="sgd")
    with session_for(campaign, tmp_path) as session:
        outcome = run_sweep(session, campaign.sweep)
        assert isinstance(outcome, NotFitted)
        assert [reason.reason for reason in outcome.reasons] == ["all_diverged"]
        assert max(row.study.budget.max_train_steps for row in session.ledger.studies("test")) == 100


def test_an_interrupted_sweep_goes_on_and_finds_the_same(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    campaign = campaign_of(seeds=2)
    whole = swept(campaign, tmp_path / "whole")
    interruptions = 0
    while True:
        with session_for(campaign, tmp_path / "parts", stop=StopAfter(900)) as session:
            try:
                parts = run_sweep(session, campaign.sweep)
                break
            except Interrupted:
                interruptions += 1
    assert interruptions >= 2
    assert parts == whole


def test_a_wide_interval_is_refined_by_training_the_fastest_again_with_finer_evaluations(tmp_path):
    campaign = replace(campaign_of(), evaluations=5)
    with session_for(campaign, tmp_path) as session:
        outcome = run_sweep(session, campaign.sweep)
        assert isinstance(outcome, Fitted)
        coarse = fit_steps_frame(study_frames(session.ledger, "test", "sweep-1-grid"))
        refined = session.ledger.study("test", "sweep-1-refined").study
    row = coarse[coarse["learning_rate"] == outcome.learning_rate].iloc[0]
    assert (row["first_fit"] - row["last_unfit"]) / row["first_fit"] > 0.10
    assert outcome.width <= 0.10
    assert refined.budget.evaluate_every < 0.10 * row["first_fit"]
    # The same training, looked at more often: never earlier than it was last seen unfit; later where it wavered.
    assert outcome.low >= row["last_unfit"] - refined.budget.evaluate_every


class KeepsDropout(SmallDigits):
    def model(self, point):
        return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.5), nn.Linear(48, 10))


class AddsNoise(SmallDigits):
    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0] + 0.5 * torch.randn_like(batch[0])), batch[1])


class NoisyDataset(torch.utils.data.Dataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs[0])

    def __getitem__(self, index):
        return self.pairs[0][index] + torch.randn(64), self.pairs[1][index]


class NoisyData(SmallDigits):
    def data(self):
        plain = super().data()
        return Splits(training=NoisyDataset(plain.training), validation=plain.validation)


@pytest.mark.parametrize(
    ("workload", "message"),
    [(KeepsDropout(), "keeps dropout on"), (AddsNoise(), "randomness"), (NoisyData(), "random numbers")],
)
def test_a_workload_that_cannot_switch_randomness_off_is_refused(workload, message, tmp_path):
    with session_for(campaign_of(workload), tmp_path) as session:
        with pytest.raises(WorkloadError, match=message):
            run_sweep(session, session.campaign.sweep)
        assert session.ledger.campaigns() == [], "nothing is written"


def test_a_declared_augmentation_is_off_in_the_sweep_and_needs_no_refusal(tmp_path):
    class Augments(SmallDigits):
        def augment(self, batch, point, generator):
            raise AssertionError("a sweep must not augment")

    campaign = campaign_of(Augments(), seeds=1)
    assert isinstance(swept(campaign, tmp_path), Fitted)


def test_without_a_fit_criterion_there_is_no_sweep():
    class NoCriterion(SmallDigits):
        fitted_when = None

    with pytest.raises(DeclarationError, match="fitted_when"):
        campaign_of(NoCriterion())


def test_a_regularizer_without_an_off_value_is_refused():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), stretch=uniform(0.1, 0.5, family="regularization"))
    with pytest.raises(DeclarationError, match=r"stretch \(regularization\) has no off value"):
        Campaign(SmallDigits(), rounds=[Round("a test", trials=4, space=space)], sweep=Sweep())


def steps_to_fit(workload, dropout, folder):
    """The fastest of three rates with regularization left on: what the sweep must not measure."""
    campaign = campaign_of(workload)
    plan = sweep_plan(campaign, campaign.sweep)
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), dropout=dropout)
    study = study_of_round(replace(campaign, rounds=(Round("x", trials=3, space=space),)), 1, 1200)
    rates = (3e-3, 1e-2, 3e-2)
    trials = plan.trials(study, rates)
    trials = [replace(trial, point=trial.point.with_values(dropout=dropout)) for trial in trials]
    with session_for(campaign, folder) as session:
        launch_study(session, replace(study, schedule=study.schedule), trials)
        fits = fit_steps_frame(study_frames(session.ledger, "test", study.name))
    return fits["first_fit"].astype("float64").fillna(float("inf")).min()


@pytest.mark.slow
def test_dropout_and_noise_left_on_make_the_answer_too_long(tmp_path):
    """F4: what the checks above protect from (D2)."""
    folders = [tmp_path / name for name in ("clean", "dropout", "noise")]
    for folder in folders:
        folder.mkdir()
    clean = steps_to_fit(SmallDigits(), 0.0, folders[0])
    with_dropout = steps_to_fit(SmallDigits(), 0.5, folders[1])
    with_noise = steps_to_fit(AddsNoise(), 0.0, folders[2])
    assert with_dropout > 1.5 * clean
    assert with_noise > 1.5 * clean


def test_below_a_grid_that_diverges_the_lowest_rates_are_really_trained(tmp_path):
    """Only the lowest rate lives: the probes (the 2nd, the 5th) diverge, and it decides."""
    rates = (1e-2, 1e10, 1e20, 1e25, 1e30)
    campaign = campaign_of(learning_rate=rates, optimizer="sgd", start_steps=100, max_steps=100)
    with session_for(campaign, tmp_path) as session:
        outcome = run_sweep(session, campaign.sweep)
        names = [row.study.name for row in session.ledger.studies("test")]
        assert names[:2] == ["sweep-1-probe-100", "sweep-1-lowest-100"]
        assert not isinstance(outcome, NotFitted) or outcome.reasons[0].reason != "all_diverged"
        records = sweep_records(session.ledger, "test")
        assert records.outcome == outcome
        assert 1e-2 in set(records.fits["learning_rate"])


def test_another_fit_criterion_is_another_sweep_and_the_first_stays(tmp_path):
    hard = campaign_of(SmallWithWrongLabels(), max_steps=100)
    with session_for(hard, tmp_path) as session:
        outcome = run_sweep(session, hard.sweep)
        assert isinstance(outcome, NotFitted)
        records = sweep_records(session.ledger, "test")
        best = records.fits.set_index("learning_rate").loc[outcome.best_learning_rate]
        assert best["final_value"] == outcome.best_value, "the table shows the trial that the text speaks of"
        assert outcome.best_learning_rate in set(records.frames.trials["learning_rate"])
        stages = [row.study for row in session.ledger.studies("test")]
        tried = {
            rate for one in stages for rate in study_frames(session.ledger, "test", one.name).trials["learning_rate"]
        }
        assert set(records.fits["learning_rate"]) == tried, "probes and the rates around the best of them"
    easy = campaign_of(ReachesHalf(), max_steps=100, seeds=1)
    with session_for(easy, tmp_path) as session:
        run_sweep(session, easy.sweep)
        records = sweep_records(session.ledger, "test")
    assert records.name == "sweep-2"
    assert records.frames.study.fitted_when == at_most("training/error_rate", 0.5)


class ReachesHalf(SmallWithWrongLabels):
    fitted_when = at_most("training/error_rate", 0.5)
