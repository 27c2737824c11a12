"""Every optimizer against formulas written here from the papers, in float64; what it keeps; what it is refused for."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, Splits, Workload, log_uniform, matching, vectors
from tuner.design.optimizers import OPTIMIZERS, ParameterGroup, one_group, optimizer_named
from tuner.errors import NotFusible, WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.training.compiler import plain_step
from tuner.training.optimizers import make_optimizer, settle_sparse, state_bytes
from tuner.training.preflight import check_workload, checkpoint_bytes
from tuner.training.trial_run import TrialRun

STEPS = 50

# --- Second implementations: one update of one weight array w with gradient g, at step t from 1; s keeps state. -------


def sgd(w, g, s, t, rate, decay, momentum, nesterov):
    g = g + decay * w
    s["b"] = g if t == 1 else momentum * s["b"] + g
    return w - rate * (g + momentum * s["b"] if nesterov else s["b"])


def moments(g, s, beta1, beta2):
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g**2
    return s["m"], s["v"]


def adam(w, g, s, t, rate, decay, beta1, beta2, eps):
    m, v = moments(g + decay * w, s, beta1, beta2)
    return w - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


def adamw(w, g, s, t, rate, decay, beta1, beta2, eps):
    return adam(w, g, s, t, rate, 0.0, beta1, beta2, eps) - rate * decay * w


def nadam(w, g, s, t, rate, decay, beta1, beta2, eps, momentum_decay):
    """Dozat 2016, with weight decay apart from the gradient."""
    before, w = w, w * (1 - rate * decay)
    assert before.shape == w.shape
    m, v = moments(g, s, beta1, beta2)
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * mu
    look_ahead = following * m / (1 - s["product"] * following) + (1 - mu) * g / (1 - s["product"])
    return w - rate * look_ahead / (np.sqrt(v / (1 - beta2**t)) + eps)


def radam(w, g, s, t, rate, decay, beta1, beta2, eps):
    """Liu et al. 2020: plain momentum until the variance of the adaptive rate can be told."""
    m, v = moments(g + decay * w, s, beta1, beta2)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    update = m / (1 - beta1**t)
    if length > 5:
        known = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        update = update * math.sqrt(known) * math.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
    return w - rate * update


def adagrad(w, g, s, t, rate, decay, initial, eps):
    g = g + decay * w
    s["sum"] = s.get("sum", initial) + g**2
    return w - rate * g / (np.sqrt(s["sum"]) + eps)


def rmsprop(w, g, s, t, rate, decay, alpha, eps, momentum):
    """Graves 2013, equations 38 to 41: centered."""
    g = g + decay * w
    s["square"] = alpha * s.get("square", 0.0) + (1 - alpha) * g**2
    s["mean"] = alpha * s.get("mean", 0.0) + (1 - alpha) * g
    s["b"] = momentum * s.get("b", 0.0) + g / (np.sqrt(s["square"] - s["mean"] ** 2) + eps)
    return w - rate * s["b"]


def adafactor(w, g, s, t, rate, decay, beta2_decay, eps1, eps2, threshold):
    """Shazeer and Stern 2018, algorithm 4, with means instead of sums, and the rate as the cap of the relative step."""
    share = t**beta2_decay
    size = max(eps2, math.sqrt((w**2).mean())) * min(rate, 1 / math.sqrt(t))
    w = w * (1 - rate * decay)
    if g.ndim > 1:
        s["r"] = (1 - share) * s.get("r", 0.0) + share * (g**2).mean(-1, keepdims=True)
        s["c"] = (1 - share) * s.get("c", 0.0) + share * (g**2).mean(-2, keepdims=True)
        v = s["r"] * s["c"] / max(s["r"].mean(), eps1)
    else:
        s["v"] = v = (1 - share) * s.get("v", 0.0) + share * g**2
    update = g / np.maximum(np.sqrt(v), eps1)
    return w - size * update / max(1.0, math.sqrt((update**2).mean()) / threshold)


def lion(w, g, s, t, rate, decay, beta1, beta2):
    """Chen et al. 2023, algorithm 2."""
    m = s.get("m", np.zeros_like(g))
    s["m"] = beta2 * m + (1 - beta2) * g
    return w - rate * (np.sign(beta1 * m + (1 - beta1) * g) + decay * w)


def orthogonal(m):
    """m with singular values near 1: five Newton-Schulz steps of Jordan et al. 2024, in the precision of m."""
    turned = m.T if m.shape[0] > m.shape[1] else m
    x = turned / np.linalg.norm(turned)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if turned is not m else x


def muon(w, g, s, t, rate, decay, momentum, beta1, beta2, eps):
    """A matrix as Liu et al. 2025, equation 4, with Nesterov's momentum; a vector by AdamW at a third of the rate."""
    if w.ndim < 2:
        return adamw(w, g, s, t, rate / 3, decay, beta1, beta2, eps)
    s["b"] = momentum * s.get("b", 0.0) + (1 - momentum) * g
    update = orthogonal((1 - momentum) * g + momentum * s["b"])
    return w * (1 - rate * decay) - rate * 0.2 * math.sqrt(max(w.shape)) * update


