"""A small GPT over the characters of Python's help pages: do norms and biases need weight decay?

A language model is never trained to its end, so there is no sweep: production_steps says how long the final run is.
The warmup is a share of the first budget, and is carried over in steps.
"""

import hashlib
import platform
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, cosine, log_uniform, minimize

CONTEXT, WIDTH, HEADS, LAYERS = 32, 64, 4, 2
TEXT = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")


class Block(nn.Module):
    """Attention to what came before, then a feed-forward net; norms stand before both."""

    def __init__(self, dropout):
        super().__init__()
        self.before_attention, self.before_feed_forward = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.queries_keys_values, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        heads = self.queries_keys_values(self.before_attention(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.dropout(self.mix(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(self.before_feed_forward(x)))


class GPT(nn.Module):
    """The next character from up to CONTEXT before it; the embedding is also the output layer."""

    def __init__(self, dropout):
        super().__init__()
        self.characters, self.positions = nn.Embedding(128, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block(dropout) for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        for embedding in (self.characters, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, text):
        """Logits [n, CONTEXT, 128] for what follows each character of `text` [n, CONTEXT]."""
        x = self.characters(text) + self.positions.weight
        return F.linear(self.norm(self.blocks(x)), self.characters.weight)


class HelpPages(Workload):
    """Nats per character on pages that were not trained on."""

    batch_size = 16
    evaluation_batch_size = 64
    training_evaluation_examples = 128
    select_by = minimize("validation/loss", worth=0.01)
    no_decay = "vectors"  # norms and biases, as GPTs are trained; the embedding is a matrix and decays

    def data(self):
        tokens = torch.frombuffer(bytearray(TEXT), dtype=torch.uint8)
        windows = tokens.unfold(0, CONTEXT + 1, CONTEXT)  # neighbours share one character
        first, second = int(0.8 * len(windows)), int(0.9 * len(windows))
        held_out = (part[::6].contiguous() for part in (windows[first:second], windows[second:]))
        return Splits(windows[:first].contiguous(), *held_out)

    def provenance(self):
        return {"python": platform.python_version(), "sha256": hashlib.sha256(TEXT).hexdigest()}

    def model(self, point):
        return GPT(point["dropout"])

    def loss(self, model, batch, point):
        return self.nats(model, batch).mean()

    def metrics(self, model, batch):
        return {"loss": self.nats(model, batch).mean(1)}

    def nats(self, model, batch):
        text = batch[0].long()
        return F.cross_entropy(model(text[:, :-1]).transpose(1, 2), text[:, 1:], reduction="none")


campaign = Campaign(
    HelpPages(),
    optimizer="adamw",
    schedule=cosine(final=0.1),
    warmup=0.05,
    evaluations=20,
    production_steps=600,
    rounds=[
        Round("Which rate and weight decay suit short runs?", trials=10, max_train_steps=200, space=SearchSpace(
            learning_rate=log_uniform(3e-4, 3e-2),
            weight_decay=log_uniform(1e-3, 1.0),
            clip_norm=1.0,
            dropout=0.0,
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
