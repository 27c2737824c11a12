"""Every example of docs/how-to/stages.md, run with fewer trials and steps, and what the page says of it."""

import hashlib
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.shell import tuner

from tuner.design.study_file import declared_stages
from tuner.records.conclusions import StageStart
from tuner.storage.store import open_ledger

__all__ = ["tuner"]
PAGE = (Path(__file__).parents[2] / "docs/how-to/stages.md").read_text(encoding="utf-8")
*STAGES, PLAY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.search(r"```text\n(tuner run.*?)```", PAGE, re.DOTALL)[1].splitlines()


def smaller(text, steps=10):
    """The same examples with 3 trials, of a few steps."""
    text = re.sub(r"trials=\d+", "trials=3", text)
    return re.sub(r"max_train_steps=\d+", f"max_train_steps={steps}", text)


def start_of(folder, campaign, study="round-1"):
    with open_ledger(str(folder / "runs/tuner.sqlite"), create=False) as ledger:
        return ledger.conclusion(campaign, StageStart, ledger.study(campaign, study).study_id)


def test_the_two_stages_of_the_page_run_by_its_commands(tuner, tmp_path, caplog):
    (tmp_path / "stages.py").write_text(smaller(STAGES[0]))
    for line in COMMANDS:
        ran = tuner(*line.split()[1:])
        assert ran.code == 0, ran.err
    said = re.search(r"(carried: 2 .*)\n", PAGE)[1]
    told = re.search(r"; (carried: .*)", caplog.text)[1].partition("\n")[0]
    assert sorted(re.findall(r"[\w.]+", told)) == sorted(re.findall(r"[\w.]+", said))
    assert "few-labels started from trial" in ran.err


def test_every_campaign_of_the_page_starts_from_what_the_page_says(tuner, tmp_path):
    (tmp_path / "stages.py").write_text("\n\n".join(STAGES))
    stages = {one.name: one.campaign for one in declared_stages(str(tmp_path / "stages.py"))}
    from_which = {name: one.start_from and one.start_from.words for name, one in stages.items()}
    assert from_which == {
        "pretrained": None, "few-labels": "pretrained", "head": "pretrained", "whole": "head",
        "compared": "pretrained", "chosen": "pretrained", "related": None, "from-related": "related", "easier": None,
        "harder": "easier", "clear": None, "everything": "clear", "downloaded": "downloaded.pt",
        "adapted": "pretrained",
    }  # fmt: skip


@pytest.mark.slow
def test_all_stages_of_the_page_are_trained(tuner, tmp_path, caplog):
    (tmp_path / "stages.py").write_text(smaller("\n\n".join(STAGES)))
    module = torch.nn.Linear(64, 4)
    weights = {"backbone.projection.weight": module.weight.data, "backbone.projection.bias": module.bias.data}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "downloaded.pt")
    for stage in declared_stages(str(tmp_path / "stages.py")):
        for number in range(1, len(stage.campaign.rounds) + 1):
            ran = tuner("launch", f"stages.py:{stage.name}", "--round", number)
            assert ran.code == 0, (stage.name, ran.err)
    lines = dict(re.findall(r"round-1: starts from (?:trial \d+ of )?([\w.-]+).*?; (carried: .*)", caplog.text))
    assert "fresh: none" in lines["clear"]
    assert "fresh: 2 (head.weight, head.bias)" in lines["related"]
    assert "carried: 2 (encoder.weight, encoder.bias)" in lines["downloaded.pt"]
    assert start_of(tmp_path, "downloaded").inherited_steps == 5000
    assert len(start_of(tmp_path, "chosen").candidates) == 3
    merged = tuner("best", "adapted", "--export", "merged.safetensors", "--as", "merged")
    assert merged.code == 0, merged.err


def test_an_adapter_of_a_later_stage_is_fresh_without_being_listed(tuner, tmp_path, caplog):
    adapted = next(block for block in STAGES if "with_lora" in block)
    (tmp_path / "stages.py").write_text(smaller("\n\n".join([STAGES[0], adapted])))
    assert tuner("launch", "stages.py:pretrained").code == 0
    ran = tuner("launch", "stages.py:adapted")
    assert ran.code == 0, ran.err
    told = re.search(r"carried: 2 \(encoder.weight, encoder.bias\); fresh: (.*?); left", caplog.text)[1]
    assert {"encoder.lora_A", "encoder.lora_B"} <= set(re.findall(r"[\w.]+", told))


def test_a_policy_that_copied_half_of_the_way_learns_the_other_half_by_playing(tuner, tmp_path):
    """By hand, over 25 cells: always to the right, 20 of them never arrive and cost 20, the last row costs 0 to 4.

    The shortest ways cost 2 rows down and 2 columns to the right on average.
    """
    (tmp_path / "play.py").write_text(smaller(PLAY, 20))
    assert tuner("launch", "play.py:cloned").code == 0
    ran = tuner("launch", "play.py:played", "--round", 1)
    assert ran.code == 0, ran.err
    start = start_of(tmp_path, "played")
    content = (tmp_path / "runs/checkpoints" / start.candidates[0].file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == start.candidates[0].digest
    words: dict = {}
    exec(PLAY, words)
    policy = words["policy_network"]({})
    policy.load_state_dict(safetensors.torch.load(content))
    assert words["Playing"]().mean_return(policy) == pytest.approx((20 * -20 + sum(range(-4, 1))) / 25)
    with open_ledger(str(tmp_path / "runs/tuner.sqlite"), create=False) as ledger:
        trials = ledger.trials(ledger.study("played", "round-1").study_id)
    assert max(one.value for each in trials for one in each.checkpoints if one.kind == "best") == pytest.approx(-4.0)
    scratch = tuner("launch", "play.py:played", "--round", 2)
    assert scratch.code == 0, scratch.err
    assert start_of(tmp_path, "played", "round-2") is None
    assert "Does starting from the earlier stage help" in tuner("check", "played").out
