"""A trial: one point and its seeds, trained for the whole budget along one schedule."""

from dataclasses import dataclass

from tuner.budget.schedules import Schedule
from tuner.design.points import Point


@dataclass(frozen=True, slots=True)
class Trial:
    """What determines a trial besides its study and the machine it runs on.

    seed, data_seed: of initialization and dropout, and of the order of the batches; both are stored (D42).
    origin: where the point came from ("quasi-random 12", "round-1 trial 7").
    pins: the steps after which the trial saves a shared checkpoint, from which others may start (`design.prefix`).
    """

    number: int
    point: Point
    seed: int
    data_seed: int
    schedule: Schedule
    origin: str
    shape_group: str = ""
    pins: tuple[int, ...] = ()
