"""A workload with a planted instability: a quadratic whose curvature falls with the steps, so that all is known.

The loss at step t is h(t)/2 times the squared distance to a noisy goal; h is 1 in the first `steep` steps and FLOOR
after them. A step at a rate above 2 / h(t) goes further away than it came from, and one below comes nearer. So a
constant rate is unstable where it is above 2, and a warmup is long enough where its rate stays below 2 / h(t).
"""

import torch
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, constant, log_uniform, minimize

FLOOR, BUDGET, THRESHOLD = 0.02, 300, 2.0
RATES = (0.6, 0.9)  # twice such a rate is stable, four times is not
ABOVE = (2.0, 4.0, 8.0, 16.0)  # doubled until it diverges
WARMUPS = (12, 40, 150, 500)  # none lies near the length from which on it is stable


def steep_steps(seed):
    """Two plants, by turns: they need warmups of 150 and of 500 steps."""
    return 8 if seed % 2 else 20


def unstable_multiple(rate):
    """The lowest of the multiples of a rate that goes further away at each step."""
    return next(multiple for multiple in ABOVE if multiple * rate > THRESHOLD)


def shortest_warmup(base, steep):
    """The shortest of the warmups to a base rate whose rate times curvature stays below 2 at every step."""
    return next(
        warmup for warmup in WARMUPS if base * min(1.0, steep / warmup) < THRESHOLD and base * FLOOR < THRESHOLD
    )


class Valley(nn.Module):
    def __init__(self, steep, dimensions=8):
        super().__init__()
        self.steep = steep
        self.place = nn.Parameter(1.0 + 0.3 * torch.randn(dimensions))
        self.register_buffer("made", torch.zeros(()))

    def forward(self, noise):
        curvature = torch.where(self.made < self.steep, 1.0, FLOOR)
        if self.training:
            self.made += 1.0
        return 0.5 * curvature * ((self.place - noise) ** 2).sum(1)


class InValley(Workload):
    batch_size = 32
    select_by = minimize("validation/loss")

    def __init__(self, steep=20):
        self.steep = steep

    def data(self):
        noise = 0.05 * torch.randn(640, 8, generator=torch.Generator().manual_seed(0))
        return Splits(training=(noise[:512],), validation=(noise[512:],))

    def model(self, point):
        return Valley(self.steep)

    def loss(self, model, batch, point):
        return model(batch[0]).mean()

    def metrics(self, model, batch):
        return {"loss": model(batch[0])}


def campaign(seed=0, *, trials=3, optimizer="sgd"):
    space = SearchSpace(learning_rate=log_uniform(*RATES))
    rounds = [Round("the best rate", trials=trials, max_train_steps=BUDGET, space=space)]
    workload = InValley(steep_steps(seed))
    return Campaign(workload, optimizer=optimizer, schedule=constant(), seed=seed, name="valley", rounds=rounds)
