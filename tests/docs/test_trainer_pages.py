"""The scripts of docs/how-to/lightning.md and transformers.md become the studies that the pages show, and train."""

import re
from pathlib import Path

import pytest

from tuner.testing import check_engine

DOCS = Path(__file__).parents[2] / "docs/how-to"
MODULE = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class LitDigits(L.LightningModule):
    def __init__(self, learning_rate=0.1):
        super().__init__()
        self.learning_rate, self.net = learning_rate, torch.nn.Linear(4, 2)

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, number, dataloader_idx=0):
        self.log("val_loss", self.training_step(batch, number))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.learning_rate)


class DigitsData(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        self.training = self.validation = TensorDataset(x, (x[:, 0] > 0).long())

    def train_dataloader(self):
        return DataLoader(self.training, 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.validation, 30)
"""
BERT = """
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


def load_data():
    rows = torch.randint(50, (60, 8), generator=torch.Generator().manual_seed(0)).tolist()
    examples = [{"input_ids": row, "labels": int(row[0] > 25)} for row in rows]
    return {"train": examples[:40], "validation": examples[40:]}
"""


def parts_of(page):
    """The first script, the lines that its diff takes away, and those that it leaves."""
    text = (DOCS / page).read_text(encoding="utf-8")
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    changed = re.search(r"```diff\n(.*?)```", text, re.DOTALL)
    assert script is not None
    assert changed is not None
    lines = changed[1].splitlines()
    before, after = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
    return script[1], before, after


@pytest.mark.needs("lightning")
def test_the_study_of_the_lightning_page_keeps_its_promises():
    _, _, after = parts_of("lightning.md")
    known: dict = {}
    exec(MODULE + after, known)
    check_engine(known["campaign"]).require("deterministic", "exact_resume", "prefixes", "follows_schedule")


@pytest.mark.needs("transformers")
@pytest.mark.needs("accelerate")
def test_the_script_of_the_transformers_page_becomes_a_study_of_eleven_new_lines():
    script, before, after = parts_of("transformers.md")
    assert script.strip().endswith(before.strip())
    untouched = script[: script.index(before.strip())]
    new = [line for line in after.splitlines() if line not in before.splitlines()]
    assert len(new) + 1 == 11, "with the import"
    assert len(after.splitlines()) + 1 < len(before.splitlines())
    known: dict = {}
    exec(f"{BERT}from tuner import *\nfrom transformers import Trainer, TrainingArguments\n{untouched}{after}", known)
    check_engine(known["campaign"]).require("deterministic", "exact_resume", "follows_schedule")
