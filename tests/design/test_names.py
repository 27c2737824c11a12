"""Names of hyperparameters and the values of a point, with the type that a caller needs."""

import pytest

from tuner.design.names import Name
from tuner.design.points import Point
from tuner.errors import DeclarationError


@pytest.mark.parametrize(
    ("text", "branch", "short"),
    [("width", "", "width"), ("sgd.momentum", "sgd", "momentum"), ("optimizer.sgd.lr", "optimizer.sgd", "lr")],
)
def test_a_name_is_read_from_its_text_and_written_as_it_was(text, branch, short):
    assert Name.of(text) == Name(branch, short)
    assert str(Name(branch, short)) == text


def test_only_warmup_and_decay_shape_the_schedule_in_any_branch():
    of_the_schedule = ["warmup_steps", "decay_fraction", "sgd.warmup_steps"]
    assert all(Name.of(name).is_of_the_schedule for name in of_the_schedule)
    assert not any(Name.of(name).is_of_the_schedule for name in ["learning_rate", "warmup_steps.momentum"])


def test_a_point_gives_numbers_as_numbers_by_short_names_too():
    point = Point.of({"optimizer": "sgd", "sgd.learning_rate": 1, "warmup_steps": 10.0, "norm": None, "bias": True})
    assert point.number("learning_rate") == 1.0
    assert isinstance(point.number("learning_rate"), float)
    assert point.whole("warmup_steps") == 10
    assert isinstance(point.whole("warmup_steps"), int)
    assert point.number("momentum", 0.9) == 0.9
    assert point.whole("batch_size", 64) == 64
    with pytest.raises(KeyError, match="this point has no 'momentum'"):
        point.number("momentum")
    for name in ("optimizer", "norm", "bias"):
        with pytest.raises(DeclarationError, match=f"{name} must be a number, got"):
            point.number(name, 1.0)
