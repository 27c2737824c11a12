"""Parameter groups in training: numbers by hand, the ratio of rates at every step, and what is refused before."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import CuttingRecorder, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import SearchSpace, by_depth, constant, cosine, log_uniform, matching, vectors
from tuner.design.prefix import base_digest
from tuner.errors import StudyChanged, WorkloadError
from tuner.records import GroupRecord, State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest, read_state
from tuner.training.groups import trained_groups
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun
from tuner.training.unread import unread

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), weight_decay=0.5, head_rate=log_uniform(0.1, 10.0))


class Grouped(Tiny):
    """The first layer slowly, the head at a searched rate, and no decay of vectors."""

    no_decay = "vectors"

    def parameter_groups(self, model, point):
        return [matching("4.*", rate=point["head_rate"]), matching("0.*", rate=0.25, decay=2.0)]


def run_of(workload, folder, values=None, **changes):
    study = tiny_study(**({"space": SPACE} | changes))
    trial = planned_trials(study)[0]
    return TrialRun(setting_for(study, folder, workload), replace(trial, point=trial.point.with_values(**values or {})))


# --- What the groups do to an update -----------------------------------------------------------------------------


class Two(Tiny):
    """Two numbers whose gradients are 2 and -3 at every step."""

    def model(self, point):
        module = nn.Module()
        module.a, module.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        return module

    def loss(self, model, batch, point):
        return (2.0 * model.a - 3.0 * model.b).sum()

    def parameter_groups(self, model, point):
        return [{"params": model.a, "rate": 0.5, "decay": 3.0}]


def test_two_steps_of_adamw_with_two_groups_are_those_worked_by_hand(tmp_path):
    # Adam's step for a gradient that stays the same is the rate, whatever the gradient's size. So, with rate 0.1 and
    # weight decay 0.5, a step takes a number p to p (1 - rate * decay) - rate * sign(gradient):
    #   b, rate 0.1, decay 0.5:  1 -> 1 * 0.95 + 0.1 = 1.05 -> 1.05 * 0.95 + 0.1 = 1.0975
    #   a, rate 0.05, decay 1.5: 1 -> 1 * 0.925 - 0.05 = 0.875 -> 0.875 * 0.925 - 0.05 = 0.759375
    values = {"learning_rate": 0.1, "weight_decay": 0.5}
    run = run_of(Two(), tmp_path, values, schedule=constant(), warmup_steps=0)
    for expected in ((0.875, 1.05), (0.759375, 1.0975)):
        run.advance(run.step + 1)
        assert (run.model.a.item(), run.model.b.item()) == pytest.approx(expected, rel=1e-6)


class Bowl(Two):
    """Gradients change from step to step: those of a quadratic bowl."""

    def loss(self, model, batch, point):
        return (model.a.square() + 3.0 * (model.b - 2.0).square()).sum()


def test_adamw_with_groups_is_the_formula_in_float64_under_a_schedule(tmp_path):
    point = {"learning_rate": 0.05, "weight_decay": 0.2, "one_minus_beta1": 0.2, "one_minus_beta2": 0.01}
    run = run_of(Bowl(), tmp_path, point, schedule=cosine(), warmup_steps=4)
    values, means, squares = [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]
    for step, rate in enumerate(run.rates, start=1):
        gradients = [2.0 * values[0], 6.0 * (values[1] - 2.0)]
        for i, (multiple, decay) in enumerate([(0.5, 3.0), (1.0, 1.0)]):
            mine = multiple * rate
            means[i] = 0.8 * means[i] + 0.2 * gradients[i]
            squares[i] = 0.99 * squares[i] + 0.01 * gradients[i] ** 2
            corrected = math.sqrt(squares[i] / (1.0 - 0.99**step)) + 1e-8
            values[i] *= 1.0 - mine * 0.2 * decay
            values[i] -= mine * means[i] / (1.0 - 0.8**step) / corrected
        run.advance(step)
        assert [run.model.a.item(), run.model.b.item()] == pytest.approx(values, rel=1e-5)


def test_the_ratio_of_the_rates_is_kept_at_every_step_of_warmup_and_decay_and_through_a_resume(tmp_path):
    run = run_of(Grouped(), tmp_path, schedule=cosine(), warmup_steps=6)
    multiples = [group.rate for group in run.groups]
    assert multiples == [run.point["head_rate"], run.point["head_rate"], 0.25, 0.25, 1.0]
    assert len(set(run.rates)) > 20, "the rate changes all the time"
    for step in range(len(run.rates)):
        if step in (3, 11):
            saved, run = run.state(), run.fresh()
            run.load(saved)
        run.advance(step + 1)
        groups = run.optimizer.param_groups
        assert [group["lr"] for group in groups] == [multiple * run.rates[step] for multiple in multiples]
        assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 1.0, 0.0, 0.0]


def test_the_multiples_go_along_to_a_longer_budget(tmp_path):
    study = tiny_study(space=SPACE)
    trial = planned_trials(study)[0]
    longer = replace(trial, schedule=constant().schedule(96))
    for one in (trial, longer):
        run = TrialRun(setting_for(study, tmp_path, Grouped()), one)
        run.advance(2)
        head, rest = run.optimizer.param_groups[0], run.optimizer.param_groups[-1]
        assert head["lr"] / rest["lr"] == pytest.approx(run.point["head_rate"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_trial_with_groups_that_is_stopped_at_any_step_has_the_same_bits(optimizer, tmp_path):
    study = tiny_study(optimizer=optimizer, space=SPACE)
    (trial, *_) = planned_trials(study)

    def trained(folder, stops):
        recorder = MemoryRecorder()
        for stop in [*stops, None]:
            changes = {} if stop is None else {"stop": StopAt(stop + 1)}
            update = train_alone(setting_for(study, folder, Grouped(), **changes), recorder, recorder.claim(trial))
        assert update.state is State.COMPLETE
        latest = next(kept for kept in recorder.checkpoints if kept.kind == "latest")
        return recorder.measurements, canonical_digest(read_state(folder, latest)), update.groups

    whole = trained(tmp_path / "whole", [])
    for stop in range(0, 24, 5):
        assert trained(tmp_path / str(stop), [stop]) == whole


class Equal(Grouped):
    """Groups of the same multiples, in another order than the model's."""

    no_decay = None

    def parameter_groups(self, model, point):
        return [matching("4.*"), {"params": model[0].named_parameters()}]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_groups_with_multiples_of_one_change_no_bit(optimizer, tmp_path):
    grouped, plain = (run_of(one, tmp_path, optimizer=optimizer) for one in (Equal(), Tiny()))
    grouped.advance(9)
    plain.advance(9)
    assert canonical_digest(grouped.weights()) == canonical_digest(plain.weights())
    assert [len(group["params"]) for group in grouped.optimizer.param_groups] == [2, 2, 2]


