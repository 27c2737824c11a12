"""What tests on a GPU share: they are skipped, with the reason, where there is none."""

import pytest
import torch

from tuner.training.numerics import choose_device, prepare_numerics

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def prepared_gpu():
    """The first GPU, with the switches of a real run."""
    device = choose_device("cuda")
    prepare_numerics(device, 1)
    return device
