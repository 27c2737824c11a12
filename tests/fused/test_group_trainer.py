"""Trials trained together leave what each leaves alone: curves, best steps, checkpoints, reasons, bit for bit."""

import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, Tiny, setting_for, tiny_study, train_alone

from tuner import SearchSpace, Splits, Workload, log_uniform, minimize, uniform
from tuner.budget.step_budget import StepBudget
from tuner.errors import LeaseLost, NotFusible
from tuner.fused.group import MAX_RECORDINGS, Group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.trial_run import TrialRun

SPACES = {
    "adamw": SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-1), weight_decay=log_uniform(1e-3, 1.0),
        one_minus_beta1=log_uniform(0.05, 0.5), one_minus_beta2=log_uniform(1e-3, 0.1), epsilon=log_uniform(1e-9, 1e-2),
    ),
    "adam": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=uniform(0.1, 1.0), weight_decay=0.1),
    "sgd": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), momentum=uniform(0.5, 0.95), nesterov=True),
}  # fmt: skip


class Calm(Tiny):
    """Without augmentation, so that trials share their batches."""

    augment = Workload.augment


def assert_same(together, alone, folders, trials):
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial), f"trial {trial.number}"


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """For an optimizer four trials, what each left alone and where: trained once for all tests."""

    @functools.cache
    def trained(optimizer):
        study = tiny_study(optimizer=optimizer, space=SPACES[optimizer], num_trials=4)
        folder = tmp_path_factory.mktemp(optimizer)
        trials = planned_trials(study)
        return study, trials, trained_alone(setting_for(study, folder), trials), folder

    return trained


@pytest.mark.parametrize("workload", [Tiny, Calm])
@pytest.mark.parametrize("optimizer", SPACES)
def test_trials_trained_together_have_the_bits_of_each_alone(optimizer, workload, tmp_path):
    study = tiny_study(optimizer=optimizer, space=SPACES[optimizer], num_trials=4)
    trials = planned_trials(study)
    folders = tmp_path / "together", tmp_path / "alone"
    together = trained_together(setting_for(study, folders[0], workload()), trials)
    alone = trained_alone(setting_for(study, folders[1], workload()), trials)
    assert {together.state(trial) for trial in trials} == {State.COMPLETE}
    assert_same(together, alone, folders, trials)


def test_neither_order_nor_number_of_mates_changes_a_bit(tmp_path):
    study = tiny_study(num_trials=5)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    for number, order in enumerate([(4, 0, 2), (3, 1), (1, 0, 4, 3, 2)]):
        folder = tmp_path / str(number)
        some = [trials[place] for place in order]
        together = trained_together(setting_for(study, folder), some)
        assert_same(together, alone, (folder, tmp_path / "alone"), some)


def test_trials_with_batches_of_their_own_may_train_together(tmp_path):
    study = tiny_study(num_trials=3)
    trials = [replace(trial, data_seed=trial.data_seed + trial.number) for trial in planned_trials(study)]
    folders = tmp_path / "together", tmp_path / "alone"
    together = trained_together(setting_for(study, folders[0], Calm()), trials)
    assert_same(together, trained_alone(setting_for(study, folders[1], Calm()), trials), folders, trials)


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 6, 13, 23])
@pytest.mark.parametrize("optimizer", SPACES)
def test_a_group_that_was_stopped_goes_on_alone_or_in_another_group(optimizer, stop, one_by_one, tmp_path):
    study, trials, alone, alone_folder = one_by_one(optimizer)
    folder = tmp_path / "stopped"
    recorder = trained_together(setting_for(study, folder, stop=StopAt(stop + 1)), trials)
    assert {recorder.of(trial)[-1].step for trial in trials} == {stop}
    trained_alone(setting_for(study, folder), trials[:1], recorder)
    trained_together(setting_for(study, folder), [trials[3], trials[1]], recorder)
    trained_together(setting_for(study, folder), trials[2:3], recorder)
    assert_same(recorder, alone, (folder, alone_folder), trials)


@pytest.mark.parametrize("stops", [(3, 11, 17), (0, 5, 22)])
def test_trials_stopped_alone_at_different_steps_go_on_together(stops, tmp_path):
    study = tiny_study(num_trials=4)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    folder, recorder = tmp_path / "together", TrialsRecorder()
    for trial, stop in zip(trials, stops, strict=False):
        train_alone(setting_for(study, folder, stop=StopAt(stop + 1)), recorder, recorder.claim(trial))
    trained_together(setting_for(study, folder), trials, recorder)
    assert_same(recorder, alone, (folder, tmp_path / "alone"), trials)


def test_durable_commits_are_one_transaction_for_all_and_change_no_bit(tmp_path):
    study = tiny_study(num_trials=3)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    folder = tmp_path / "together"
    together = trained_together(setting_for(study, folder, commit_seconds=0.0), trials)
    assert together.transactions < len(together.updates) / 2
    assert_same(together, alone, (folder, tmp_path / "alone"), trials)
    on_disk = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {c.file for trial in trials for c in together.checkpoints(trial)}


class Exploding(Tiny):
    """Weights grow without bound where the learning rate is high."""

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) + model[4].weight.pow(4).sum()


