"""The Trainer of Hugging Face under a study: its own bits, exact after every stop, and each mistake is told."""

import random

import numpy as np
import pytest
import torch
import transformers
from support.loops import setup_for, train_loop
from support.tiny import MemoryRecorder, StopAt, tiny_study
from torch.utils.data import IterableDataset

from tuner import TrainerWorkload, minimize
from tuner.delegated.looks import look_at, trial_at
from tuner.design.prefix import rates_of
from tuner.errors import DeclarationError, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_weights

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps
WORDS = random.Random(0)
TEXTS = [[WORDS.randrange(3, 20) for _ in range(WORDS.randrange(4, 9))] for _ in range(30)]
LANGUAGE = [{"input_ids": one, "attention_mask": [1] * len(one)} for one in TEXTS]


def language_model(dropout=0.2):
    """A causal LM of 20 words, with tied embeddings."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2, resid_pdrop=dropout, embd_pdrop=dropout,
            attn_pdrop=dropout, bos_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


def padded(examples):
    """Rows of one length: labels of the padding do not count."""
    longest = max(len(one["input_ids"]) for one in examples)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for one in examples:
        words, missing = one["input_ids"], longest - len(one["input_ids"])
        batch["input_ids"].append(words + [2] * missing)
        batch["attention_mask"].append([1] * len(words) + [0] * missing)
        batch["labels"].append(words + [-100] * missing)
    return {name: torch.tensor(rows) for name, rows in batch.items()}


def masked(examples):
    """As `padded`, with words that are replaced at random, as for a masked language model."""
    batch = padded(examples)
    batch["input_ids"] = torch.where(torch.rand(batch["input_ids"].shape) < 0.2, 2, batch["input_ids"])
    batch["input_ids"] = torch.where(
        torch.tensor(np.random.rand() < 0.5), batch["input_ids"], batch["labels"].abs() % 20
    )
    return batch


ARGS = {
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "weight_decay": 0.1, "remove_unused_columns": False,
}  # fmt: skip


def made(**changes):
    given = {
        "model_init": lambda point: language_model(), "args": dict(ARGS), "train_dataset": LANGUAGE[:22],
        "eval_dataset": LANGUAGE[22:], "data_collator": padded, "select_by": minimize("validation/loss"),
    }  # fmt: skip
    return TrainerWorkload(**given | changes)


def whole(workload, folder, trial=TRIAL):
    recorder = MemoryRecorder()
    update = train_loop(setup_for(workload, folder, STUDY), recorder, trial)
    assert update.state is State.COMPLETE, update.reason
    return recorder


class Alone(transformers.TrainerCallback):
    """Evaluates where the study would."""

    def on_step_end(self, args, state, control, **others):
        control.should_evaluate = state.global_step in DUE


class Rates(transformers.Trainer):
    """A Trainer with the rates of the trial as its schedule."""

    def create_scheduler(self, num_training_steps, optimizer=None):
        rates = rates_of(TRIAL)
        base = TRIAL.point["learning_rate"]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: rates[min(step, len(rates) - 1)] / base
        )
        return self.lr_scheduler


def alone(folder, **changes):
    """The curve of the same Trainer without a study, as hexadecimal."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=DUE[-1], learning_rate=TRIAL.point["learning_rate"],
        seed=TRIAL.seed % 2**32, data_seed=TRIAL.data_seed % 2**32, use_cpu=True, report_to="none", save_strategy="no",
        disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, **ARGS,
    )  # fmt: skip
    transformers.set_seed(arguments.seed)
    given = {"train_dataset": LANGUAGE[:22], "eval_dataset": LANGUAGE[22:], "data_collator": padded} | changes
    trainer = Rates(model=language_model(), args=arguments, callbacks=[Alone], **given)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    found = [one for one in trainer.state.log_history if "eval_loss" in one]
    return {(one["step"], "validation/loss"): one["eval_loss"].hex() for one in found}


@pytest.mark.parametrize("collator", [padded, masked])
def test_a_causal_lm_with_padding_and_accumulation_has_the_bits_of_its_trainer_alone(collator, tmp_path):
    recorder = whole(made(data_collator=collator), tmp_path / "study")
    assert recorder.measurements == alone(tmp_path / "alone", data_collator=collator)
    assert {step for step, _ in recorder.measurements} == set(DUE)


class Stream(IterableDataset):
    """The texts in order, without a length: one pass is 22 examples."""

    def __iter__(self):
        yield from LANGUAGE[:22]


KINDS = {
    "dropout": {},
    "random collator": {"data_collator": masked},
    "by length": {"args": ARGS | {"train_sampling_strategy": "group_by_length"}},
    "stream": {"train_dataset": Stream()},
    "workers": {"args": ARGS | {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "fork"}},
    "its own schedule": {"schedule": "arguments", "args": ARGS | {"lr_scheduler_type": "cosine", "warmup_steps": 3}},
}


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "workers"])
def test_a_trial_that_is_stopped_has_the_same_bits(kind, tmp_path):
    expected = whole(made(**KINDS[kind]), tmp_path / "whole").measurements
    for question in range(1, DUE[-1] + 1, 3):
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        setup = setup_for(made(**KINDS[kind]), folder, STUDY, stop=StopAt(question))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        update = train_loop(setup_for(made(**KINDS[kind]), folder, STUDY), recorder, TRIAL)
        assert update.state is State.COMPLETE, update.reason
        assert recorder.measurements == expected, question
