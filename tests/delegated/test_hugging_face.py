"""The Trainer of Hugging Face under a study: its own bits, exact after every stop, and each mistake is told."""

import gc
import itertools
import random
import re
import sys
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import transformers
from support.loops import setup_for, train_loop
from support.tiny import MemoryRecorder, tiny_study
from torch.utils.data import IterableDataset

from tuner import TrainerWorkload, minimize
from tuner.delegated.looks import look_at, trial_at
from tuner.delegated.trainee import OF_LENGTH
from tuner.design.points import Point
from tuner.design.prefix import rates_of
from tuner.errors import DeclarationError, InputError, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_state, read_weights

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """Each Trainer collects garbage, which takes a second with so many modules; they are no garbage."""
    gc.freeze()
    yield
    gc.unfreeze()


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
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "weight_decay": 0.1,
    "remove_unused_columns": False,
}  # fmt: skip


def made(**changes):
    given = {
        "model_init": lambda point: language_model(), "args": dict(ARGS), "train_dataset": LANGUAGE[:22],
        "eval_dataset": LANGUAGE[22:], "data_collator": padded, "select_by": minimize("validation/loss"),
    }  # fmt: skip
    return TrainerWorkload(**given | changes)


def stop_from(question):
    """Says stop from the given question on, as a real one does."""
    asked = itertools.count(1)
    return lambda: next(asked) >= question


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


