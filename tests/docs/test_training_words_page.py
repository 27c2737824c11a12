"""docs/concepts/training-words.md: its code runs, and each number is computed again by the program or by hand."""

import math
import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

import tuner
from tuner.budget.step_budget import TrainingLength
from tuner.design.campaign import LONGEST_WARMUP
from tuner.design.optimizers import OPTIMIZERS, one_group, optimizer_of
from tuner.design.words import WORDS as DELEGATED
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.rounds.prepared_round import LONG_WARMUP
from tuner.training.averages import Exponential
from tuner.training.optimizers import make_optimizer, state_bytes
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun
from tuner.training.unread import unread

PAGE = (Path(__file__).parents[2] / "docs/concepts/training-words.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)+)", PAGE, re.MULTILINE))
WORDS = {name: getattr(tuner, name) for name in tuner.__all__}


class Net(nn.Module):
    """Three blocks and a head, as the page names them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)


class Mine(Tiny):
    batch_size = 10

    def model(self, point):
        return Net()


class Pretraining(Mine):
    """Another objective of the same blocks; here only its name counts."""


def code(section):
    """The blocks of a section, run after each other."""
    known = dict(WORDS, torch=torch, nn=nn, F=F, Mine=Mine, Pretraining=Pretraining)
    known["SPACE"] = tuner.SearchSpace(learning_rate=tuner.log_uniform(1e-3, 1e-1))
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
    for block in blocks:
        exec(block, known)
    assert blocks
    return SimpleNamespace(**known)


def says(section, *texts):
    """Whether a section has these texts, however its lines are broken."""
    text = " ".join(SECTIONS[section].split())
    assert [one for one in texts if one not in text] == []


def table(section, number=0):
    """The rows of a table of a section, as lists of plain cells; its heads are the first."""
    tables = re.findall(r"(?:^\|.*\n)+", SECTIONS[section], re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in tables[number].splitlines()]
    return [rows[0], *rows[2:]]


def moves(name, gradients, rate=0.01, start=1.0, **values):
    """By how much each of these gradients lowers a weight."""
    weight = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_of(name).build(one_group([weight]), values, rate, False)
    found = []
    for gradient in gradients:
        before, weight.grad = weight.item(), torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        found.append(before - weight.item())
    return found


def test_each_word_of_the_first_table_has_its_section_in_the_four_parts():
    first = re.findall(r"^\| \[[^\]]+\]\(#([\w-]+)\)", PAGE.split("\n## ")[0], re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in SECTIONS]
    assert sorted(set(first)) == sorted(slugs)
    assert len(slugs) == 14
    parts = ["What it is.", "What is often said.", "In a study file.", "What speaks about it."]
    for heading, text in SECTIONS.items():
        assert re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE) == parts, heading


# --- Steps, rates, schedules ---------------------------------------------------------------------------------------


def test_steps_and_epochs():
    length, lengths = TrainingLength(1, "epochs"), TrainingLength(10, "epochs")
    one, ten = length.steps(1000, 10), lengths.steps(1000, 10)
    says(
        "Steps and epochs", f"1,000 examples in batches of 10 are {one} steps an epoch, so 10 epochs are {ten:,} steps"
    )
    says("Steps and epochs", f"With batches of 20 the same 10 epochs are {lengths.steps(1000, 20)} steps")
    kept = len(torch.utils.data.DataLoader(range(1001), 10))
    says("Steps and epochs", f"1,001 examples in batches of 10 are {kept} steps for a loader that keeps")
    says("Steps and epochs", f"short batch, and {length.steps(1001, 10)} for one that drops it")
    says("Steps and epochs", f"4 batches of 10, those 1,000 examples are {math.ceil(1000 / 10 / 4)} steps")
    assert code("Steps and epochs").campaign.in_steps(1000).rounds[0].max_train_steps == ten == 1000


def test_what_is_left_over_is_another_example_in_each_epoch(tmp_path):
    """51 examples in batches of 10: 5 steps an epoch, of which each leaves one out."""

    class Odd(Mine):
        def data(self):
            x = torch.arange(51.0)[:, None]
            return tuner.Splits(training=(x, x), validation=(x, x))

    trial = planned_trials(tiny_study(batch_size=10))[0]
    batches = TrialRun(setting_for(tiny_study(batch_size=10), tmp_path, Odd()), trial).batches
    epochs = [{int(x) for step in range(5 * n, 5 * n + 5) for x in batches.at(step)[0]} for n in range(4)]
    left = [set(range(51)) - seen for seen in epochs]
    assert [len(one) for one in left] == [1] * 4
    assert len(set.union(*left)) > 1


def test_ten_steps_of_sgd_on_half_a_square():
    _, *rows = table("Learning rate")
    assert len(rows) == 5
    for rate, after, _ in rows:
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = optimizer_of("sgd").build(one_group([weight]), {}, float(rate), False)
        for _ in range(10):
            optimizer.zero_grad()
            (weight**2 / 2).sum().backward()
            optimizer.step()
        assert f"{weight.item():.3f}" == after, rate
        assert weight.item() == pytest.approx((1 - float(rate)) ** 10, abs=1e-12)
    says("Learning rate", "The loss w²/2", "multiplies w by 1 - rate. From w = 1:")
    says("Learning rate", "Above 2 divided by the curvature, which is 1")
    assert [rate for rate, after, _ in rows if float(after) > 1] == [rows[-1][0]]
    assert abs(1 - 2.001) > 1 > abs(1 - 1.999)
    signs = [math.copysign(1, (1 - 1.9) ** step) for step in range(4)]
    assert signs == [1, -1, 1, -1]


def test_the_ranges_of_rates_are_conditional():
    found = code("Learning rate")
    assert [one.name for one in found.two.hyperparameters] == [
        "optimizer", "sgd.learning_rate", "adamw.learning_rate"
    ]  # fmt: skip
    sgd, adam = OPTIMIZERS.get("sgd").ranges["learning_rate"], OPTIMIZERS.get("adam").ranges["learning_rate"]
    assert adam.low < sgd.low
    assert adam.high < sgd.high


def test_the_table_of_schedules_and_the_form_of_the_cosine():
    heads, *rows = table("Scheduler")
    says("Scheduler", "Of 100 steps without warmup", "(1 + cos(πs/T)) / 2 at step s of T")
    says("Scheduler", "it is `constant_then_decay(0.2)`")
    default = tuner.Campaign(Mine(), rounds=code("Scheduler").campaign.rounds).schedule
    assert default == tuner.constant_then_decay(0.2)
    made = {name: getattr(tuner, name)().schedule(100) for name in heads[1:]}
    for row in rows:
        step = int(row[0].split(",")[0])
        for name, shown in zip(heads[1:], row[1:], strict=True):
            fraction = made[name].fraction(step)
            assert f"{fraction:.3g}" == shown or f"{fraction:.2g}" == shown, (name, step, fraction)
        assert made["cosine"].fraction(step) == pytest.approx((1 + math.cos(math.pi * step / 100)) / 2)
    assert [int(row[0].split(",")[0]) for row in rows] == [0, 25, 50, 75, 99]
    assert code("Scheduler").campaign.schedule.schedule(100).fraction(99) > 0.1


def test_warmup():
    schedule = tuner.cosine().schedule(100, warmup_steps=20)
    assert [schedule.fraction(0), schedule.fraction(19)] == [1 / 20, 1.0]
    says("Warmup", "With 20 steps of warmup the first update has 1/20 of the rate, and the 20th has all of it")
    campaign = code("Warmup").campaign
    steps = campaign.with_warmup(1000).warmup_steps
    says("Warmup", f"5 % of 1,000 steps are {steps} steps; in a run of 10,000 steps they would become {10_000 // 20}")
    says("Warmup", f"into steps once, at round 1, and keeps those {steps}", f"`warmup_steps={steps}`")
    long, longest = (f"{100 * share:g} %" for share in (LONG_WARMUP, LONGEST_WARMUP))
    says(
        "Warmup", f"the playbook's limit is {long}", f"More than {long} is noted", f"A share above {longest} is refused"
    )
    says("Warmup", f"A cosine over the other {100 - 20} to {100 - 5} % follows", '"5 to 20 % of training"')
    with pytest.raises(tuner.errors.DeclarationError, match="more than 20%"):
        replace(campaign, warmup=0.21)
    assert replace(campaign, warmup=0.2).warmup == 0.2


# --- Optimizers ------------------------------------------------------------------------------------------------------


def test_the_table_of_optimizers_has_all_of_them_with_their_bytes_and_ranges():
    _, *rows = table("Optimizers")
    shown = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(shown) == {one.name for one in OPTIMIZERS.own}
    for name, row in shown.items():
        assert row[2] == optimizer_of(name).state, name
        rates = optimizer_of(name).ranges["learning_rate"]
        assert [float(end) for end in row[3].split(" to ")] == [rates.low, rates.high], name


def test_how_far_the_first_updates_move_a_weight():
    large, small = (moves("sgd", [gradient])[0] for gradient in (10.0, 0.1))
    says("Optimizers", f"At the rate 0.01, a first gradient of 10 moves a weight by {large:.1g} under `sgd`,")
    says("Optimizers", f"and one of 0.1 moves it by {small:.1g}.")
    for name in ("adam", "adamw", "adagrad", "lion"):
        for gradient in (10.0, 0.1):
            assert moves(name, [gradient])[0] == pytest.approx(0.01, rel=1e-6)
    says("Optimizers", "`adagrad` and `lion` both move it by 0.01. If", "stays the same, `adam` moves it by 0.01 again")
    first, *later = moves("adagrad", [1.0] * 3)
    assert first == pytest.approx(0.01)
    says("Optimizers", "and `adagrad` by {:.3g} and then {:.3g}".format(*later))
    assert later == pytest.approx([0.01 / math.sqrt(2), 0.01 / math.sqrt(3)], rel=1e-6)
    assert moves("adam", [1.0] * 3) == pytest.approx([0.01] * 3, rel=1e-6)


def test_weight_decay_of_adamw_is_multiplied_by_the_rate_and_that_of_adam_is_normalized():
    kept = [1.0 - sum(moves("adamw", [0.0] * 1000, rate, weight_decay=0.1)) for rate in (1e-3, 5e-4)]
    assert kept == pytest.approx([(1 - 1e-4) ** 1000, (1 - 5e-5) ** 1000], rel=1e-9)
    says("Optimizers", "At rate 0.001 and weight decay 0.1 a weight without gradient keeps")
    says("Optimizers", f"keeps {kept[0]:.3f} of itself after 1,000 steps; at half the rate it keeps {kept[1]:.3f}")
    for decay in (0.1, 0.001):
        assert moves("adam", [0.0], weight_decay=decay)[0] == pytest.approx(0.01, rel=1e-4)
    says("Optimizers", "A weight of 1 without gradient first moves")
    says("Optimizers", "moves by the whole rate, 0.01, whether the weight decay is 0.1 or 0.001")


def test_two_running_means_in_8_bits_are_2_bytes_a_parameter():
    weight = torch.zeros(1000, requires_grad=True)
    optimizer = optimizer_of("adamw").build(one_group([weight]), {}, 0.01, False)
    weight.grad = torch.ones(1000)
    optimizer.step()
    means = [one for one in optimizer.state[weight].values() if one.numel() == 1000]
    now, in_8_bits = sum(one.element_size() for one in means), len(means) * 8 // 8
    says("Optimizers", f"in 8 bits: {in_8_bits} bytes a parameter and some scales, in place of {now}.")


@pytest.mark.needs("bitsandbytes")
@pytest.mark.parametrize(("weights", "each"), [(4095, 8.0), (4096, 2 + 8 / 256)])
def test_small_layers_keep_8_bytes_a_parameter_under_adamw_8bit(weights, each):
    weight = torch.nn.Parameter(torch.zeros(weights))
    kept = state_bytes(make_optimizer("adamw_8bit", one_group([weight]), {}, 0.01))
    tables = 2 * 256 * 4 if weights == 4096 else 0  # what the 256 numbers of 8 bits mean, once for all layers
    assert kept == each * weights + tables
    says("Optimizers", "Layers of fewer than 4,096 weights keep 8 bytes a parameter", "| 2.03, 8 in a tensor of fewer")


def test_the_schedule_of_schedule_free_adamw_is_constant():
    says("Optimizers", "With any schedule but `constant()` it is refused")
    rounds = code("Optimizers").campaign.rounds
    assert tuner.Campaign(Mine(), optimizer="schedule_free_adamw", rounds=rounds).schedule == tuner.constant()
    with pytest.raises(tuner.errors.DeclarationError, match=r"under schedule=constant\(\) alone"):
        tuner.Campaign(Mine(), optimizer="schedule_free_adamw", rounds=rounds, schedule=tuner.cosine())


def test_the_optimizers_of_the_code_are_known():
    found = code("Optimizers")
    assert [found.campaign.optimizer, found.other.optimizer] == ["adagrad", "torch.optim.ASGD"]
    assert tuner.Campaign(Mine(), rounds=found.campaign.rounds).optimizer == "adamw"


def test_averages_count_and_lag_as_the_page_says():
    found = code("Averages of weights")
    assert (found.campaign.ema_steps, found.space["ema_steps"].domain.choices) == (50, (None, 20, 80))
    says("Averages of weights", f"0.99^100 = {0.99**100:.2f} of the newest")
    says("Averages of weights", f"0.999^500 = {0.999**500:.2f} of the first weights")
    average = 0.0
    for place in range(1, 5001):
        average += (place - average) * Exponential(100).share(place)
    assert 5000 - average == pytest.approx(99, abs=1e-9)
    says("Averages of weights", "it is 99 steps behind")


def test_rates_per_layer_keep_their_ratio(tmp_path):
    found = code("Rates per layer")
    study = tiny_study(space=found.space, batch_size=10, schedule=tuner.cosine())
    trial = planned_trials(study)[0]
    run = TrialRun(setting_for(study, tmp_path, found.Layered()), trial)
    head = trial.point["head_rate"]
    for step in range(1, 24):
        run.advance(step)
        rates = {round(group["lr"] / run.rates[step - 1], 9) for group in run.optimizer.param_groups}
        assert rates == {round(head, 9), 0.64, 0.8, 1.0}
    says("Rates per layer", "the factor 0.8 the rates are 0.64, 0.8 and 1 times the rate of the step")


def test_a_sweep_switches_off_what_stands_against_overfitting():
    space = code("Overfitting and early stopping").space
    assert space.off_values() == {"weight_decay": 0.0, "dropout": 0.0}


# --- Accumulation and precision --------------------------------------------------------------------------------------


def test_accumulated_means_over_tokens():
    means, tokens = (4.0, 1.0), (2, 8)
    overall = sum(mean * count for mean, count in zip(means, tokens, strict=True)) / sum(tokens)
    says("Gradient accumulation", "have 2 tokens with a mean loss of 4, and the second 8 tokens with a mean of 1.")
    says("Gradient accumulation", f"mean of both means is {sum(means) / 2}", f"over all 10 tokens is {overall}")


@pytest.mark.parametrize("sizes", [(8, 8), (2, 8), (1, 3, 6)])
def test_the_update_of_the_page_is_that_of_one_large_batch(sizes):
    update = code("Gradient accumulation").update
    torch.manual_seed(0)
    inputs, targets = torch.randn(sum(sizes), 6, dtype=torch.float64), torch.randint(2, (sum(sizes),))
    portions = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
    model, large = Net().double(), Net().double()
    large.load_state_dict(model.state_dict())
    update(model, torch.optim.SGD(model.parameters(), 0.1), portions)
    results = torch.cat([parameter.flatten() for parameter in model.parameters()])

    def stepped(loss):
        gradients = torch.autograd.grad(loss, list(large.parameters()))
        return torch.cat([(p - 0.1 * g).flatten() for p, g in zip(large.parameters(), gradients, strict=True)])

    assert torch.allclose(results, stepped(F.cross_entropy(large(inputs), targets)), rtol=0, atol=1e-14)
    if len(set(sizes)) > 1:
        means = [F.cross_entropy(large(given), known) for given, known in portions]
        wrong = stepped(sum(means) / len(means))
        assert (wrong - results).abs().max() > 1e-4, "the mean of means is another update"


def test_accumulation_in_a_space_is_read_by_nothing(tmp_path):
    space = tuner.SearchSpace(
        learning_rate=tuner.log_uniform(1e-3, 1e-1), gradient_accumulation_steps=tuner.choice(1, 4)
    )
    study = tiny_study(space=space, batch_size=10)
    assert unread(setting_for(study, tmp_path, Mine()), planned_trials(study)[0]) == ["gradient_accumulation_steps"]


def test_the_options_of_other_trainers_are_those_that_their_errors_name():
    word = next(one for one in DELEGATED if one.name == "micro_batch_size")
    says("Gradient accumulation", word.instead("lightning"), word.instead("trainer"))


def test_the_table_of_formats():
    _, *rows = table("Precision")
    by_name = {row[0].split(",")[0]: row[1:] for row in rows}
    for name, kind in (("float32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        info = torch.finfo(kind)
        smallest = info.tiny * info.eps
        largest = f"{info.max:,.0f}" if kind is torch.float16 else f"{info.max:.1e}"
        bits = round(-math.log2(info.eps))
        assert by_name[name] == [str(bits), f"1 + {info.eps:.1e}", largest, f"{smallest:.1e}"]
        assert torch.tensor(smallest, dtype=kind) > 0
        assert torch.tensor(smallest / 4, dtype=kind) == 0
    assert by_name["tf32"] == [by_name["fp16"][0], by_name["fp16"][1], by_name["float32"][2], "as float32"]


def test_what_the_formats_do_to_numbers():
    half, brain = torch.float16, torch.bfloat16
    assert torch.tensor(1e-8, dtype=half) == 0
    scaled = float(torch.tensor(1e-8 * 65_536, dtype=half))
    says("Precision", "a gradient of 1e-8 becomes 0", f"multiplied by 65,536 it is {scaled:.2g}")
    ones = torch.tensor([256.0, 1.0], dtype=brain)
    assert (ones + torch.tensor([1.0, 0.001], dtype=brain)).tolist() == [256.0, 1.0]
    assert float(torch.tensor(256.0, dtype=half) + 1) == 257.0
    says("Precision", "in bf16 256 + 1 is 256, and 1 + 0.001 is 1")


def test_bf16_trains_alone_and_in_a_group_with_the_same_bits(tmp_path):
    found = code("Precision")
    assert found.campaign.precision == "bf16"
    rate, precise = found.space.hyperparameters[0].domain, {}
    for name in found.space.hyperparameters[1].domain.choices:
        precise[name] = tiny_study(space=tuner.SearchSpace(learning_rate=rate), batch_size=10, precision=name)
    study = precise["bf16"]
    trials, results = planned_trials(study), []
    check_workload(setting_for(study, tmp_path / "check", Mine()), trials[0])
    for train in (trained_together, trained_alone):
        recorder = train(setting_for(study, tmp_path / train.__name__, Mine()), trials)
        assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
        results.append([meaning(recorder, tmp_path / train.__name__, trial) for trial in trials])
    assert results[0] == results[1]
    run = TrialRun(setting_for(study, tmp_path, Mine()), trials[0])
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    full = planned_trials(precise["float32"])[0]
    recorder = trained_alone(setting_for(precise["float32"], tmp_path / "full", Mine()), [full])
    assert meaning(recorder, tmp_path / "full", full)[1] != results[1][0][1], "other products"
    of_convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    assert of_convolutions == "tf32", "torch's default, which the page states"


# --- Stages, adapters, captions --------------------------------------------------------------------------------------


def test_the_controls_of_a_chain():
    before, after = 3000, 1500
    says("Staged training", f"Let {before:,} steps of pretraining be followed by {after:,} of fine-tuning")
    says("Staged training", f"scratch for {before + after:,} steps, and a second one for {after:,}.")


def test_the_chain_of_the_page():
    found = code("Staged training")
    assert [found.pretraining.production_steps, found.campaign.production_steps] == [3000, 1500]
    assert found.campaign.start_from is not None
    rounds = [(declared.start, declared.total) for declared in found.campaign.rounds]
    assert rounds == [(None, None), ("scratch", "equal"), ("scratch", None)]


def first_changes(name, scale, target):
    """The change of W, frozen, by a first update of its adapter, W + scale * B A, towards a target."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 6, generator=generator, dtype=torch.float64).requires_grad_()
    b = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_of(name).build(one_group([a, b]), {}, 0.01, False)
    ((scale * b @ a - target) ** 2).sum().backward()
    optimizer.step()
    return (scale * b @ a).detach()


