"""Models that a study compiles, or whose activations it computes a second time: the bits, the names, the identity."""

import copy
import subprocess
import sys

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from support.fusing import TrialsRecorder, meaning
from support.gpu import ON_GPU
from support.sessions import StopAfter
from support.tiny import CPU, Tiny, setting_for, tiny_study, train_alone
from torch import nn
from torch.utils.checkpoint import checkpoint

from tuner import SearchSpace, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.errors import NotFusible
from tuner.fused.making import make_group
from tuner.fused.obstacles import check_obstacles
from tuner.records.conclusions import Selected, StageStart
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_weights, weights_as_file
from tuner.training.compiled import compiler_of, repeats, start_afresh
from tuner.training.extra_state import load_weights, state_dict_of
from tuner.training.inherited import StartWeights
from tuner.training.preflight import check_workload, measured_price
from tuner.training.trial_run import TrialRun
from tuner.training.value_digests import value_digest

BACKEND = "aot_eager"


class Whole(Tiny):
    """The whole model compiled; dropout and batch norm are in it."""

    def model(self, point):
        return torch.compile(super().model(point), backend=BACKEND)


class InPlace(Tiny):
    """Compiled in place, which keeps the names."""

    def model(self, point):
        model = super().model(point)
        model.compile(backend=BACKEND)
        return model


class Part(Tiny):
    def model(self, point):
        plain = super().model(point)
        return nn.Sequential(torch.compile(plain[:4], backend=BACKEND), plain[4])


class Blocks(nn.Module):
    """Three blocks with dropout, each in a checkpoint of activations or not."""

    def __init__(self, reentrant=None, width=12):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.3)) for _ in range(3)
        )
        self.last = nn.Linear(width, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        again = self.reentrant is not None and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant) if again else block(x)
        return self.last(x)


class Kept(Tiny):
    reentrant = None

    def model(self, point):
        return Blocks(self.reentrant)


class Again(Kept):
    reentrant = False


class AgainReentrant(Kept):
    reentrant = True


SLOW = [pytest.param(kind, marks=pytest.mark.slow, id=kind.__name__) for kind in (InPlace, Part)]
KINDS = [*(pytest.param(kind, id=kind.__name__) for kind in (Whole, Again, AgainReentrant)), *SLOW]


def trained(workload, folder, *, stops=(), **changes):
    """Train a trial, stopped after so many looks again and again, each time going on as a new process would."""
    study, recorder = tiny_study(num_trials=1), TrialsRecorder()
    trial = planned_trials(study)[0]
    for count in stops:
        start_afresh()
        train_alone(setting_for(study, folder, workload, stop=StopAfter(count)), recorder, recorder.claim(trial))
    start_afresh()
    train_alone(setting_for(study, folder, workload, **changes), recorder, recorder.claim(trial))
    return recorder, trial


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_the_bits_are_those_of_a_trial_that_ran_through(kind, tmp_path):
    straight, trial = trained(kind(), tmp_path / "straight")
    resumed, _ = trained(kind(), tmp_path / "resumed", stops=(3,))
    assert straight.of(trial)[-1].state.value == "complete", straight.of(trial)[-1].reason
    assert meaning(resumed, tmp_path / "resumed", trial) == meaning(straight, tmp_path / "straight", trial)


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_look_finds_nothing_wrong(kind, tmp_path, caplog):
    study = tiny_study()
    check_workload(setting_for(study, tmp_path, kind()), planned_trials(study)[0])
    said = [one.getMessage() for one in caplog.records if one.name.startswith("tuner")]
    assert [one for one in said if not one.startswith("trying one whole update")] == []


@pytest.mark.parametrize("kind", [Again, AgainReentrant], ids=["new", "reentrant"])
def test_activations_that_are_computed_again_change_no_bit_although_dropout_is_drawn_in_them(kind, tmp_path):
    kept, trial = trained(Kept(), tmp_path / "kept")
    again, _ = trained(kind(), tmp_path / "again")
    assert meaning(again, tmp_path / "again", trial) == meaning(kept, tmp_path / "kept", trial)


@pytest.mark.parametrize("kind", [InPlace, Part])
def test_what_is_kept_of_a_compiled_model_loads_into_the_plain_one(kind, tmp_path):
    recorder, trial = trained(kind(), tmp_path)
    best = next(one for one in recorder.checkpoints(trial) if one.kind == "best")
    weights = read_weights(tmp_path, best)
    plain = Tiny().model({})
    if kind is Part:
        plain = nn.Sequential(plain[:4], plain[4])
    plain.load_state_dict(weights)
    run = TrialRun(setting_for(tiny_study(num_trials=1), tmp_path, kind()), trial)
    load_weights(run.model, weights, CPU)
    assert all(torch.equal(mine, weights[name]) for name, mine in state_dict_of(run.model).items())