def test_a_trial_that_diverges_does_not_disturb_its_mates(tmp_path):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e3))
    study = tiny_study(num_trials=8, space=space, optimizer="sgd")
    trials = planned_trials(study)
    folders = tmp_path / "together", tmp_path / "alone"
    together = trained_together(setting_for(study, folders[0], Exploding()), trials)
    alone = trained_alone(setting_for(study, folders[1], Exploding()), trials)
    states = {alone.state(trial) for trial in trials}
    assert states == {State.COMPLETE, State.INFEASIBLE}, "the test needs both"
    assert_same(together, alone, folders, trials)


def test_a_trial_that_another_worker_took_leaves_the_group_and_the_others_go_on(tmp_path):
    study = tiny_study(num_trials=3)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)

    class OneIsLost(TrialsRecorder):
        def record(self, updates):
            if any(update.trial_id == 2 for update in updates):
                raise LeaseLost("trial 2 is another's")
            super().record(updates)

    recorder = trained_together(setting_for(study, tmp_path / "t", commit_seconds=0.0), trials, OneIsLost())
    assert recorder.of(trials[1]) == []
    assert_same(recorder, alone, (tmp_path / "t", tmp_path / "alone"), [trials[0], trials[2]])


class Greedy(Calm):
    """Runs out of memory where a third model is made, or at every evaluation."""

    def __init__(self, *, models):
        self.models = models

    def model(self, point):
        self.models -= 1
        if self.models < 0:
            raise torch.OutOfMemoryError("a model too many")
        return super().model(point)


class GreedyWhenEvaluated(Calm):
    def metrics(self, model, batch):
        raise torch.OutOfMemoryError("an evaluation too large")


@pytest.mark.parametrize("workload", [Greedy(models=2), GreedyWhenEvaluated()])
def test_memory_that_ends_for_a_group_is_no_trials_fault(workload, tmp_path):
    """Fewer at a time may fit: those that share the memory must not be judged by it."""
    study = tiny_study(num_trials=3)
    recorder = TrialsRecorder()
    with pytest.raises(torch.OutOfMemoryError):
        trained_together(setting_for(study, tmp_path, workload), planned_trials(study), recorder)
    assert not [update for update in recorder.updates if update.state.finished]


class Words(Workload):
    """Sentences of 4 to 8 words, one a batch: five forms of batches, and a group records four."""

    batch_size = 1
    select_by = minimize("validation/loss")
    evaluation_batch_size = 1

    def data(self):
        return Splits(training=Sentences(40), validation=Sentences(3))

    def model(self, point):
        return torch.nn.Linear(6, 2)

    def loss(self, model, batch, point):
        x, y = batch
        return F.cross_entropy(model(x).mean(1), y)

    def metrics(self, model, batch):
        x, y = batch
        return {"loss": F.cross_entropy(model(x).mean(1), y, reduction="none")}


class Sentences(torch.utils.data.Dataset):
    """Sentence n has 4 + n % 5 words of 6 numbers each."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        words = torch.randn(4 + index % 5, 6, generator=torch.Generator().manual_seed(index))
        return words, index % 2


def words_trials():
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=uniform(0.1, 1.0))
    study = tiny_study(
        space=space, batch_size=1, num_trials=3, fitted_when=None, budget=StepBudget(40, 15), warmup_steps=0
    )
    return study, planned_trials(study)


def forms_until(setting, trial, count):
    """The step whose batch is the first of the form number `count`."""
    batches, forms = TrialRun(setting, trial).batches, set()
    for step in range(40):
        forms.add(batches.at(step)[0].shape)
        if len(forms) == count:
            return step
    raise AssertionError("so many forms there are not")


def test_a_form_of_batch_too_many_hands_over_what_was_trained_until_then(tmp_path):
    study, trials = words_trials()
    setting = setting_for(study, tmp_path, Words())
    fifth = forms_until(setting, trials[0], MAX_RECORDINGS + 1)
    assert fifth > 4
    runs, alone = ([TrialRun(setting, trial) for trial in trials] for _ in range(2))
    with pytest.raises(NotFusible, match="batches of more than 4 forms"):
        Group(runs).advance(40)
    for run, other in zip(runs, alone, strict=True):
        other.advance(fifth)
        assert (run.step, len(run.losses), len(run.norms)) == (fifth, fifth, fifth)
        assert canonical_digest(run.state()) == canonical_digest(other.state())
        for each in (run, other):
            each.advance(40)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


def test_trials_whose_group_meets_a_form_too_many_are_committed_and_go_on_alone(tmp_path):
    study, trials = words_trials()
    folder, recorder = tmp_path / "together", TrialsRecorder()
    setting = setting_for(study, folder, Words())
    fifth = forms_until(setting, trials[0], MAX_RECORDINGS + 1)
    with pytest.raises(NotFusible, match="batches of more than 4 forms"):
        trained_together(setting, trials, recorder)
    assert [(recorder.state(trial), recorder.of(trial)[-1].step) for trial in trials] == [(State.RUNNING, fifth)] * 3
    trained_alone(setting, trials, recorder)
    alone = trained_alone(setting_for(study, tmp_path / "alone", Words()), trials)
    assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
    assert_same(recorder, alone, (folder, tmp_path / "alone"), trials)