def schedule_free(w, g, s, t, rate, decay, beta1, beta2, eps):
    """Defazio et al. 2024, algorithm 1, of y, x and z, as they are defined; weights by the largest rate so far."""
    z, x = s.get("z", w), s.get("x", w)
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g**2
    s["rate"] = max(rate, s.get("rate", 0.0))
    s["sum"] = s.get("sum", 0.0) + s["rate"] ** 2
    share = s["rate"] ** 2 / s["sum"]
    s["z"] = z - rate * (g / (np.sqrt(s["v"] / (1 - beta2**t)) + eps) + decay * w)
    s["x"] = (1 - share) * x + share * s["z"]
    return (1 - beta1) * s["z"] + beta1 * s["x"]


BETAS = {"one_minus_beta1": 0.2, "one_minus_beta2": 0.03, "epsilon": 1e-6}
# The settings of a point, the second implementation, and its arguments.
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "sgd": ({"momentum": 0.8, "nesterov": True}, sgd, {"momentum": 0.8, "nesterov": True}),
    "adam": (BETAS, adam, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6}),
    "adamw": (BETAS, adamw, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6}),
    "nadam": (
        {**BETAS, "momentum_decay": 0.01, "decoupled_weight_decay": True},
        nadam, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6, "momentum_decay": 0.01},
    ),
    "radam": (BETAS, radam, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6}),
    "adagrad": ({"initial_accumulator": 0.3, "epsilon": 1e-6}, adagrad, {"initial": 0.3, "eps": 1e-6}),
    "rmsprop": (
        {"one_minus_alpha": 0.05, "epsilon": 1e-4, "momentum": 0.7, "centered": True},
        rmsprop, {"alpha": 0.95, "eps": 1e-4, "momentum": 0.7},
    ),
    "adafactor": (
        {"beta2_decay": -0.6, "epsilon": 0.4, "epsilon2": 1.3, "clip_threshold": 1.2},
        adafactor, {"beta2_decay": -0.6, "eps1": 0.4, "eps2": 1.3, "threshold": 1.2},
    ),
    "lion": ({"one_minus_beta1": 0.2, "one_minus_beta2": 0.03}, lion, {"beta1": 0.8, "beta2": 0.97}),
    "adamw_8bit": (BETAS, adamw, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6}),
    "muon": (
        {**BETAS, "one_minus_momentum": 0.1, "adamw_rate": 1 / 3},
        muon, {"momentum": 0.9, "beta1": 0.8, "beta2": 0.97, "eps": 1e-6},
    ),
    "schedule_free_adamw": (BETAS, schedule_free, {"beta1": 0.8, "beta2": 0.97, "eps": 1e-6}),
}  # fmt: skip
# NAdam counts in float32; bitsandbytes computes in float32, Muon multiplies in bfloat16, whatever the weights are.
TOLERANCES = {"nadam": (1e-6, 1e-12), "adamw_8bit": (1e-4, 1e-5), "muon": (0.0, 0.02)}
INSTALLED = [
    pytest.param(name, marks=pytest.mark.needs("bitsandbytes")) if name == "adamw_8bit" else name for name in CASES
]
RATES = [0.02 * (1 + t % 7) for t in range(STEPS)]


def test_every_optimizer_of_the_package_is_compared():
    assert set(CASES) == {spec.name for spec in OPTIMIZERS.own}


