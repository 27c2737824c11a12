"""Which trials can be trained as one stacked model, as far as their points tell: those that differ only in numbers."""

from tuner.design.names import Name
from tuner.design.points import Point
from tuner.design.study import Study


def shape_group_of(study: Study, point: Point) -> str:
    """The same text for trials with the same optimizer, batch size, hyperparameters, and values that are no floats."""
    words = [str(point.get("optimizer", study.optimizer)), f"batch_size={point.get('batch_size', study.batch_size)}"]
    for name, value in sorted(point.values_by_name):
        known = Name.of(name)
        if known.short not in ("optimizer", "batch_size") and not known.is_of_the_schedule:
            words.append(known.short if isinstance(value, float) else f"{known.short}={value}")
    return " ".join(words)
