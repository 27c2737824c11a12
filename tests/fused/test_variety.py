"""Models and losses as people write them, each in a few lines: together the same bits, or refused by name."""

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Images, runs_of
from torch import nn
from torch.nn.utils import parametrizations

from tuner import SearchSpace, log_uniform, uniform
from tuner.errors import NotFusible
from tuner.fused.making import exact_group
from tuner.training.checkpoints import canonical_digest

STEPS = 8
SPACE = SearchSpace(
    learning_rate=log_uniform(1e-3, 1e-2), dropout=uniform(0.1, 0.5), label_smoothing=uniform(0.0, 0.2), x=uniform(1, 3)
)


class Net(nn.Module):
    """A layer, what `use` makes of its 32 features, and another layer."""

    def __init__(self, use, make):
        super().__init__()
        self.a, self.b, self.use = nn.Linear(64, 32), nn.Linear(32, 10), use
        make(self)

    def forward(self, x):
        return self.b(self.use(self, self.a(x)))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.scale * gradient, None


def nothing(model):
    pass


def centred(model, hidden):
    model.mean.data = 0.9 * model.mean + 0.1 * hidden.detach().mean(0)
    return hidden - model.mean


def rotated(model, hidden):
    turned = torch.view_as_complex(hidden.view(-1, 16, 2)) * torch.polar(torch.ones(16), torch.arange(16.0))
    return torch.view_as_real(turned).flatten(1)


def windows(model, hidden):
    return F.unfold(hidden.view(-1, 2, 4, 4), 2, dilation=1).flatten(1)[:, :32]


def upper(model, hidden):
    scores = hidden[:, :4].unsqueeze(2) * hidden[:, 4:12].unsqueeze(1)
    return torch.cat([scores[:, torch.ones(4, 8, dtype=torch.bool).triu(1)], hidden[:, :10]], 1)[:, :32]


def padded(mode):
    return lambda model, hidden: F.pad(hidden.view(-1, 2, 4, 4), (1, 1, 0, 0), mode=mode).flatten(1)[:, :32]


def typed(model, hidden):
    return hidden * sum(isinstance(each, nn.Parameter) for each in model.parameters())


def doubled(model, hidden):
    return F.dropout(hidden.double(), 0.3, model.training).float()


def half(model, hidden):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.dropout(model.c(torch.relu(hidden)), 0.2, model.training).float()


def set_parts(model, hidden):
    new = torch.zeros_like(hidden)
    new[:, :16] = hidden[:, 16:]
    new[:, ::2] += 1.0
    return new


def counted_in_a_new_tensor(model, hidden):
    seen = torch.tensor([0.5, 0.0])
    seen[1] = 2.0
    seen += 1.0
    return hidden * seen.sum()


def without_diagonal(model, hidden):
    alike = hidden @ hidden.t()
    alike.diagonal().zero_()
    return hidden + alike.mean()


def one_in_many(model, hidden):
    return model.norm(hidden.view(-1, 8, 4)).flatten(1)


# (what is done with 32 features, what the model is given for it)
MODELS = {
    "a derivative of one's own": (lambda model, hidden: Straight.apply(hidden, 0.5), nothing),
    "data is replaced": (centred, lambda m: m.register_buffer("mean", torch.zeros(32))),
    "complex numbers": (rotated, nothing),
    "a spectrum": (lambda model, hidden: torch.fft.fft(hidden).real, nothing),
    "windows of images": (windows, nothing),
    "a constant mask": (upper, nothing),
    "reflected edges": (padded("reflect"), nothing),
    "constant edges": (padded("constant"), nothing),
    "asks for parameters": (typed, nothing),
    "dropout in float64": (doubled, nothing),
    "dropout in bfloat16": (half, lambda m: setattr(m, "c", nn.Linear(32, 32))),
    "parts are set": (set_parts, nothing),
    "a new tensor is written into": (counted_in_a_new_tensor, nothing),
    "a diagonal is written into": (without_diagonal, nothing),
    "seldom a feature of a single example": (lambda model, hidden: F.dropout1d(hidden, 1e-3, model.training), nothing),
    "instance norm": (one_in_many, lambda m: setattr(m, "norm", nn.InstanceNorm1d(8, affine=True))),
    "spectral norm": (
        lambda model, hidden: model.c(hidden),
        lambda m: setattr(m, "c", parametrizations.spectral_norm(nn.Linear(32, 32))),
    ),
    "integers frozen": (
        lambda model, hidden: hidden,
        lambda m: m.register_parameter("n", nn.Parameter(torch.arange(3), requires_grad=False)),
    ),
}


def target(batch):
    return F.one_hot(batch[1], 10).float()


def of_two(logits, batch, point):
    return F.cross_entropy(logits.view(-1, 2, 5).transpose(1, 2), batch[1].view(-1, 1).expand(-1, 2) % 5)


def focal(logits, batch, point):
    losses = F.cross_entropy(logits, batch[1], reduction="none")
    return ((1.0 - torch.exp(-losses)) ** point["x"] * losses).mean()


def contrastive(logits, batch, point):
    rows = F.normalize(logits, dim=-1)
    similar = (rows @ rows.t() / point["x"])[~torch.eye(len(rows), dtype=torch.bool)].view(len(rows), -1)
    return F.cross_entropy(similar, torch.arange(len(rows)).clamp(max=len(rows) - 2))


def counted(logits, batch, point):
    scale = point["x"]
    scale *= 2.0
    return F.cross_entropy(logits, batch[1]) * scale * torch.tensor(point["x"]) * torch.full((2,), point["x"]).sum()


def smoothed(**options):
    def loss(logits, batch, point):
        return F.cross_entropy(logits, batch[1], label_smoothing=point["label_smoothing"], **options)

    return loss