@pytest.mark.parametrize("name", INSTALLED)
def test_fifty_updates_are_those_of_a_second_implementation(name):
    """Two groups: a matrix at the full rate and decay, a vector at half the rate without decay."""
    settings, update, arguments = CASES[name]
    generator = np.random.default_rng(3)
    shapes, multiples = [(5, 4), (7,)], [(1.0, 1.0), (0.5, 0.0)]
    weights = [generator.normal(size=shape) for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    groups = [
        ParameterGroup(params=[one], rate=rate, decay=decay)
        for one, (rate, decay) in zip(parameters, multiples, strict=True)
    ]
    optimizer = make_optimizer(name, groups, {**settings, "weight_decay": 0.1}, RATES[0])
    step, states = plain_step(optimizer), [{}, {}]
    for t, rate in enumerate(RATES, 1):
        gradients = [generator.normal(size=shape) for shape in shapes]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1.0)
        step()
        weights = [
            update(w, g, s, t, rate * times, 0.1 * decay, **arguments)
            for w, g, s, (times, decay) in zip(weights, gradients, states, multiples, strict=True)
        ]
    for parameter, weight in zip(parameters, weights, strict=True):
        rtol, atol = TOLERANCES.get(name, (1e-9, 1e-12))
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=rtol, atol=atol)
    if (shows := OPTIMIZERS.get(name).shows) is not None:
        with shows(optimizer):
            shown = [parameter.detach().clone().numpy() for parameter in parameters]
        for average, state in zip(shown, states, strict=True):
            np.testing.assert_allclose(average, state["x"], rtol=1e-9, atol=1e-12)


# --- What it keeps ------------------------------------------------------------------------------------------------

# What its record says, and by settings the bytes of state for each of 6 x 40 float32 weights of a matrix.
KEPT: dict[str, tuple[str, list[tuple[dict[str, Any], float]]]] = {
    "sgd": ("none, 4 with momentum", [({}, 0.0), ({"one_minus_momentum": 0.1}, 4.0)]),
    "adam": ("8", [({}, 8.0)]),
    "adamw": ("8", [({}, 8.0)]),
    "nadam": ("8", [({}, 8.0)]),
    "radam": ("8", [({}, 8.0)]),
    "adagrad": ("4", [({}, 4.0)]),
    "rmsprop": (
        "4, and 4 more each with momentum and centered",
        [({}, 4.0), ({"momentum": 0.5}, 8.0), ({"centered": True}, 8.0), ({"momentum": 0.5, "centered": True}, 12.0)],
    ),
    "adafactor": (
        "4 (rows + columns) / (rows x columns) of a matrix, 4 of a vector", [({}, 4 * (6 + 40) / (6 * 40))]
    ),
    "lion": ("4", [({}, 4.0)]),
    "adamw_8bit": ("2.03, 8 in a tensor of fewer than 4,096 values", [({}, 8.0)]),
    "muon": ("4 of a hidden layer's matrix, 8 of all else", [({}, 4.0)]),
    "schedule_free_adamw": ("8", [({}, 8.0)]),
}  # fmt: skip
COUNTERS = 8  # bytes a parameter: a step, and NAdam's product


@pytest.mark.parametrize("name", INSTALLED)
def test_the_bytes_of_its_state_are_known_before_a_step_and_said_in_its_record(name):
    words, kept_of = KEPT[name]
    assert OPTIMIZERS.get(name).state == words
    for settings, each in kept_of:
        weight = nn.Parameter(torch.randn(6, 40))
        optimizer = make_optimizer(name, one_group([weight]), settings, 0.1)
        told = state_bytes(optimizer)
        assert weight.grad is None
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        kept = [one for state in optimizer.state.values() for one in state.values() if isinstance(one, torch.Tensor)]
        assert told == sum(one.nbytes for one in kept)
        assert 240 * each <= told <= 240 * each + COUNTERS


# --- Sparse gradients ---------------------------------------------------------------------------------------------


def table(sparse):
    torch.manual_seed(0)
    return nn.Embedding(6, 3, sparse=sparse)


def trained(name, sparse, settings, steps=20):
    model, generator = table(sparse), torch.Generator().manual_seed(1)
    optimizer = make_optimizer(name, one_group(model.parameters()), settings, 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        rows = torch.randint(0, 4, (5,), generator=generator)  # rows 4 and 5 never have a gradient
        model(rows).square().sum().backward()
        settle_sparse(optimizer, list(model.parameters()))
        optimizer.step()
    return model.weight.detach(), optimizer


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"initial_accumulator": 0.5}])
def test_adagrad_of_sparse_gradients_is_that_of_dense_ones(settings):
    sparse, optimizer = trained("adagrad", True, settings)
    dense, _ = trained("adagrad", False, settings)
    torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-7)
    assert optimizer.state[next(iter(optimizer.state))]["sum"].layout is torch.strided


