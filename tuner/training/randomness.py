"""Random numbers as functions of (seed, step) or (seed, epoch, index), so that no generator's state has to be saved.

The generators are the global ones that users' code draws from: torch's, on the CPU and on the device, Python's and
NumPy's (of its old functions, `np.random.normal` and the like).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from tuner.design.seeds import derived_seed
from tuner.training.host_generators import HOST

_MASK = (1 << 64) - 1
_WORD = (1 << 32) - 1
_GOLDEN = 0x9E37_79B9  # of 2**32: its multiples lie as far from each other as those of any number can
_HALF = 1 << 31
_OF_BATCHES = 0xC011_A7ED << 16


def step_seed(seed: int, step: int) -> int:
    """A well mixed 64-bit seed for one step (splitmix64): cheap enough for every step."""
    z = (seed + (step + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


def seed_torch_generators(seed: int, device: torch.device) -> None:
    """Seed the generators a user's `nn.Dropout` draws from.

    Not `torch.manual_seed`, which takes a hundred times as long.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        cuda_generator(device).manual_seed(seed)


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed torch's, Python's and NumPy's generators."""
    seed_torch_generators(seed, device)
    HOST.seed(seed)


def cuda_generator(device: torch.device) -> torch.Generator:
    """The generator that CUDA operations of user code draw from."""
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return torch.cuda.default_generators[device.index or 0]


def epoch_order(data_seed: int, epoch: int, num_examples: int) -> torch.Tensor:
    """The order of the examples in one pass: int64 [num_examples], on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed("epoch", data_seed, epoch))
    return torch.randperm(num_examples, generator=generator)


def examples_seed(data_seed: int | str) -> int:
    """From where the seeds of a trial's examples are counted: see `epoch_seed` and `example_seeds`."""
    return derived_seed("examples", data_seed)


def epoch_seed(seed: int, epoch: int) -> int:
    """From where those of an epoch are counted, given the `examples_seed`."""
    return (seed & ~_WORD) | ((seed + epoch * _GOLDEN) & _WORD)


def example_seeds(seed: int, index: int) -> tuple[int, int, int]:
    """The seeds of torch's, Python's and NumPy's generators for example `index` of an epoch, given its `epoch_seed`.

    Torch and NumPy use 32 bits of a seed, too few for chance to keep them apart. So they are counted: index by index,
    and from epoch to epoch by the golden ratio of 2**32, which keeps some hundred million examples of all epochs of a
    trial apart. Then each count is scrambled, one to one. NumPy's is half the circle away from torch's, because it
    would draw the same numbers.
    """
    count = (seed + index) & _WORD
    of_torch = _scrambled(count)
    return of_torch, (seed & ~_WORD) | of_torch, _scrambled(count ^ _HALF)


def batch_seed(seed: int, first: int) -> int:
    """The seed from which a batch draws as a whole, while it is collated: `first` is the index of its first example."""
    return step_seed(seed ^ _OF_BATCHES, first)


def _scrambled(x: int) -> int:
    """Another of the 32-bit numbers for each of them (lowbias32 by Chris Wellons)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


@contextmanager
def callers_generators_restored(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were found: a notebook's random numbers are not ours to change."""
    on_host = torch.get_rng_state()
    of_python_and_numpy = HOST.state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        HOST.restore(of_python_and_numpy)
        torch.set_rng_state(on_host)
        if on_device is not None:
            with suppress(torch.AcceleratorError):  # of a device that is lost: the error under way says so
                torch.cuda.set_rng_state(on_device, device)
