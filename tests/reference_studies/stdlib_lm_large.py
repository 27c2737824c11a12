"""The byte-level language model in a larger size: about an hour on two cores."""

from stdlib_lm import SPACE, StandardLibrary

from tuner import Campaign, Round, constant_then_decay


class LargeStandardLibrary(StandardLibrary):
    """Three times as wide, four times the examples in a step."""

    batch_size = 32
    width, hidden = 64, 512


campaign = Campaign(
    LargeStandardLibrary(),
    optimizer="adamw",
    schedule=constant_then_decay(0.2),
    warmup_steps=100,
    production_steps=10_000,
    evaluations=30,
    rounds=[
        Round("Which learning rate, weight decay, momentum and clipping suit short runs?", trials=24, space=SPACE),
        # The decay keeps its share; one as long as that of the short runs would be 2 % of the long one.
        Round("The final model: the winner and a rival at production length", promote=2, transfer="rescale"),
    ],
)