def alone(folder, dropout, callbacks, **changes):
    """The same Trainer without a study, trained."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=DUE[-1], learning_rate=TRIAL.point["learning_rate"],
        seed=TRIAL.seed % 2**32, data_seed=TRIAL.data_seed % 2**32, use_cpu=True, report_to="none", save_strategy="no",
        disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, **ARGS,
    )  # fmt: skip
    transformers.set_seed(arguments.seed)
    given = {"train_dataset": LANGUAGE[:22], "eval_dataset": LANGUAGE[22:], "data_collator": padded} | changes
    trainer = Rates(model=language_model(dropout), args=arguments, callbacks=callbacks, **given)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def test_a_causal_lm_with_padding_and_accumulation_has_the_curve_of_its_trainer_alone(tmp_path):
    recorder = whole(made(model_init=lambda: language_model(0.0)), tmp_path / "study")
    history = alone(tmp_path / "alone", 0.0, [Alone]).state.log_history
    curve = {(one["step"], "validation/loss"): one["eval_loss"].hex() for one in history if "eval_loss" in one}
    assert recorder.measurements == curve
    assert {step for step, _ in curve} == set(DUE)


@pytest.mark.parametrize("collator", [padded, masked])
def test_with_dropout_it_has_the_weights_of_its_trainer_alone_that_evaluates_nothing(collator, tmp_path):
    recorder = whole(made(data_collator=collator), tmp_path)
    latest = next(one for one in recorder.updates[-1].checkpoints if one.kind == "latest" and one.step == DUE[-1])
    weights = read_state(tmp_path, latest)["kept"]["model"]
    expected = alone(tmp_path / "alone", 0.2, [], data_collator=collator).model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], held) for name, held in expected.items())


def test_the_model_of_another_trial_is_refused(tmp_path):
    shared = language_model(0.0)
    workload = made(model_init=lambda: shared)
    whole(workload, tmp_path / "a")
    with pytest.raises(WorkloadError, match="returns the model of another trial; every trial begins with a fresh one"):
        whole(workload, tmp_path / "b")


class Counts(transformers.TrainerCallback):
    seen = 0

    def on_step_end(self, args, state, control, **others):
        self.seen += 1
        assert self.seen == state.global_step


def test_a_callback_that_is_given_is_copied_for_each_trial(tmp_path):
    given = Counts()
    for place in ("a", "b"):
        whole(made(callbacks=[given]), tmp_path / place)
    assert given.seen == 0


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


def test_a_trial_that_is_stopped_has_the_same_bits(tmp_path):
    expected = whole(made(data_collator=masked), tmp_path / "whole").measurements
    for question in (2, 7, 12):
        folder, recorder = tmp_path / str(question), MemoryRecorder()
        setup = setup_for(made(data_collator=masked), folder, STUDY, stop=stop_from(question))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        update = train_loop(setup_for(made(data_collator=masked), folder, STUDY), recorder, TRIAL)
        assert update.state is State.COMPLETE, update.reason
        assert recorder.measurements == expected, question


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_that_is_killed_and_goes_on_many_times_has_the_same_bits(kind, tmp_path):
    expected = whole(made(**KINDS[kind]), tmp_path / "whole").measurements
    recorder, state = MemoryRecorder(), State.RUNNING
    stops = random.Random(kind)
    for _ in range(40):
        setup = setup_for(made(**KINDS[kind]), tmp_path, STUDY, stop=stop_from(stops.randrange(1, 5)))
        state = train_loop(setup, recorder, TRIAL).state
        if state is not State.RUNNING:
            break
    assert state is State.COMPLETE
    assert recorder.measurements == expected


def classifier(point, regularization_off=False):
    """Two classes of rows of 4 numbers, read as words."""
    rate = 0.0 if regularization_off else 0.2
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=8, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate,
        )
    )  # fmt: skip


def rows(first, last):
    draws = random.Random(1)
    words = [[draws.randrange(20) for _ in range(4)] for _ in range(40)]
    return [{"input_ids": torch.tensor(one), "labels": int(sum(one) > 40)} for one in words[first:last]]


def measured(evaluated):
    right = evaluated.predictions.argmax(-1) == evaluated.label_ids
    return {"accuracy": right.mean(), "confusion": [[1, 2], [3, 4]]}


def of_classes(**changes):
    given = {
        "model_init": classifier, "args": {"per_device_train_batch_size": 8}, "train_dataset": rows(0, 24),
        "eval_dataset": {"training": rows(0, 24), "validation": rows(24, 40)}, "compute_metrics": measured,
        "select_by": minimize("validation/loss"),
    }  # fmt: skip
    return TrainerWorkload(**given | changes)


def test_metrics_are_named_by_their_splits_and_the_study_prints_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = whole(of_classes(), tmp_path / "checkpoints")
    names = {name for _, name in recorder.measurements}
    assert names == {"validation/loss", "validation/accuracy", "training/loss", "training/accuracy"}
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    one = whole(of_classes(eval_dataset=rows(24, 40)), tmp_path / "one")
    assert {name for _, name in one.measurements} == {"validation/loss", "validation/accuracy"}
    kept = {key: value for key, value in recorder.measurements.items() if key[1] == "validation/loss"}
    assert kept == {key: value for key, value in one.measurements.items() if key[1] == "validation/loss"}


def test_the_best_weights_become_a_folder_that_from_pretrained_reads(tmp_path):
    workload = made(processing_class=None)
    recorder = whole(workload, tmp_path)
    best = next(one for one in recorder.updates[-1].checkpoints if one.kind == "best")
    weights = read_weights(tmp_path, best)
    workload.save_pretrained(dict(TRIAL.point), tmp_path / best.file, tmp_path / "model")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert found.lm_head.weight is found.transformer.wte.weight  # still tied
    assert all(torch.equal(held, weights[name]) for name, held in found.state_dict().items())
    with pytest.raises(InputError, match="does not hold the weights of the model of this point"):
        of_classes().save_pretrained(dict(TRIAL.point), tmp_path / best.file, tmp_path / "other")


def with_words(**values):
    """A trial of the same study with other hyperparameters beside the rate."""
    return replace(TRIAL, point=Point.of({"learning_rate": TRIAL.point["learning_rate"], **values}))


def test_a_hyperparameter_named_like_a_training_argument_is_set_in_it(tmp_path):
    seen = []

    class Sees(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **others):
            seen.append((args.weight_decay, args.per_device_train_batch_size, args.learning_rate))

    whole(of_classes(callbacks=[Sees], args={}), tmp_path, with_words(weight_decay=0.25, per_device_train_batch_size=3))
    assert seen == [(0.25, 3, TRIAL.point["learning_rate"])]


SWEEP = replace(STUDY, augment=False)


def test_a_model_that_drops_at_random_is_refused_in_a_sweep_and_one_that_is_told_is_not(tmp_path):
    def looked(workload):
        return look_at(setup_for(workload, tmp_path, SWEEP), trial_at(dict(TRIAL.point)))

    with pytest.raises(WorkloadError, match="give model_init the parameter regularization_off"):
        looked(made())
    assert "regularization_off" in looked(of_classes()).read
    assert "regularization_off" in looked(made(model_init=lambda: language_model(0.0))).read


def test_arguments_that_regularize_are_off_in_a_sweep(tmp_path):
    seen = []

    class Sees(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **others):
            seen.append((args.weight_decay, args.label_smoothing_factor))

    workload = of_classes(callbacks=[Sees], args={"weight_decay": 0.1, "label_smoothing_factor": 0.1})
    for study in (SWEEP, STUDY):
        train_loop(setup_for(workload, tmp_path / str(study.augment), study), MemoryRecorder(), TRIAL)
    assert seen == [(0.0, 0.0), (0.1, 0.1)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"args": {"max_steps": 3}}, "'max_steps': the study decides how many steps"),
        ({"args": {"num_train_epochs": 3}}, "'num_train_epochs': the study decides how many steps"),
        ({"args": {"learning_rate": 1e-3}}, "'learning_rate': the study decides it: learning_rate=log_uniform"),
        ({"args": {"warmup_steps": 3}}, r'TrainerWorkload\(schedule="arguments"\)'),
        ({"args": {"save_steps": 3}}, "the study keeps states"),
        ({"args": {"seed": 3}}, "every trial has seeds of its own"),
        ({"args": {"hub_token": "a"}}, "tuner best --export"),
        ({"args": {"ddp_backend": "gloo"}}, "one process on one device"),
        ({"args": transformers.TrainingArguments}, None),
        ({"args": 3}, "takes the words of TrainingArguments as a dict"),
        ({"schedule": "cosine"}, 'is "study" or "arguments", got \'cosine\''),
        ({"model_init": torch.nn.Linear(1, 1)}, "takes a function that returns a fresh model"),
        ({"train_dataset": None}, "needs train_dataset="),
        ({"data_colator": padded}, "takes no 'data_colator'; did you mean 'data_collator'"),
        ({"tokenizer": 1}, "takes no 'tokenizer'; did you mean 'processing_class'"),
    ],
)
def test_a_wrong_declaration_is_told_when_it_is_made(changes, said):
    if said is None:
        made(**changes)  # a function like any other: wrong where it is called
        return
    with pytest.raises(DeclarationError, match=said):
        made(**changes)


def test_all_words_that_the_study_decides_are_told_at_once():
    with pytest.raises(
        DeclarationError, match=r"'save_steps', 'output_dir': the study keeps.*'max_steps': .*Round"
    ) as told:
        made(args={"save_steps": 3, "output_dir": "out", "max_steps": 3})
    assert "length=" not in str(told.value), "no such argument of a Campaign"
    with pytest.raises(DeclarationError, match=r"one, got TrainingArguments$"):
        made(args=transformers.TrainingArguments(report_to=[]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_dataset": lambda: None}, "the function train_dataset returned None"),
        ({"eval_dataset": lambda: None}, "the function eval_dataset returned None"),
        ({"train_dataset": []}, "train_dataset has no examples"),
        ({"eval_dataset": {"validation": []}}, "eval_dataset has no examples"),
        ({"train_dataset": "glue"}, r"train_dataset=\.\.\.\) is a dataset or a function that returns one, got str"),
        ({"eval_dataset": lambda: 3}, r"eval_dataset=\.\.\.\) is a dataset or a function that returns one, got int"),
    ],
)
def test_data_that_is_not_there_or_is_none_is_told(changes, said, tmp_path):
    with pytest.raises(WorkloadError, match=said):
        look_at(setup_for(of_classes(**changes), tmp_path, STUDY), trial_at(dict(TRIAL.point.values_by_name)))


class Ends(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        control.should_training_stop = state.global_step == 3


class Breaks(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        raise RuntimeError("a callback of the user's")


class Locked(transformers.TrainerCallback):
    def __init__(self):
        self.lock = threading.Lock()


class Empty(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"args": {"per_device_batch_size": 3}}, "did you mean 'per_device_"),
        ({"args": lambda point: {"max_steps": 3}}, "the study decides how many steps"),
        ({"args": {"optim": "adamm"}}, "TrainingArguments does not take the args of TrainerWorkload"),
        ({"args": {"weight_decay": 0.5}}, "weight_decay is a hyperparameter of the space and stands in args"),
        ({"model_init": lambda point: None}, "model_init must return a model, got NoneType"),
        ({"eval_dataset": {"test": rows(0, 9)}}, r"the test split never selects anything \(D31\)"),
        ({"callbacks": [transformers.EarlyStoppingCallback]}, "EarlyStoppingCallback, and a trial trains all"),
        ({"callbacks": Ends}, r"takes a list of TrainerCallback classes.* got <class '.*Ends'>"),
        ({"callbacks": partial(list, "x")}, r"takes a list of TrainerCallback classes.* got \['x'\]"),
        ({"callbacks": [Locked()]}, r"cannot be copied for each trial .*callbacks=lambda: \[\.\.\.\]"),
        ({"callbacks": [Ends]}, "the Trainer ended after 3 of 24 updates"),
        ({"callbacks": [Breaks]}, "RuntimeError: a callback of the user's"),
        ({"train_dataset": Empty()}, "Batch does not contain any data"),
        ({"trainer_class": dict}, "takes a subclass of transformers.Trainer"),
        ({"select_by": minimize("validation/f1")}, "select_by reads 'validation/f1', and .* reports"),
    ],
)
def test_a_trial_of_a_wrong_declaration_fails_with_one_clear_error(changes, said, tmp_path):
    workload, recorder = of_classes(**changes), MemoryRecorder()
    study = replace(STUDY, objective=workload.select_by)
    trial = with_words(weight_decay=0.25) if "weight_decay" in said else TRIAL
    try:
        update = train_loop(setup_for(workload, tmp_path, study), recorder, trial)
    except WorkloadError as error:
        told = str(error)
    else:
        assert update.state is State.FAILED
        told = update.reason
    assert re.search(said, told)


def test_smoothed_labels_that_are_searched_select_nothing_by_the_loss(tmp_path):
    trial = with_words(label_smoothing_factor=0.1)
    with pytest.raises(WorkloadError, match="the Trainer smooths the labels of eval_loss, too"):
        train_loop(setup_for(of_classes(args={}), tmp_path, STUDY), MemoryRecorder(), trial)


class Worse(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **others):
        if state.global_step == 4:
            next(model.parameters()).data.fill_(float("nan"))


class TooLarge(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("callback", "said"), [(Worse, "validation/loss is nan"), (TooLarge, "out of memory")])
def test_a_loss_that_is_no_number_and_too_little_memory_are_the_points_fault(callback, said, tmp_path):
    update = train_loop(setup_for(of_classes(callbacks=[callback]), tmp_path, STUDY), MemoryRecorder(), TRIAL)
    assert update.state is State.INFEASIBLE
    assert said in update.reason


def test_one_of_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.TrainingArguments, "world_size", 2)
    with pytest.raises(WorkloadError, match=r"one of 2 processes .* tuner.Command"):
        train_loop(setup_for(of_classes(), tmp_path, STUDY), MemoryRecorder(), TRIAL)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "tuner.delegated.hugging_face_loop", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'tuner\[transformers\]'"):
        of_classes().train(None)


def test_data_that_a_function_returns_are_read_once_and_those_of_a_point_each_time(tmp_path):
    calls = {"once": 0, "each": 0}

    def once():
        calls["once"] += 1
        return rows(0, 24)

    def each(point):
        calls["each"] += 1
        return rows(24, 40)

    workload = of_classes(train_dataset=once, eval_dataset=each)
    for place in ("a", "b"):
        whole(workload, tmp_path / place)
    assert calls == {"once": 1, "each": 2}


def test_the_schedule_of_the_arguments_is_not_that_of_the_study():
    assert made(**KINDS["its own schedule"]).follows_schedule is False
    assert made().follows_schedule is None


@pytest.mark.parametrize(
    ("changes", "may_ask"),
    [({}, False), ({"callbacks": [Alone]}, True), ({"trainer_class": type("Mine", (transformers.Trainer,), {})}, True)],
)
def test_parts_that_are_given_the_length_of_a_trainer_may_use_it(changes, may_ask, tmp_path):
    look = look_at(setup_for(made(**changes), tmp_path, STUDY), trial_at(dict(TRIAL.point.values_by_name)))
    assert bool(look.read & OF_LENGTH.keys()) is may_ask


def test_functions_that_are_none_or_return_no_metrics_are_named(tmp_path):
    with pytest.raises(DeclarationError, match=r"data_collator=\.\.\.\) takes a function, got 3"):
        of_classes(data_collator=3)
    for found, kind in ((None, "NoneType"), ([0.5], "list")):
        workload = of_classes(compute_metrics=lambda evaluated, found=found: found)
        with pytest.raises(WorkloadError, match=f"compute_metrics returns {kind}, and must return metrics by name"):
            look_at(setup_for(workload, tmp_path, STUDY), trial_at(dict(TRIAL.point.values_by_name)))