def test_the_compiler_is_part_of_the_numerics(tmp_path):
    recorder, trial = trained(Whole(), tmp_path)
    assert recorder.of(trial)[-1].numerics.values["compiler"] == "torch.compile"
    plain, _ = trained(Tiny(), tmp_path / "plain")
    assert "compiler" not in plain.of(trial)[-1].numerics.values


class Rates(Tiny):
    """The rate of dropout is of the point, so that each trial is compiled by itself."""

    def model(self, point):
        plain = nn.Sequential(nn.Linear(6, 12), nn.Dropout(point["dropout"]), nn.Linear(12, 2))
        return torch.compile(plain, backend=BACKEND)


def test_a_tenth_trial_of_a_process_is_compiled_as_the_first_one_is(tmp_path):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), dropout=uniform(0.1, 0.5))
    study, recorder = tiny_study(num_trials=10, space=space, budget=StepBudget(5, 5)), TrialsRecorder()
    graphs = torch._dynamo.utils.counters["stats"]
    made = []
    for trial in planned_trials(study):
        before = graphs["unique_graphs"]
        update = train_alone(setting_for(study, tmp_path, Rates()), recorder, recorder.claim(trial))
        assert update.state.value == "complete", update.reason
        made.append(graphs["unique_graphs"] - before)
    assert made[0] > 0
    assert set(made) == {made[0]}, "torch compiles a function eight times, and then no more"


def test_a_second_size_is_compiled_by_itself(tmp_path):
    run = TrialRun(setting_for(tiny_study(), tmp_path, Whole()), planned_trials(tiny_study())[0])
    start_afresh()
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for size in (8, 9, 10):
        run.model(torch.randn(size, 6))
    assert graphs["unique_graphs"] == before + 3, "one for any size would have other bits"


def test_more_forms_than_are_compiled_are_an_error_and_no_silent_change(tmp_path):
    run = TrialRun(setting_for(tiny_study(), tmp_path, Whole()), planned_trials(tiny_study())[0])
    start_afresh()
    with torch._dynamo.config.patch(recompile_limit=2):
        for size in (8, 9):
            run.model(torch.randn(size, 6))
        with pytest.raises(Exception, match="recompile_limit"):
            run.model(torch.randn(10, 6))


class ForwardCompiled(nn.Linear):
    @torch.compile(backend=BACKEND)
    def forward(self, x):
        return super().forward(x)


OBSTACLES = {
    "whole": (lambda: torch.compile(nn.Linear(2, 2), backend=BACKEND), "the model is made by torch.compile"),
    "part": (
        lambda: nn.Sequential(torch.compile(nn.Linear(2, 2), backend=BACKEND)), "module 0 is made by torch.compile",
    ),
    "forward": (lambda: nn.Sequential(ForwardCompiled(2, 2)), "forward of module 0 is made by torch.compile"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OBSTACLES)
def test_a_group_is_refused_by_the_name_of_the_part_with_what_to_write(kind):
    make, told = OBSTACLES[kind]
    with pytest.raises(NotFusible, match=told) as caught:
        check_obstacles(make())
    assert "use the module itself" in str(caught.value)


def test_compiled_in_place_and_a_compiled_loss_are_refused_too():
    model = nn.Sequential(nn.Linear(2, 2))
    model.compile(backend=BACKEND)
    with pytest.raises(NotFusible, match=r"the model is made by torch\.compile"):
        check_obstacles(model)
    with pytest.raises(NotFusible, match=r"the loss is made by torch\.compile: use the function itself"):
        check_obstacles(nn.Linear(2, 2), torch.compile(F.mse_loss, backend=BACKEND))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("reentrant", "told"), [(False, "computed again for the gradient"), (True, "use_reentrant=True")]
)
def test_a_group_whose_activations_are_computed_again_is_refused_by_that_name(reentrant, told, tmp_path):
    class Recomputing(Tiny):
        def model(self, point):
            model = Blocks(reentrant)
            for block in model.blocks:
                block[2].p = 0.0
            return model

    study = tiny_study()
    setup = setting_for(study, tmp_path, Recomputing())
    with pytest.raises(NotFusible, match=told):
        make_group([TrialRun(setup, trial) for trial in planned_trials(study)])