def test_a_sparse_step_of_adagrad_by_hand():
    """Row 1 has the gradients (3, 0) and (1, 4): together (4, 4); the squares 16; each weight moves by 0.1 * 4 / 4."""
    weight = nn.Parameter(torch.zeros(3, 2))
    optimizer = make_optimizer("adagrad", one_group([weight]), {}, 0.1)
    weight.grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 1]]), torch.tensor([[3.0, 0.0], [1.0, 4.0]]), (3, 2), check_invariants=True
    )
    settle_sparse(optimizer, [weight])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.0, 0.0], [-0.1, -0.1], [0.0, 0.0]]))


@pytest.mark.parametrize("name", ["adam", "lion"])
def test_who_takes_no_sparse_gradients_names_who_does(name):
    with pytest.raises(TypeError, match=f"{name} takes no sparse gradients.*'adagrad', 'sgd', or torch.optim.Spars"):
        trained(name, True, {}, steps=1)


# --- What a study makes itself ------------------------------------------------------------------------------------


class TwoGroups(Tiny):
    """The last layer at ten times the rate, vectors without decay."""

    def parameter_groups(self, model, point):
        return [vectors(decay=0.0), matching("4.*", rate=10.0)]


def hands_on(groups, point):
    return torch.optim.RMSprop(groups, momentum=0.5)


def of_the_rate_of_the_point(groups, point):
    parameters = [parameter for group in groups for parameter in group["params"]]
    return torch.optim.SGD(parameters, lr=point["learning_rate"])


def with_multiples_of_its_own(groups, point):
    (everything,) = groups
    first, *rest = everything["params"]
    return torch.optim.SGD([{"params": [first], "lr_factor": 0.1, "lr": 0.1 * everything["lr"]}, {"params": rest}],
                           lr=everything["lr"])  # fmt: skip


def rate_of_its_own(groups, point):
    return torch.optim.SGD([parameter for group in groups for parameter in group["params"]], lr=0.3)


def leaves_out(groups, point):
    return torch.optim.SGD(groups[0]["params"][1:], lr=point["learning_rate"])


def takes_another(groups, point):
    return torch.optim.SGD([*groups, {"params": [torch.zeros(3, requires_grad=True)]}], lr=groups[0]["lr"])


def with_a_schedule(groups, point):
    made = torch.optim.SGD(groups)
    return [made], [torch.optim.lr_scheduler.StepLR(made, 10)]


def a_class(groups, point):
    return torch.optim.SGD


def nothing(groups, point):
    return None


def asks_for_more(groups, point):
    return torch.optim.SGD(groups, momentum=point["momentum"])


class SharpnessAware(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None, "SharpnessAware needs a closure"


def asserts_a_closure(groups, point):
    return SharpnessAware(groups)


def prepared(given, tmp_path, workload=None, **space):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **space)
    study = tiny_study(optimizer=optimizer_named(given), space=space)
    return setting_for(study, tmp_path, workload), planned_trials(study)[0]


