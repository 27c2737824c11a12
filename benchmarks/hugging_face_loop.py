"""Cost of a study around the Trainer of Hugging Face: the same Trainer with and without it, in one process.

    python benchmarks/hugging_face_loop.py                   a BERT of 4.4 million weights
    python benchmarks/hugging_face_loop.py --steps 200       shorter

A trial with 50 evaluations and a commit every 5 seconds is trained by its study, then by the Trainer alone, which
evaluates at the same steps; several times in turn, and the quickest of each counts. The ratio of the two is printed
with the time of one update, by the wall clock and in seconds of this process's CPU.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch.utils.data import Dataset

from tuner import TrainerWorkload, log_uniform, minimize
from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.delegated.engine import Delegated
from tuner.delegated.setup import LoopSetup
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.records import State
from tuner.rounds.plan import planned_trials

HERE = Path(__file__).resolve().parent
sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != HERE]  # a file here is named datasets, too
sys.path.append(str(HERE.parent / "tests"))
from support.tiny import MemoryRecorder  # noqa: E402

EVALUATIONS = 50
COMMIT_SECONDS = 5.0
CPU = torch.device("cpu")


class Words(Dataset[dict[str, torch.Tensor]]):
    """Random words, and whether they sum to much."""

    def __init__(self, count: int, seed: int, length: int) -> None:
        self.words = torch.randint(1000, (count, length), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        words = self.words[place]
        return {"input_ids": words, "labels": (words.float().mean() > 500).long()}


def model(width: int) -> transformers.PreTrainedModel:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=1000, hidden_size=width, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=4 * width, max_position_embeddings=64,
        )
    )  # fmt: skip


ARGS = {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 64}


class AtSteps(transformers.TrainerCallback):
    """Evaluates after the same updates as the study."""

    def __init__(self, due: tuple[int, ...]) -> None:
        self.due = frozenset(due)

    def on_step_end(self, args, state, control, **others):
        control.should_evaluate = state.global_step in self.due


def alone(study: Study, width: int, data: tuple[Words, Words], folder: Path) -> None:
    """The Trainer as a script has it, quiet and without checkpoints."""
    trial = planned_trials(study)[0]
    transformers.set_seed(1)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=study.budget.max_train_steps, learning_rate=trial.point["learning_rate"],
        lr_scheduler_type="constant", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        logging_strategy="no", dataloader_pin_memory=False, **ARGS,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model(width), args=arguments, train_dataset=data[0], eval_dataset=data[1],
        callbacks=[AtSteps(study.budget.evaluation_steps)],
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def studied(study: Study, width: int, data: tuple[Words, Words], folder: Path) -> None:
    """The same as a trial."""
    workload = TrainerWorkload(
        model_init=lambda: model(width), args=ARGS, train_dataset=data[0], eval_dataset=data[1],
        select_by=minimize("validation/loss"),
    )  # fmt: skip
    setup = LoopSetup(
        study=study, workload=workload, device=CPU, checkpoint_root=folder, checkpoint_place="trials",
        commit_seconds=COMMIT_SECONDS,
    )  # fmt: skip
    recorder = MemoryRecorder()
    (update,) = (
        Delegated(setup).trainer(recorder, lambda claim, step: None).train([recorder.claim(planned_trials(study)[0])])
    )
    if update.state is not State.COMPLETE:
        raise SystemExit(update.reason)


def seconds(train: Callable[[Path], None]) -> tuple[float, float]:
    """By the wall clock, and of this process's CPU, in which the thread that writes checkpoints counts, too."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        train(Path(folder))
        return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-3))
    study = Study(
        name="round-1", kind="round", goal="", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget.with_evaluations(options.steps, EVALUATIONS), num_trials=1,
        objective=minimize("validation/loss"),
        fitted_when=None, optimizer=None, schedule=constant(), warmup_steps=0, batch_size=0, seed=1, keep_best=1,
        round=1,
    )  # fmt: skip
    data = Words(2000, 0, 64), Words(64, 1, 64)
    torch.set_num_threads(1)
    times: dict[str, list[tuple[float, float]]] = {"alone": [], "studied": []}
    for _ in range(options.repeats):
        times["studied"].append(seconds(lambda folder: studied(study, options.width, data, folder)))
        times["alone"].append(seconds(lambda folder: alone(study, options.width, data, folder)))
        print({name: [round(each, 2) for each in found[-1]] for name, found in times.items()}, flush=True)
    quickest = {name: [min(each) for each in zip(*found, strict=True)] for name, found in times.items()}
    wall, cpu = (ours / theirs for ours, theirs in zip(quickest["studied"], quickest["alone"], strict=True))
    print(f"{options.steps} updates of {quickest['alone'][0] / options.steps * 1e3:.1f} ms, {EVALUATIONS} evaluations")
    print(f"ratio, quickest of {options.repeats}: {wall:.4f} by the wall clock, {cpu:.4f} of CPU")


if __name__ == "__main__":
    main()
