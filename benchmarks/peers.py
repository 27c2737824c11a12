"""The trainer's step loop against ready-made trainers on the digits MLP (64-128-128-10, batch 64): ratios of one run.

    pip install lightning "transformers[torch]"      # what is missing is skipped, and said
    python benchmarks/peers.py [ROUNDS]

CPU time of the whole process between 200 and 1,200 steps, so that starting up does not count; one thread, the
trainers in turn, medians. All train on the same batches, prepared beforehand. The peers run as their users run them,
with torch's default AdamW: Lightning barebones; Lightning with CSV logger, progress bar, checkpoints and a schedule of
each step; the Hugging Face Trainer logging each 50 steps. Ours has its schedule, keeps and checks each loss and reads
the gradient norm; evaluation and commits are in nobody's figure.
"""

import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from reference_studies.digits import Digits, campaign

from tuner.design.points import Point
from tuner.design.workload import Workload
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

try:
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
except ImportError:
    lightning = None
try:
    import transformers
except ImportError:
    transformers = None

SHORT, LONG = 200, 1200
POINT = Point.of({"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.0, "label_smoothing": 0.0})


def mlp():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def prepared(steps):
    """Batches of the digits study: each epoch in its own order."""
    assert isinstance(campaign.workload, Workload)
    images, labels = campaign.workload.data().training
    orders = [torch.randperm(len(images)) for _ in range(1 + steps * 64 // 960)]
    places = torch.cat([order[:960] for order in orders])[: steps * 64].split(64)
    return [(images[place], labels[place]) for place in places]


BATCHES = prepared(LONG)


class PlainDigits(Digits):
    def model(self, point):
        return mlp()


def tuner_loop(steps):
    study = study_of_round(campaign, 1, LONG)
    device = torch.device("cpu")
    setting = TrainingSetup(study, PlainDigits(), Data.of(campaign.workload, device), device, Path("nowhere"), "bench")
    run = TrialRun(setting, trial_at(study, 0, POINT, "by hand"))
    while run.step < steps:
        run.advance(run.step + 50)
        torch.stack(run.losses).tolist()
        run.read_gradient_norm()
        run.losses = []


def bare_loop(steps):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for images, labels in BATCHES[:steps]:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


def lightning_loops():
    """Barebones, and as usual."""

    class Module(lightning.LightningModule):
        def __init__(self, usual):
            super().__init__()
            self.model, self.usual = mlp(), usual

        def training_step(self, batch, place):
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            if self.usual:
                self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            if not self.usual:
                return optimizer
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / (2 * LONG))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def fit(steps, usual):
        loader = DataLoader(BATCHES, batch_size=None)
        with tempfile.TemporaryDirectory() as folder:
            settings = {"barebones": True}
            if usual:
                settings = {
                    "logger": CSVLogger(folder), "callbacks": [ModelCheckpoint(folder)], "enable_model_summary": False,
                }  # fmt: skip
            trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", default_root_dir=folder, **settings)
            trainer.fit(Module(usual), loader)

    return {"Lightning barebones": lambda n: fit(n, False), "Lightning as usual": lambda n: fit(n, True)}


def hugging_face_loop():
    transformers.utils.logging.set_verbosity_error()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = mlp()

        def forward(self, images, labels):
            logits = self.model(images)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return DataLoader([{"images": x, "labels": y} for x, y in BATCHES], batch_size=None)

    def fit(steps):
        with tempfile.TemporaryDirectory() as folder:
            settings = transformers.TrainingArguments(
                folder, max_steps=steps, logging_steps=50, save_strategy="no", report_to="none", use_cpu=True,
                learning_rate=1e-3, optim="adamw_torch", disable_tqdm=True, per_device_train_batch_size=64,
            )  # fmt: skip
            Trainer(Model(), settings, train_dataset=BATCHES).train()

    return {"Hugging Face Trainer": fit}


def slope(loop):
    """CPU microseconds of a step."""
    taken = []
    for steps in (SHORT, LONG):
        began = time.process_time()
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            loop(steps)
        taken.append(time.process_time() - began)
    return 1e6 * (taken[1] - taken[0]) / (LONG - SHORT)


GOALS = {"Lightning barebones": 1.5, "Lightning as usual": 2.3, "Hugging Face Trainer": 1.4}


def main(rounds: int) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    loops = {"tuner": tuner_loop, "bare loop": bare_loop}
    for package, made in ((lightning, lightning_loops), (transformers, hugging_face_loop)):
        if package is not None:
            loops |= made()
    for missing in [kind for kind in GOALS if kind not in loops]:
        print(f"{missing}: not installed, skipped")
    taken = {kind: [] for kind in loops}
    for place in range(rounds + 1):
        for kind, loop in loops.items():
            microseconds = slope(loop)
            if place:
                taken[kind].append(microseconds)
    missed = 0
    for kind, values in taken.items():
        ratio = statistics.median(other / ours for ours, other in zip(taken["tuner"], values, strict=True))
        missed += ratio < GOALS.get(kind, 0.0)
        goal = f" (goal {GOALS[kind]})" if kind in GOALS else ""
        print(f"{kind:21} {statistics.median(values):7.0f} us/step   tuner's rate is {ratio:.2f} times its{goal}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
