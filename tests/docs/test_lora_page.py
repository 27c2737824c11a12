"""The example of docs/how-to/lora.md, run as it stands there, and what the page says about it."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.shell import tuner

import tuner as api
from tuner import with_lora
from tuner.design.adapters import KOHYA_WORDS, PEFT_WORDS
from tuner.errors import WorkloadError

__all__ = ["tuner"]
PAGE = (Path(__file__).parents[2] / "docs/how-to/lora.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
COMMANDS = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()


def test_the_example_is_launched_and_exported_by_the_commands_of_the_page(tuner, tmp_path):
    assert "trials=16, max_train_steps=200" in EXAMPLE
    (tmp_path / "study.py").write_text(
        EXAMPLE.replace("trials=16, max_train_steps=200", "trials=2, max_train_steps=20")
    )
    launched = tuner("launch", "study.py", "--round", 1)
    assert launched.code == 0, launched.err
    assert "coupled" not in launched.err  # alpha is fixed
    assert "nothing reads" not in launched.err
    for line in COMMANDS:
        ran = tuner(*line.split()[1:])
        assert ran.code == 0, ran.err
    merged = load_file(tmp_path / "model.safetensors")
    assert list(merged) == [f"{place}.{name}" for place in (0, 2, 4) for name in ("bias", "weight")]
    whole = load_file(api.export_weights("study", tmp_path / "whole.safetensors"))
    assert {"0.weight", "0.lora_A", "0.lora_B", "0.lora_scale"} <= set(whole)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["target_modules"], config["modules_to_save"]) == ("0|2", ["4"])
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert adapter["base_model.model.4.weight"].equal(whole["4.weight"])


def test_the_example_trains_what_the_page_counts():
    words = {}
    exec(EXAMPLE, words)
    model = words["Adapted"]().model({"rank": 8, "alpha": 8.0, "lora_dropout": 0.0})
    trained = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    assert sum(count for name, count in trained.items() if "lora" in name) == 8 * (16 + 64) + 8 * (64 + 64)
    assert set(trained) - {"0.lora_A", "0.lora_B", "2.lora_A", "2.lora_B"} == {"4.weight", "4.bias"}


def test_every_word_of_the_table_is_refused_with_ours():
    table = PAGE.split("## The words of other tools")[1].split("\n\n")[2]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    kohya = re.findall(r"`(\w+)`", " ".join(row[1] for row in rows))
    peft = re.findall(r"`(\w+)`", " ".join(row[2] for row in rows))
    assert set(kohya) <= set(KOHYA_WORDS)
    assert set(peft) <= set(PEFT_WORDS)
    for word in (*kohya, *peft):
        with pytest.raises(WorkloadError, match=f"{word} is the word of"):
            with_lora(None, "head", rank=1, **{word: 1})