def three_times(logits, batch, point):
    """The gradients of one tensor from three places of one call, and from others."""
    mixed = torch.addcmul(logits, logits, logits, value=point["x"])
    return F.cross_entropy(mixed, batch[1]) + torch.lerp(logits, 2.0 * logits, point["dropout"]).exp().mean()


def products_of_vectors(logits, batch, point):
    """Values that no gradient depends on: their last bit shows in the loss alone, and that only now and then."""
    matrix = logits[:10]
    return F.cross_entropy(logits, batch[1]) + 1e-3 * (
        torch.trace(matrix) + torch.dot(logits[0], logits[1]) + torch.mv(matrix, logits[0]).sum()
    )


def numbers_put_into_a_tensor(logits, batch, point):
    scaled = 1.0 * logits
    scaled[:, 0] = point["x"]
    scaled[:, 1:3] *= point["x"]
    return F.cross_entropy(scaled, batch[1])


def similar(logits, batch, point):
    return F.cross_entropy(logits * F.cosine_similarity(logits, logits.flip(0)).unsqueeze(1), batch[1])


def marked(logits, batch, point):
    chosen = logits.clone()
    chosen[batch[1] == 3] = 0.0
    return F.cross_entropy(chosen, batch[1])


def of_complex(logits, batch, point):
    """A vector of 9 numbers: the last one is computed by another routine than those that fill a register."""
    turned = torch.complex(logits[:, :9], logits[:, 1:])
    turned = turned * turned[0]
    turned *= torch.complex(logits[:, 1:], logits[:, :9])
    return F.cross_entropy(torch.cat([turned.abs(), logits], 1), batch[1])


LOSSES = {
    "complex numbers": of_complex,
    "similarity": similar,
    "a constant at a shared mask": marked,
    "products of vectors": products_of_vectors,
    "numbers put into a tensor": numbers_put_into_a_tensor,
    "smoothing in bfloat16": lambda logits, batch, point: smoothed()(logits.bfloat16(), batch, point),
    "three times": three_times,
    "focal": focal,
    "huber": lambda logits, batch, point: F.huber_loss(logits, target(batch), delta=point["x"]),
    "smoothing with class weights": smoothed(weight=torch.linspace(0.5, 1.5, 10)),
    "smoothing of a sum": smoothed(reduction="sum"),
    "pairs": of_two,
    "contrastive": contrastive,
    "clamped": lambda logits, batch, point: F.cross_entropy(logits.clamp(min=-point["x"], max=1.0), batch[1]),
    "filled": lambda logits, batch, point: F.cross_entropy(
        logits.masked_fill(target(batch).bool(), point["x"]), batch[1]
    ),
    "with alpha": lambda logits, batch, point: F.cross_entropy(
        torch.add(logits, logits.square(), alpha=point["dropout"]), batch[1]
    ),
    "slope": lambda logits, batch, point: F.cross_entropy(F.leaky_relu(logits, point["dropout"]), batch[1]),
    "a number as a tensor": counted,
    "agreed": lambda logits, batch, point: F.cross_entropy(logits, batch[1]) * (point["x"] > 0.5) * int(point["x"] * 0),
}


class Case(Images):
    def __init__(self, use=lambda model, hidden: torch.relu(hidden), make=nothing, loss=None):
        self.use, self.make, self.written = use, make, loss or smoothed()

    def model(self, point):
        return Net(self.use, self.make)

    def loss(self, model, batch, point):
        return self.written(model(batch[0]), batch, point)


def assert_the_same_bits(case):
    together, alone = runs_of(case, 3, SPACE), runs_of(case, 3, SPACE)
    exact_group(together).advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    for one, other in zip(together, alone, strict=True):
        assert canonical_digest(one.state()) == canonical_digest(other.state())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_bits_together_and_alone(name):
    assert_the_same_bits(Case(*MODELS[name]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_the_same_bits_together_and_alone(name):
    assert_the_same_bits(Case(loss=LOSSES[name]))


@pytest.mark.parametrize("wide", [1, 2, 3])
def test_a_number_that_happens_to_be_a_special_exponent_is_that(wide):
    """Torch squares where the exponent is the number 2; a tensor of twos it raises otherwise."""

    def loss(logits, batch, point):
        return (F.cross_entropy(logits, batch[1], reduction="none") ** (point["x"] * 0.0 + 1.0 * wide)).mean()

    assert_the_same_bits(Case(loss=loss))


def own_gradients(logits, batch, point):
    loss = F.cross_entropy(logits, batch[1])
    return loss + torch.autograd.grad(loss, logits, create_graph=True)[0].square().sum()


def into_zeros(model, hidden):
    sums = torch.zeros(len(hidden), 8).index_add_(1, torch.arange(32) % 8, hidden)
    return torch.cat([sums, hidden], 1)[:, :32]


REFUSED = {
    "grad: the loss computes its own gradients": Case(loss=own_gradients),
    "index_add_ writes values of a single trial into a tensor that all trials share; make it by x.new": Case(
        into_zeros
    ),
    "__format__: the code reads the value": Case(lambda model, hidden: hidden + len(f"{hidden.mean():.3f}")),
    "storage_offset: a Python value that differs between trials": Case(
        lambda model, hidden: hidden * (1.0 + hidden.storage_offset())
    ),
    "__int__: the code reads the value": Case(lambda model, hidden: hidden[:, : int(hidden.mean())]),
    "_local_scalar_dense: the code reads the value": Case(
        loss=lambda logits, batch, point: logits.mean() * torch.ones(2).new_full((2,), point["x"]).sum()
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_together_is_refused_by_name(reason):
    with pytest.raises(NotFusible, match=reason.replace("(", r"\(")):
        exact_group(runs_of(REFUSED[reason], 2, SPACE))