@pytest.mark.parametrize(("name", "times"), [("sgd", 4), ("adamw", 2), ("adam", 2)])
def test_twice_the_alpha_in_the_first_update(name, times):
    target = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, two = (first_changes(name, scale, target) for scale in (0.5, 1.0))
    assert one.abs().min() > 0
    assert torch.allclose(two, times * one, rtol=1e-6)
    says("LoRA: rank and alpha", "2 times as much with `adamw`", "With `sgd` it is 4 times as much")


def test_the_first_update_of_sgd_by_hand():
    """W + s b a of one number each, b = 0, loss (W + s b a - t)² / 2: b moves by -rate s a (W - t), W by s a times."""
    weight, s, a, target, rate = 1.0, 0.5, 2.0, 4.0, 0.01
    by_hand = -rate * s**2 * a**2 * (weight - target)
    b = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    ((weight + s * b * a - target) ** 2 / 2).sum().backward()
    optimizer_of("sgd").build(one_group([b]), {}, rate, False).step()
    assert float(s * b.detach() * a) == pytest.approx(by_hand)


def test_the_numbers_of_an_adapter():
    wide, rank = 768, 8
    numbers = rank * (wide + wide)
    says("LoRA: rank and alpha", f"A layer from {wide} to {wide} has", f"At rank {rank} its adapter has {rank} ×")
    says("LoRA: rank and alpha", "With `network_dim` 128 the factor is then 1/128")
    says("LoRA: rank and alpha", f"has {wide**2:,} weights", f"{rank} × ({wide} + {wide}) = {numbers:,}")
    says("LoRA: rank and alpha", f"{100 * numbers / wide**2:.1f} % of them", f"then 1/128 = {1 / 128:.4f}")


