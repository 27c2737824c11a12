"""Groups on a GPU: the bits of each trial alone, or a refusal; CUDA graphs; what a group does when memory ends."""

import pytest
import torch
from support.fusible import Images, Mlp, MlpWithDropout, Residual, SdpaTransformer, runs_of
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.gpu import ON_GPU, prepared_gpu
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, integers, log_uniform
from tuner.errors import NotFusible
from tuner.fused.cuda_graph import WARM_UP
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest

pytestmark = ON_GPU
STEPS = 12


@pytest.fixture
def gpu():
    yield prepared_gpu()
    torch.use_deterministic_algorithms(False)


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.mark.parametrize("num_trials", [1, 2, 8, 32])
@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout, Residual, SdpaTransformer])
def test_a_group_keeps_the_bits_of_each_trial_or_is_refused(workload, num_trials, gpu):
    runs, alone = (runs_of(workload(), num_trials, device=gpu) for _ in range(2))
    try:
        group = exact_group(runs)
    except NotFusible as error:
        pytest.skip(f"not fused: {error}")
    group.advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    assert digests(runs) == digests(alone)
    assert group.graphs.in_use, group.graphs.refused


@pytest.mark.parametrize("ema_steps", [6, integers(2, 12)])
def test_averages_of_the_weights_move_beside_a_captured_update(ema_steps, gpu):
    space = SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-1), dropout=0.1, label_smoothing=0.1, weight_decay=0.1, ema_steps=ema_steps
    )
    runs, alone = (runs_of(Mlp(), 4, space, gpu) for _ in range(2))
    group = exact_group(runs)
    group.advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    assert group.graphs.in_use, group.graphs.refused
    assert digests(runs) == digests(alone)
    assert "averages" in runs[0].state()
    evaluated = GroupEvaluation(group).of([0, 1, 2, 3])
    assert all(repr(measured) == repr(runs[trial].evaluate()) for trial, measured in evaluated.items())


class Wide(Images):
    """Two matrices of more values than bitsandbytes keeps in float32."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param("adamw_8bit", marks=pytest.mark.needs("bitsandbytes")), "muon", "schedule_free_adamw"],
)
def test_optimizers_without_a_kernel_for_groups_keep_the_bits_of_each_trial(optimizer, gpu):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2), label_smoothing=0.1)
    runs, alone = (runs_of(Wide(), 4, space, device=gpu, optimizer=optimizer) for _ in range(2))
    exact_group(runs).advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    assert digests(runs) == digests(alone)


@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout])
def test_plain_models_must_fuse_on_a_gpu_too(workload, gpu):
    exact_group(runs_of(workload(), 8, device=gpu))


def test_the_self_check_sees_other_bits_on_a_gpu(gpu, monkeypatch):
    monkeypatch.setattr("tuner.fused.noise.draw_seed", lambda *rest: 5)
    assert "the loss" in first_difference(Group(runs_of(MlpWithDropout(), 2, device=gpu)))


def test_a_trial_that_ends_makes_the_graph_anew(gpu):
    runs, alone = (runs_of(Mlp(), 4, device=gpu) for _ in range(2))
    group = exact_group(runs)
    group.advance(WARM_UP + 2)
    group.retire(1)
    assert not group.graphs.in_use
    group.advance(WARM_UP + 3)
    assert group.graphs.in_use, group.graphs.refused
    for run in alone:
        run.advance(2 * WARM_UP + 5)
    live = [0, 2, 3]
    assert [digests(runs)[trial] for trial in live] == [digests(alone)[trial] for trial in live]


SPACES = {
    "adamw": SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), weight_decay=log_uniform(1e-3, 1.0), clip_norm=0.5),
    "sgd": SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), momentum=0.9),
}


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 6, 9, 13, 19, 23])
@pytest.mark.parametrize("optimizer", SPACES)
def test_a_group_stopped_at_ten_steps_goes_on_alone_or_in_another_group(optimizer, stop, gpu, tmp_path):
    study = tiny_study(optimizer=optimizer, space=SPACES[optimizer], num_trials=4)
    trials = planned_trials(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", None, gpu), trials)
    folder, recorder = tmp_path / "stopped", TrialsRecorder()
    stopped = setting_for(study, folder, None, gpu, stop=StopAt(stop + 1))
    trained_together(stopped, trials, recorder)
    trained_alone(setting_for(study, folder, None, gpu), trials[:1], recorder)
    trained_together(setting_for(study, folder, None, gpu), trials[1:], recorder)
    for trial in trials:
        assert meaning(recorder, folder, trial) == meaning(alone, tmp_path / "alone", trial)


def test_a_trial_that_diverges_does_not_disturb_its_mates_on_a_gpu(gpu, tmp_path):
    class Exploding(Tiny):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) + model[4].weight.pow(4).sum()

    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e3))
    study = tiny_study(num_trials=8, space=space, optimizer="sgd")
    trials = planned_trials(study)
    folders = tmp_path / "together", tmp_path / "alone"
    together = trained_together(setting_for(study, folders[0], Exploding(), gpu), trials)
    alone = trained_alone(setting_for(study, folders[1], Exploding(), gpu), trials)
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial)
