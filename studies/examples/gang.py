"""A wider GPT over Python's help pages, in slices: one process trains a trial, or two or four, with the same bits.

`tuner run studies/examples/gang.py --yes` trains in one process, and with `--gang 2` in two that share each trial.
"""

import torch
import torch.nn.functional as F
from gpt import TEXT, HelpPages
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, cosine, log_uniform

CONTEXT, WIDTH, HEADS, LAYERS = 64, 128, 4, 2


class WideGPT(nn.Module):
    """The next character from up to CONTEXT before it; the embedding is also the output layer."""

    def __init__(self, dropout):
        super().__init__()
        self.characters, self.positions = nn.Embedding(128, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        for embedding in (self.characters, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, text):
        """Logits [n, CONTEXT, 128] for what follows each character of `text` [n, CONTEXT]."""
        x = self.characters(text) + self.positions.weight
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        return F.linear(self.blocks(x, mask, is_causal=True), self.characters.weight)


class WiderPages(HelpPages):
    """The same pages, in longer windows. Each batch is 8 slices, which 1, 2, 4 or 8 processes can share."""

    batch_size = 32
    slices = 8
    training_evaluation_examples = 64

    def data(self):
        windows = torch.frombuffer(bytearray(TEXT), dtype=torch.uint8).unfold(0, CONTEXT + 1, CONTEXT)
        first, second = int(0.8 * len(windows)), int(0.9 * len(windows))
        held_out = (part[::12].contiguous() for part in (windows[first:second], windows[second:]))
        return Splits(windows[:first].contiguous(), *held_out)

    def model(self, point):
        return WideGPT(point["dropout"])


campaign = Campaign(
    WiderPages(),
    optimizer="adamw",
    schedule=cosine(final=0.1),
    warmup=0.1,
    evaluations=20,
    production_steps=80,
    rounds=[
        Round("Which rate suits short runs?", trials=6, max_train_steps=40, space=SearchSpace(
            learning_rate=log_uniform(3e-4, 1e-2), weight_decay=0.1, clip_norm=1.0, dropout=0.1,
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