def test_the_adapter_of_the_page():
    found = code("LoRA: rank and alpha")
    for rank in (1, 2):
        model, x = found.Adapted().model({"rank": rank}), torch.randn(5, 6)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert sum(p.numel() for p in trained.values()) == rank * (6 + 2)
        before = model(x)
        with torch.no_grad():
            for parameter in trained.values():
                parameter.normal_()
        assert not torch.equal(model(x), before)


def test_other_names_of_rank_and_alpha_are_refused():
    adapted = WORDS["with_lora"]
    for name, meant in (("network_dim", "rank"), ("r", "rank"), ("network_alpha", "alpha"), ("lora_alpha", "alpha")):
        with pytest.raises(tuner.errors.WorkloadError, match=f"write {meant}"):
            adapted(Net(), "head", rank=1, **{name: 8})
        if name.startswith("network"):
            space = tuner.SearchSpace(learning_rate=tuner.log_uniform(1e-3, 1e-1), **{name: 8})
            declared = tuner.Round("Which rate?", trials=8, max_train_steps=100, space=space)
            with pytest.raises(tuner.errors.DeclarationError, match=f"write {meant}"):
                tuner.Campaign(Mine(), rounds=[declared])
    with pytest.raises(tuner.errors.WorkloadError, match="alpha"):
        adapted(Net(), "head", rank=1, alpha=0.0)
    adapted(Net(), "head", rank=1, alpha=None)