DIGEST = """
import torch
from torch import nn
from tuner.training.value_digests import value_digest
model = torch.compile(nn.Linear(2, 2).requires_grad_(False).eval(), backend="aot_eager")
for parameter in model.parameters():
    parameter.zero_()
@torch.compile(backend="aot_eager")
def double(x):
    return 2 * x
def made():
    @torch.compile(backend="aot_eager")
    def triple(x):
        return 3 * x
    return triple
first = value_digest([model, double, made()])
model(torch.ones(1, 2))
print(first, first == value_digest([model, double, made()]))
"""


def test_a_compiled_module_has_one_identity_however_often_it_is_made():
    plain = nn.Linear(2, 2)
    first, second = (torch.compile(copy.deepcopy(plain), backend=BACKEND) for _ in range(2))
    third, fourth = copy.deepcopy(plain), copy.deepcopy(plain)
    for one in (third, fourth):
        one.compile(backend=BACKEND)
    found = value_digest(first)
    assert found == value_digest(second)
    assert value_digest(third) == value_digest(fourth) != value_digest(plain)
    assert found != value_digest(plain)
    assert found != value_digest(torch.compile(nn.Linear(2, 2), backend=BACKEND)), "other weights"


@pytest.mark.slow
def test_a_compiled_module_has_one_identity_in_every_process():
    found = [
        subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert found[0] == found[1]
    assert found[0].endswith("True\n")


def test_a_price_tells_what_compiling_takes(tmp_path):
    study = tiny_study()
    price = measured_price(setting_for(study, tmp_path, Whole()), planned_trials(study)[0])
    assert price.compile_ms > 10 * price.step_ms
    assert measured_price(setting_for(study, tmp_path, Tiny()), planned_trials(study)[0]).compile_ms == 0.0


def test_weights_are_handed_over_between_compiled_and_plain_models(tmp_path):
    for source, target in ((Whole(), Tiny()), (Tiny(), Whole())):
        first, second = source.model({}), target.model({})
        content = weights_as_file(state_dict_of(first))
        StartWeights(StageStart((Selected("", 0),)), contents=(content,)).into(second, {})
        mine, other = (list(state_dict_of(one).values()) for one in (first, second))
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


class Inductor(Tiny):
    """By torch's own compiler, which makes its kernels in C++."""

    def model(self, point):
        return torch.compile(super().model(point))


@pytest.mark.slow
@pytest.mark.needs("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_by_torchs_own_compiler_the_bits_are_the_same_resumed_and_in_another_process(tmp_path):
    straight, trial = trained(Inductor(), tmp_path / "straight")
    resumed, _ = trained(Inductor(), tmp_path / "resumed", stops=(3, 9))
    assert straight.of(trial)[-1].state.value == "complete", straight.of(trial)[-1].reason
    assert meaning(resumed, tmp_path / "resumed", trial) == meaning(straight, tmp_path / "straight", trial)
    assert straight.of(trial)[-1].numerics.values["compiler"].startswith("inductor, ")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kernels_that_are_chosen_by_timing_are_marked():
    model = torch.compile(nn.Linear(2, 2), mode="max-autotune")
    assert compiler_of(model, F.mse_loss, CPU).endswith("kernels chosen by timing")
    assert not repeats(compiler_of(model, F.mse_loss, CPU))
    assert repeats(compiler_of(torch.compile(nn.Linear(2, 2)), F.mse_loss, CPU))
    assert compiler_of(nn.Linear(2, 2), F.mse_loss, CPU) == ""


@ON_GPU[0]
@ON_GPU[1]
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_on_a_gpu_the_bits_of_compiled_kernels_are_the_same_when_resumed(tmp_path):
    device = torch.device("cuda", 0)
    study, trial = tiny_study(num_trials=1), planned_trials(tiny_study(num_trials=1))[0]
    found = []
    for folder, stops in (("straight", ()), ("resumed", (3,))):
        recorder = TrialsRecorder()
        for count in stops:
            setup = setting_for(study, tmp_path / folder, Inductor(), device, stop=StopAfter(count))
            train_alone(setup, recorder, recorder.claim(trial))
        train_alone(setting_for(study, tmp_path / folder, Inductor(), device), recorder, recorder.claim(trial))
        found.append(meaning(recorder, tmp_path / folder, trial))
    assert found[0] == found[1]
