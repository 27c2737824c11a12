"""What the command line says about memory and compiled models before anything is trained."""

import re
from dataclasses import replace

import pytest
from support.study_files import write_study

from tuner.cli.launch import memory_words
from tuner.records import Price, StepMemory
from tuner.records.gang_price import GangPrice

PLAIN = 'return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))'
COMPILED = PLAIN.replace("return ", "return torch.compile(") + ', backend="aot_eager")'


def test_a_dry_run_says_what_a_trial_takes_and_how_many_fit_together(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--round", "1", "--dry-run")
    assert run.code == 0, run.err
    said = re.search(
        r"a trial needs about [\d.]+ kB of memory while it trains: parameters 584 B, gradients 584 B, "
        r"optimizer state 1\.2 kB \(8\.11 bytes a parameter\), batch 256 B, activations [\d.]+ kB \(8 examples\), .*; "
        r"[\d.]+ [MGT]B free, "
        r"enough for about [\d,]+ trials together",
        run.err,
    )
    assert said, run.err


def test_of_trials_that_train_one_by_one_it_is_not_said_how_many_fit_together(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path, more='precision="fp16",'), "--round", "1", "--dry-run")
    assert run.code == 0, run.err
    assert "of memory while it trains" in run.err
    assert "trials together" not in run.err


@pytest.mark.slow
def test_a_compiled_model_is_priced_and_refused_in_a_group_by_name(tuner, tmp_path):
    study = write_study(tmp_path, replace=[(PLAIN, COMPILED)])
    run = tuner("launch", study, "--round", "1", "--dry-run")
    assert run.code == 0, run.err
    assert re.search(r"torch\.compile takes \d+ s at the beginning of each trial", run.err)
    assert "trials together" not in run.err
    run = tuner("launch", study, "--round", "1", "--fuse", "2")
    assert run.code == 2
    assert "the model is made by torch.compile: use the module itself" in run.err
    run = tuner("launch", study, "--round", "1")
    assert run.code == 0, run.err
    assert run.err.count("complete, best validation/loss") == 4


def test_each_process_of_a_gang_takes_as_much():
    memory = StepMemory(400, 400, 800, 0, 100, 1000, 8, 64, 1400, free=9000)
    gang = GangPrice(4, 2, 300.0, 400, 1e9)
    told = memory_words(Price(1.0, 1.0, 1, 1, memory=memory, together=5, gang=gang), memory)
    more = "10.8 kB in all, which is more than there is: take fewer ranks, or several machines"
    assert told.endswith(f"each of the 4 processes of a gang takes as much, {more}")
    assert "together" not in told
    on_gpus = replace(gang, on_gpu=True)
    told = memory_words(Price(1.0, 1.0, 1, 1, memory=memory, gang=on_gpus), memory)
    assert told.endswith("each of the 4 processes of a gang takes as much")
    assert memory_words(Price(1.0, 1.0, 1, 1, memory=memory, gang=replace(gang, asked=False)), memory).endswith("free")


def test_a_model_that_does_not_fit_may_be_shared():
    memory = StepMemory(4000, 4000, 8000, 0, 100, 1000, 8, 8, 5000, free=9000)
    assert 'shard="fsdp2" in the Campaign, with --gang' in memory.advice("Tiny")


def test_a_model_in_parts_by_hand():
    memory = StepMemory(4000, 4000, 8000, 30, 100, 1000, 8, 8, 5500, kept=70, free=9000, weights=1000)
    found = memory.in_shards(4)
    assert (found.parameters, found.gradients, found.optimizer, found.weights) == (1000, 1000, 2000, 250)
    assert found.needed == 1000 + 2000 + 30 + 100 + 70 + 1000 + 1500, "activations and temporary tensors stay"
    assert not memory.fits
    assert found.fits