def test_orders_of_a_caption_and_a_mean_that_cannot_see_them():
    words = ["cat", "black", "sofa", "night"]
    orders = {(words[0], *rest) for rest in permutations(words[1:])}
    says("Shuffled captions", f"there are {len(orders)} orders")
    bag = nn.EmbeddingBag(10, 8, mode="mean").double()
    means = bag(torch.tensor([[words.index(word) for word in order] for order in sorted(orders)]))
    assert (means - means[0]).abs().max() < 1e-15
    order = nn.GRU(8, 8, batch_first=True).double()
    seen = order(nn.Embedding(10, 8).double()(torch.tensor([[0, 1, 2, 3], [0, 3, 2, 1]])))[0][:, -1]
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_the_augmentation_of_the_page():
    found = code("Shuffled captions")
    assert found.space.off_values() == {"shuffle_caption": 0.0}
    off = code("Training without captions").space.off_values()
    assert off == {"yes.shuffle_caption": 0.0, "yes.caption_dropout": 0.0}
    generator = torch.Generator().manual_seed(0)
    words = torch.arange(1, 5).repeat(200, 1)
    batch = (torch.zeros(200, 3), words, torch.zeros(200))
    _, changed, _ = found.Captioned().augment(batch, {"shuffle_caption": 1.0}, generator)
    assert torch.equal(changed.sort(1).values, words)
    assert torch.equal(changed[:, 0], words[:, 0])
    assert len(set(map(tuple, changed.tolist()))) == 6
    _, same, _ = found.Captioned().augment(batch, {"shuffle_caption": 0.0}, generator)
    assert torch.equal(same, words)


def test_a_branch_without_captions_has_no_hyperparameters_of_captions():
    found = code("Training without captions")
    points = [trial.point for trial in planned_trials(tiny_study(space=found.space, num_trials=16))]
    kinds = {point["captions"]: {name for name in point if "." in str(name)} for point in points}
    assert kinds == {"yes": {"yes.shuffle_caption", "yes.caption_dropout"}, "no": set()}
    assert found.campaign.rounds[0].scientific == ("captions",)
