"""A byte-level language model that has read the standard library, and then reads Python's help pages.

Pretraining is `stdlib_lm.py`, shorter. The help pages (`pydoc_data.topics`) are less text, of another kind. The
questions: what is gained over training from scratch, and do adapters of a small rank do instead of all weights?
"""

import hashlib
import platform
from pydoc_data.topics import topics

from stdlib_lm import StandardLibrary, windows

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    best_of,
    choice,
    log_uniform,
    with_lora,
)


def pages():
    """The help pages as bytes, in the order of their names."""
    return "\n".join(text for _, text in sorted(topics.items())).encode()


class Topics(StandardLibrary):
    """Nats per byte of help pages that were not trained on: the last fifth of them, by name."""

    evaluation_batch_size = 256

    def data(self):
        text = pages()
        end, middle = int(0.8 * len(text)), int(0.9 * len(text))
        return Splits(windows(text[:end]), windows(text[end:middle]), windows(text[middle:]))

    def provenance(self):
        text = pages()
        return {"python": platform.python_version(), "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


class AdaptedTopics(Topics):
    """The same with the pretrained weights frozen, and a change of low rank beside each of the two matrices."""

    def model(self, point):
        return with_lora(super().model(point), "body.*", rank=point["rank"], alpha=point["alpha"])


PRETRAINING = SearchSpace(learning_rate=log_uniform(1e-3, 3e-2), weight_decay=log_uniform(1e-3, 1.0))
TUNING = SearchSpace(learning_rate=log_uniform(3e-4, 3e-2), weight_decay=log_uniform(1e-3, 1.0))
ADAPTERS = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), rank=choice(2, 6, 18), alpha=8.0)

pretraining = Campaign(
    StandardLibrary(),
    warmup_steps=20,
    evaluations=20,
    name="stdlib-pretrained",
    production_steps=1000,
    rounds=[
        Round("Which rate for pretraining?", trials=10, space=PRETRAINING),
        Round("The pretrained model", promote=1, transfer="rescale"),
    ],
)
adapters = Campaign(
    AdaptedTopics(),
    warmup_steps=20,
    evaluations=20,
    name="topics-adapters",
    start_from=best_of(pretraining, fresh="*.lora_*"),
    production_steps=250,
    rounds=[
        Round("Which rank?", trials=15, scientific=("rank",), space=ADAPTERS, max_train_steps=125),
        Round("The adapters", promote=3, transfer="rescale"),
    ],
)
campaign = Campaign(
    Topics(),
    warmup_steps=20,
    evaluations=20,
    name="topics",
    start_from=best_of(pretraining),
    production_steps=250,
    rounds=[
        Round("Which rate, which decay?", trials=10, space=TUNING, max_train_steps=125),
        Round("The fine-tuned model", promote=2, transfer="rescale"),
        Round("From scratch, equal total steps", trials=10, space=PRETRAINING, start="scratch", total="equal"),
        Round("From scratch, equal fine-tuning steps", trials=10, space=PRETRAINING, start="scratch"),
    ],
)
