"""Noisy letters, cleaned with the help of their names: do captions help, and does the order of their words?

The letters are the Latin, Greek and Cyrillic ones of sixteen fonts that come with matplotlib, 16 x 16 pixels; a caption
is the Unicode name of a letter. Both change with the versions of matplotlib and Python, which are recorded: compare
scores within one of each only.
"""

import functools
import hashlib
import platform
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font, __freetype_version__
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Workload,
    branches,
    choice,
    dropped,
    log_uniform,
    minimize,
    shuffled,
    uniform,
)

FONTS = (
    "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSans-BoldOblique DejaVuSerif DejaVuSerif-Bold "
    "DejaVuSerif-Italic DejaVuSerif-BoldItalic DejaVuSansMono DejaVuSansMono-Bold DejaVuSansMono-Oblique "
    "DejaVuSansMono-BoldOblique STIXGeneral STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta"
).split()  # not LastResortHE, which draws one placeholder for every letter
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
SIZE, POINTS = 16, 11  # pixels of a side; at so many points no letter is larger
NOISE = 1.0  # standard deviation; ink is 1, paper is 0
NUM_WORDS = 10  # of the longest name


def font_files():
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return [folder / f"{name}.ttf" for name in FONTS]


def image_of(font, letter):
    """A letter in the middle of SIZE x SIZE pixels: bytes, 255 is ink."""
    font.clear()
    font.set_text(letter, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image())[:SIZE, :SIZE]
    top, left = (SIZE - ink.shape[0]) // 2, (SIZE - ink.shape[1]) // 2
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return image


def letters():
    """Image and name of each letter of each font."""
    for path in font_files():
        font = FT2Font(str(path))
        font.set_size(POINTS, 72)
        for code in sorted(font.get_charmap()):
            name = unicodedata.name(chr(code), "")
            if name.startswith(SCRIPTS):
                yield image_of(font, chr(code)), name


def parts_of(names):
    """The split of each name: 0 for training (80 %), 1 for validation, 2 for the test."""
    known = sorted(set(names))
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).tolist()
    return {known[place]: 0 if rank < 0.8 * len(known) else 1 + rank % 2 for rank, place in enumerate(order)}


@functools.cache
def splits_and_words():
    """The splits, and the words of training names; a letter is in one split with all its fonts."""
    images, names = zip(*letters(), strict=True)
    part = parts_of(names)
    words = sorted({word for name in part if part[name] == 0 for word in name.split()})
    number = {word: place for place, word in enumerate(words, start=1)}  # 0 is no word
    captions = torch.zeros(len(names), NUM_WORDS, dtype=torch.long)
    for row, name in zip(captions, names, strict=True):
        found = [number[word] for word in name.split() if word in number]  # a word that nothing teaches is left out
        row[: len(found)] = torch.tensor(found)
    clean = torch.tensor(np.stack(images)).flatten(1).float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    of = torch.tensor([part[name] for name in names])
    return [
        (clean[of == one], clean[of == one] + NOISE * noise[of == one], captions[of == one]) for one in range(3)
    ], words


class Names(nn.Module):
    """Names [n, NUM_WORDS] as vectors [n, width]: a mean over words, each seen with its place in the name."""

    def __init__(self, words, width):
        super().__init__()
        self.words = nn.Embedding(words + 1, width, padding_idx=0)
        self.places = nn.Parameter(0.5 * torch.randn(NUM_WORDS, width))
        self.seen = nn.Linear(width, width)

    def forward(self, captions):
        there = (captions > 0).unsqueeze(-1)
        seen = torch.relu(self.seen(self.words(captions) + self.places))
        return (seen * there).sum(1) / there.sum(1).clamp(min=1)


class Denoiser(nn.Module):
    """Clean pixels [n, 256] of noisy ones, and of names where the model has captions."""

    def __init__(self, words, captions, width=64, hidden=256):
        super().__init__()
        pixels = SIZE * SIZE
        self.names = Names(words, width) if captions else None
        inputs = pixels + width * captions
        self.body = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, pixels)
        )

    def forward(self, noisy, captions):
        return self.body(noisy if self.names is None else torch.cat([noisy, self.names(captions)], 1))


class Glyphs(Workload):
    """A noisy letter and its Unicode name; batches are (clean, noisy, words of the name)."""

    batch_size = 64
    select_by = minimize("validation/loss", worth=0.0002)
    training_evaluation_examples = 1000

    def data(self):
        training, validation, test = splits_and_words()[0]
        return Splits(training=training, validation=validation, test=test)

    def model(self, point):
        return Denoiser(len(splits_and_words()[1]), captions=point["captions"] == "yes")

    def augment(self, batch, point, generator):  # noise of its own for every step; an evaluation has that of the data
        clean, _, words = batch
        noisy = clean + NOISE * torch.randn(clean.shape, generator=generator, device=clean.device)
        words = shuffled(words, generator, keep=1, share=point.get("shuffle_caption", 0.0))  # the script stays first
        return clean, noisy, dropped(words, generator, share=point.get("caption_dropout", 0.0))

    def loss(self, model, batch, point):
        clean, noisy, words = batch
        return (model(noisy, words) - clean).square().mean()

    def metrics(self, model, batch):  # squared error of a pixel, mean of each letter
        clean, noisy, words = batch
        return {"loss": (model(noisy, words) - clean).square().mean(1)}

    def provenance(self):
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in font_files()))
        splits, words = splits_and_words()
        return {
            "matplotlib": matplotlib.__version__,
            "freetype": __freetype_version__,
            "python": platform.python_version(),
            "unicode": unicodedata.unidata_version,
            "fonts": len(FONTS),
            "sha256 of the fonts": digest.hexdigest(),
            "letters": [len(split[0]) for split in splits],
            "words": len(words),
        }


campaign = Campaign(
    Glyphs(),
    optimizer="adamw",
    warmup=0.05,
    evaluations=20,
    production_steps=4000,
    rounds=[
        Round("Do captions help?", trials=24, max_train_steps=600, scientific=("captions",), space=SearchSpace(
            learning_rate=log_uniform(3e-4, 1e-2),
            captions=branches(
                yes={"shuffle_caption": uniform(0.0, 1.0), "caption_dropout": uniform(0.0, 0.5)},
                no={},
            ),
        )),
        Round("Does the order of their words?", trials=16, max_train_steps=1200, scientific=("shuffle_caption",),
              space=SearchSpace(
            captions="yes",
            shuffle_caption=choice(0.0, 1.0),
            learning_rate=log_uniform(5e-4, 5e-3),
            caption_dropout=uniform(0.0, 0.3),
        )),
        Round("The final model", promote=2),
    ],
)  # fmt: skip
