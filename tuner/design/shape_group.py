"""Which trials can be trained as one stacked model, as far as their points tell: those that differ only in numbers."""

from tuner.design.points import Point
from tuner.design.prefix import is_of_the_schedule
from tuner.design.study import Study


def shape_group_of(study: Study, point: Point) -> str:
    """The same text for trials with the same optimizer, batch size, hyperparameters, and values that are no floats."""
    words = [str(point.get("optimizer", study.optimizer)), f"batch_size={point.get('batch_size', study.batch_size)}"]
    for name, value in sorted(point.values_by_name):
        short = name.rpartition(".")[2]
        if short not in ("optimizer", "batch_size") and not is_of_the_schedule(name):
            words.append(short if isinstance(value, float) else f"{short}={value}")
    return " ".join(words)
