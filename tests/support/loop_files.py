"""A study file with a loop of its own, of two trials."""

LOOP = """
import torch
from torch import nn
from tuner import *


class Mine(OwnLoop):
    select_by = minimize("validation/loss")

    def train(self, trial):
        torch.manual_seed(trial.seed)
        weight = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(weight.parameters(), lr=trial.point["learning_rate"])
        trial.keep(weight=weight, optimizer=optimizer)
        trial.keep_files(lambda folder: (folder / "mine.txt").write_text("kept"), lambda folder: None)
        (trial.folder / "notes.txt").write_text("mine")
        for step in trial.steps():
            optimizer.zero_grad()
            loss = (weight(torch.ones(1, 2)) ** 2).sum()
            loss.backward()
            optimizer.step()
            if trial.evaluates(step):
                trial.report({"validation/loss": loss.detach()})


campaign = Campaign(Mine(), rounds=[
    Round("q", trials=2, max_train_steps=20, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))], evaluations=4)
"""
