"""torch's compiler stays out of a process until something is compiled, and then finds everything as torch left it."""

import subprocess
import sys

import torch

from tuner.training.compiler import plain_step, spare_compiler

PROGRAM = """
import sys
from pathlib import Path

import torch
from tuner.design.study_file import load_campaign
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.fused.making import make_group
from tuner.training.numerics import prepare_numerics
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

prepare_numerics(torch.device("cpu"), 1)
campaign = load_campaign(Path("tests/reference_studies/stdlib_lm.py"))[1]
study, cpu = study_of_round(campaign, 1, 100), torch.device("cpu")
setting = TrainingSetup(study, campaign.workload, Data.of(campaign.workload, cpu), cpu, Path("nowhere"), "test")
runs = [TrialRun(setting, trial) for trial in planned_trials(study)[:3]]
runs[2].advance(2)
runs[2].load(runs[2].state())
group = make_group(runs[:2])
group.advance(2)
print([run.step for run in runs], "torch._dynamo" in sys.modules)
"""


def test_trials_are_trained_alone_and_together_without_the_compiler():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "[2, 2, 2] False\n", done.stderr


def test_once_the_compiler_is_there_torch_wraps_as_it_does_without_us():
    import torch._compile
    import torch._dynamo

    def plain(value):
        return value + 1

    wrapped = torch._compile._disable_dynamo(plain)
    spare_compiler(wrapped)
    spared = getattr(plain, "__dynamo_disable")
    assert wrapped(1) == 2
    assert getattr(plain, "__dynamo_disable") is not spared
    with torch.no_grad():
        compiled = torch.compile(lambda x: wrapped(x) * 2, backend="eager")
        assert compiled(torch.ones(2)).tolist() == [4.0, 4.0]


def test_a_plain_step_leaves_the_bits_of_the_optimizers_own():
    def trained(step_of):
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        step = step_of(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            step()
        return [parameter.detach() for parameter in model.parameters()]

    ours, theirs = trained(plain_step), trained(lambda optimizer: optimizer.step)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