def test_a_workload_without_groups_has_the_optimizer_and_the_state_of_before(tmp_path):
    run = run_of(Tiny(), tmp_path)
    assert run.groups == ()
    assert "groups" not in run.state()
    (group,) = run.optimizer.param_groups
    assert "lr_factor" not in group
    assert [id(one) for one in group["params"]] == [id(one) for one in run.model.parameters()]


# --- The page ----------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/how-to/parameter-groups.md").read_text(encoding="utf-8")
HOOKS = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def parameter_groups" in block]


class Vision(nn.Module):
    """A vision transformer's names, with three blocks."""

    def __init__(self, width=8):
        super().__init__()
        self.patch_embed, self.pos_embed = nn.Linear(4, width), nn.Parameter(torch.zeros(1, 2, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(nn.MultiheadAttention(width, 2) for _ in range(3))
        self.head = nn.Linear(width, 2)


@pytest.mark.parametrize("place", range(4))
def test_the_groups_of_the_page_are_what_it_says(place):
    words = {"matching": matching, "vectors": vectors, "by_depth": by_depth, "nn": nn}
    exec(HOOKS[place], words)  # the page's own code
    workload = type("Page", (Tiny,), {"parameter_groups": words["parameter_groups"]})()
    point = {"head_rate": 10.0, "depth_decay": 0.8, "width": 256}
    rates = {
        name: (group.record.rate, group.record.decay)
        for group in trained_groups(workload, Vision(), point)
        for name in group.record.parameters
    }
    said = [
        {"head.weight": (10.0, 1.0), "head.bias": (10.0, 1.0), "patch_embed.weight": (1.0, 1.0)},
        {
            "pos_embed": (pytest.approx(0.512), 1.0),
            "patch_embed.bias": (pytest.approx(0.512), 1.0),
            "blocks.0.in_proj_weight": (pytest.approx(0.64), 1.0),
            "blocks.1.out_proj.bias": (0.8, 1.0),
            "blocks.2.in_proj_bias": (1.0, 1.0),
            "head.weight": (1.0, 1.0),
        },
        {"blocks.1.out_proj.weight": (0.25, 4.0), "blocks.1.out_proj.bias": (1.0, 1.0), "head.weight": (1.0, 1.0)},
        {"blocks.0.in_proj_weight": (0.5, 1.0), "head.bias": (1.0, 0.0), "head.weight": (1.0, 1.0)},
    ]
    assert {name: rates[name] for name in said[place]} == said[place]
    assert len(HOOKS) == len(said)


# --- What a trial got is recorded --------------------------------------------------------------------------------


def test_what_each_group_got_is_recorded_with_the_trial(tmp_path):
    study = tiny_study(space=SPACE)
    (trial, *_) = planned_trials(study)
    recorder = MemoryRecorder()
    update = train_alone(setting_for(study, tmp_path, Grouped()), recorder, recorder.claim(trial))
    rate = trial.point["head_rate"]
    assert update.groups == (
        GroupRecord("4.*", rate, 1.0, 24, ("4.weight",)),
        GroupRecord("4.*, vectors", rate, 0.0, 2, ("4.bias",)),
        GroupRecord("0.*", 0.25, 2.0, 72, ("0.weight",)),
        GroupRecord("0.*, vectors", 0.25, 0.0, 12, ("0.bias",)),
        GroupRecord("all others", 1.0, 0.0, 24, ("1.weight", "1.bias")),
    )
    plain = MemoryRecorder()
    assert train_alone(setting_for(study, tmp_path / "plain"), plain, plain.claim(trial)).groups == ()


def test_a_state_of_other_groups_is_not_gone_on_from(tmp_path):
    run = run_of(Grouped(), tmp_path)
    run.advance(4)
    state = run.state()
    other = run.fresh()
    other.groups = (*other.groups[:-1], replace(other.groups[-1], rate=2.0))
    with pytest.raises(StudyChanged, match=r"1\.weight had rate 1 and decay 0, and has 2 and 0"):
        other.load(state)
    swapped = run.fresh()
    swapped.groups = (swapped.groups[2], swapped.groups[1], swapped.groups[0], *swapped.groups[3:])
    with pytest.raises(StudyChanged, match=r"[04]\.weight is in another group"):
        swapped.load(state)
    with pytest.raises(StudyChanged, match="5 groups then, 0 now"):
        run_of(Tiny(), tmp_path).load(state)
    of_other_code = run_of(Tiny(), tmp_path)
    of_other_code.base = "another"
    with pytest.raises(ValueError, match="its parameters are grouped otherwise now: 5 groups then, 0 now"):
        of_other_code.load(state)


class Slower(Grouped):
    """Another version of the code, with other multiples."""

    def parameter_groups(self, model, point):
        return [matching("4.*", rate=0.5), matching("0.*", rate=0.25, decay=2.0)]


def test_a_trial_of_changed_code_with_other_groups_begins_again(tmp_path, caplog):
    study = tiny_study(space=SPACE)
    (trial, *_) = planned_trials(study)
    fresh, recorder = MemoryRecorder(), CuttingRecorder()
    train_alone(setting_for(study, tmp_path / "fresh", Slower(), fingerprint="new"), fresh, fresh.claim(trial))
    stopped = setting_for(study, tmp_path / "changed", Grouped(), fingerprint="old", stop=StopAt(13))
    train_alone(stopped, recorder, recorder.claim(trial))
    changed = setting_for(study, tmp_path / "changed", Slower(), fingerprint="new")
    update = train_alone(changed, recorder, recorder.claim(trial))
    assert "its parameters are grouped otherwise now: 4.weight had rate" in caplog.text
    assert (update.state, update.groups[0].rate) == (State.COMPLETE, 0.5)
    assert recorder.measurements == fresh.measurements


def test_the_rate_of_a_group_that_is_searched_is_part_of_what_a_prefix_stands_for(tmp_path):
    study = tiny_study(space=SPACE)
    first = planned_trials(study)[0]
    other = replace(first, point=first.point.with_values(head_rate=1.0))
    assert base_digest(study, first, "code") != base_digest(study, other, "code")


def test_a_hyperparameter_that_only_the_groups_read_is_read(tmp_path):
    study = tiny_study(space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), head_rate=2.0, tail_rate=2.0))
    assert unread(setting_for(study, tmp_path, Grouped()), planned_trials(study)[0]) == ["tail_rate"]


