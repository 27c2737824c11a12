"""Freed memory stays with the process: the next step finds its pages there."""

import resource
import sys

import pytest
import torch

from tuner.training.memory import keep_freed_memory

PAGES = 8 * 16 * 2**20 // resource.getpagesize()


def new_pages():
    """Pages that the system had to provide for eight tensors of 16 MB, which are freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(4 * 2**20) for _ in range(8)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_memory_that_was_freed_is_used_again():
    keep_freed_memory()
    for _ in range(3):
        new_pages()
    assert new_pages() < PAGES / 10