@pytest.mark.parametrize(
    ("given", "workload"),
    [
        (hands_on, Tiny()),
        (hands_on, TwoGroups()),
        (of_the_rate_of_the_point, Tiny()),
        (with_multiples_of_its_own, Tiny()),
        (torch.optim.RMSprop, TwoGroups()),
        (torch.optim.Rprop, Tiny()),
    ],
)
def test_what_a_study_makes_itself_is_tried_saved_and_loaded(given, workload, tmp_path):
    setting, trial = prepared(given, tmp_path, workload)
    check_workload(setting, trial)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "workload", "message"),
    [
        (
            rate_of_its_own,
            Tiny(),
            r"function test_optimizers\.rate_of_its_own sets the learning rate 0\.3, .* as \"lr_f",
        ),
        (of_the_rate_of_the_point, TwoGroups(), r"loses the rate 10 of a parameter group; .* with their \"lr_factor\""),
        (leaves_out, Tiny(), r"leaves out parameters of the model: 0\.weight; hand on all groups"),
        (takes_another, Tiny(), r"takes tensors that are no trained parameters of the model: one of the form \(3,\)"),
        (
            with_a_schedule,
            Tiny(),
            r"must build a torch\.optim\.Optimizer, got a tuple; the optimizer alone: the schedule is",
        ),
        (a_class, Tiny(), "got <class 'torch.optim.sgd.SGD'>; call the class with the groups"),
        (nothing, Tiny(), r"the function test_optimizers\.nothing must build a torch\.optim\.Optimizer, got None"),
        (
            asks_for_more,
            Tiny(),
            r"^the optimizer test_optimizers\.asks_for_more cannot be made: KeyError: 'momentum', which the search "
            "space does not declare; there are: learning_rate",
        ),
        (torch.optim.SparseAdam, Tiny(), "the optimizer's step failed with RuntimeError: SparseAdam does not support"),
        (asserts_a_closure, Tiny(), "the optimizer's step failed with AssertionError: SharpnessAware needs a closure"),
    ],
)
def test_what_cannot_train_is_one_error_before_anything_is_trained(given, workload, message, tmp_path):
    with pytest.raises(WorkloadError, match=message) as raised:
        check_workload(*prepared(given, tmp_path, workload))
    assert "\n" not in str(raised.value)


def loses_decay(groups, point):
    return torch.optim.SGD([{**group, "weight_decay": 0.0} for group in groups])


def test_a_weight_decay_that_gets_lost_is_refused(tmp_path):
    class HalfDecay(Tiny):
        def parameter_groups(self, model, point):
            return [matching("0.*", decay=0.5)]

    with pytest.raises(WorkloadError, match=r"loses the weight decay 0\.05 of a parameter group"):
        check_workload(*prepared(loses_decay, tmp_path, HalfDecay(), weight_decay=0.1))


def test_a_class_is_called_with_what_the_point_has_of_its_keywords_and_without_weight_decay(tmp_path):
    setting, trial = prepared(torch.optim.AdamW, tmp_path, eps=1e-6)
    made = TrialRun(setting, trial).optimizer
    assert (made.defaults["eps"], made.defaults["weight_decay"], made.defaults["betas"]) == (1e-6, 0.0, (0.9, 0.999))
    setting, trial = prepared(torch.optim.AdamW, tmp_path, TwoGroups(), weight_decay=0.2)
    groups = TrialRun(setting, trial).optimizer.param_groups
    assert {(group["weight_decay"], group.get("lr_factor", 1.0)) for group in groups} >= {(0.0, 1.0), (0.2, 10.0)}


class Words(Tiny):
    """Whole numbers of six words and their sum, by an embedding with sparse gradients alone."""

    def model(self, point):
        return nn.Sequential(nn.EmbeddingBag(20, 2, mode="sum", sparse=True))

    def data(self):
        x = torch.randint(0, 20, (80, 6), generator=torch.Generator().manual_seed(0))
        y = (x.sum(1) > 57).long()
        return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))

    augment = Workload.augment


@pytest.mark.parametrize("given", ["adagrad", torch.optim.SparseAdam, torch.optim.Adagrad, "sgd"])
def test_sparse_gradients_train_alone_and_resume_and_are_refused_in_a_group(given, tmp_path):
    study = tiny_study(
        optimizer=optimizer_named(given), space=SearchSpace(learning_rate=log_uniform(1e-2, 1e-1)), num_trials=2
    )
    trials = planned_trials(study)
    check_workload(setting_for(study, tmp_path, Words()), trials[0])
    assert checkpoint_bytes(TrialRun(setting_for(study, tmp_path, Words()), trials[0])) >= 2 * 160
    alone = trained_alone(setting_for(study, tmp_path / "alone", Words()), trials)
    recorder = trained_alone(setting_for(study, tmp_path / "stopped", Words(), stop=StopAt(14)), trials[:1])
    trained_alone(setting_for(study, tmp_path / "stopped", Words()), trials[:1], recorder)
    one, other = (
        meaning(known, tmp_path / folder, trials[0]) for known, folder in ((alone, "alone"), (recorder, "stopped"))
    )
    assert one == other
    with pytest.raises(NotFusible, match=r"module 0 has sparse gradients, which a stack of trials does not"):
        trained_together(setting_for(study, tmp_path / "together", Words()), trials)