# --- What is refused before anything is trained ------------------------------------------------------------------


def declaring(groups):
    """A workload whose groups are `groups(model)`."""

    class Declaring(Tiny):
        def parameter_groups(self, model, point):
            return groups(model)

    return Declaring()


BAD = {
    "lr": (lambda m: [{"params": m.parameters(), "lr": 0.1}],
           r"Declaring.parameter_groups: group 1 has 'lr'.*rate of each step is the schedule's: write rate="),
    "weight decay": (lambda m: [{"params": m.parameters(), "weight_decay": 0.1}], "is the point's: write decay="),
    "betas": (lambda m: [{"params": m.parameters(), "betas": (0.9, 0.9)}], "'betas'.*declare it in the search space"),
    "no params": (lambda m: [{"rate": 2.0}], "group 1 has no 'params'"),
    "params used up": (lambda m: [{"params": iter(())}], "params of group 1 has no parameter; an iterator"),
    "a module": (lambda m: [{"params": m[0], "rate": 2.0}], r"is a module \(Linear\): write its \.parameters\(\)"),
    "a set": (lambda m: [{"params": set(m.parameters())}], "must be a list of parameters, got set"),
    "a number": (lambda m: [{"params": [0.1]}], "must have parameters only, got float: 0.1"),
    "another model's": (lambda m: [{"params": [nn.Parameter(torch.zeros(3))]}], r"form \(3,\) that is no parameter"),
    "twice": (lambda m: [{"params": [m[0].bias, m[0].bias]}], "params of group 1 has 0.bias twice"),
    "in two": (lambda m: [{"params": [m[0].bias]}, {"params": m[0].parameters()}],
               "0.bias is in params of group 1 and of group 2"),
    "a rate of 0": (lambda m: [{"params": m[0].parameters(), "rate": 0}], "rate of group 1 is 0.*requires_grad_"),
    "a bool": (lambda m: [{"params": m[0].parameters(), "rate": True}], "rate of group 1 must be a number"),
    "a negative decay": (lambda m: [{"params": m[0].parameters(), "decay": -1.0}], "decay of group 1 must be finite"),
    "one word": (lambda m: vectors(decay=0.0), "must return a list of groups, got Vectors"),
    "nothing": (lambda m: None, "must return a list of groups, got NoneType"),
    "parameters": (lambda m: m.parameters(), r"group 1 must be made by vectors.*got Parameter of the form \(12, 6\)"),
    "a pattern": (lambda m: [matching("5.*")], r"Declaring.parameter_groups: matching\(\"5\.\*\"\): no parameter"),
    "an error": (lambda m: m.head, "Declaring.parameter_groups failed with AttributeError: .*'head'"),
    "an index": (lambda m: [m[9]], "Declaring.parameter_groups failed with IndexError"),
    "frozen late": (lambda m: [m[0].requires_grad_(False)][:0], r"changes requires_grad.*freeze them in model\(\)"),
    "replaced": (lambda m: [setattr(m[0], "bias", nn.Parameter(torch.zeros(12)))][:0], "replaces parameters"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_declaration_that_does_not_go_with_the_model_is_refused_with_the_way_out(name, tmp_path):
    groups, told = BAD[name]
    with pytest.raises(WorkloadError, match=told):
        check_workload(setting_for(tiny_study(), tmp_path, declaring(groups)), planned_trials(tiny_study())[0])


def test_a_name_that_the_point_lacks_is_told_as_such(tmp_path):
    with pytest.raises(WorkloadError, match="Grouped asks its point for 'head_rate', which the search space does not"):
        check_workload(setting_for(tiny_study(), tmp_path, Grouped()), planned_trials(tiny_study())[0])


def test_no_decay_is_vectors_or_nothing(tmp_path):
    class Biases(Tiny):
        no_decay = "bias"

    with pytest.raises(WorkloadError, match=r"Biases.no_decay is 'bias'.*matching\('...', decay=0.0\)"):
        run_of(Biases(), tmp_path)


def test_what_torch_takes_as_params_is_taken(tmp_path):
    for params in (lambda m: m[0].weight, lambda m: [m[0].weight], lambda m: (p for p in [m[0].weight]),
                   lambda m: [("any name", m[0].weight)]):  # fmt: skip
        workload = declaring(lambda m, params=params: iter([{"params": params(m), "rate": 2.0}]))
        first, rest = run_of(workload, tmp_path).groups
        assert (first.name, first.parameters, first.rate, len(rest.parameters)) == ("group 1", ("0.weight",), 2.0, 5)


class Tied(Tiny):
    """A head that is the embedding; the bias is frozen."""

    def model(self, point):
        model = nn.ModuleDict({"embed": nn.Linear(6, 6, bias=False), "head": nn.Linear(6, 6), "out": nn.Linear(6, 2)})
        model["head"].weight = model["embed"].weight
        model["head"].bias.requires_grad_(False)
        return model

    def loss(self, model, batch, point):
        return super().loss(lambda x: model["out"](model["head"](model["embed"](x))), batch, point)

    def parameter_groups(self, model, point):
        return [{"params": model["head"].parameters(), "rate": 3.0}, matching("embed.*|out.bias", rate=2.0)]


def test_a_tied_parameter_is_in_one_group_and_a_frozen_one_in_none(tmp_path):
    model = Tied().model({})
    groups = trained_groups(Tied(), model, {})
    assert [(one.record.rate, one.record.parameters) for one in groups] == [
        (3.0, ("embed.weight",)), (2.0, ("out.bias",)), (1.0, ("out.weight",)),
    ]  # fmt: skip
    inside = [id(parameter) for group in groups for parameter in group.parameters]
    trained = [parameter for _, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(inside) == sorted(map(id, trained))
    run = run_of(Tied(), tmp_path, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))
    run.advance(2)
    assert run.model["head"].weight is run.model["embed"].weight


def test_rates_by_depth_reach_the_optimizer(tmp_path):
    groups = run_of(declaring(lambda m: [by_depth("{}", 0.5)]), tmp_path).optimizer.param_groups
    assert [(group.get("lr_factor", 1.0), len(group["params"])) for group in groups] == [(0.25, 2), (0.5, 2), (1.0, 2)]
