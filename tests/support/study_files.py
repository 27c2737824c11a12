"""Study files as text, for tests of the command line."""

TINY = """
import torch
import torch.nn.functional as F
from torch import nn
from tuner import *


class Tiny(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(80, 6, generator=generator)
        y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
        return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        logits = model(batch[0])
        wrong = logits.argmax(-1) != batch[1]
        return {{"loss": F.cross_entropy(logits, batch[1], reduction="none"), "error_rate": wrong}}


campaign = Campaign(
    Tiny(),
    rounds=[
        Round("a test", trials={trials}, max_train_steps={steps}, space=SearchSpace(
            learning_rate=log_uniform({low}, {high}), dropout=uniform(0.0, 0.5, limits="low"))),
        Round("the best", promote=2),
    ],
    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),
    evaluations=20,
    {more}
)
"""


def write_study(folder, name="tiny.py", *, trials=4, steps=60, low=1e-3, high=1e-1, more="", replace=()):
    """Write a study file and return its path; `replace`: pairs of text to change in it."""
    text = TINY.format(trials=trials, steps=steps, low=low, high=high, more=more)
    for old, new in replace:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path
