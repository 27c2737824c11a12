"""Freed memory stays with the process: the next step finds its pages there."""

import resource
import sys

import pytest
import torch

from tuner.training import memory
from tuner.training.memory import free_bytes, keep_freed_memory, reachable_bytes

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


CPU, GIB = torch.device("cpu"), 2**30


def told_by_the_system(folder, monkeypatch, **container):
    """Memory with 10 GiB that are available and 4 GiB of free swap space, and the limits of a container."""
    (folder / "meminfo").write_text(f"MemAvailable: {10 * 2**20} kB\nSwapFree: {4 * 2**20} kB\n")
    for name, text in container.items():
        (folder / name.replace("_", ".")).write_text(str(text))
    monkeypatch.setattr(memory, "_SYSTEM", folder / "meminfo")
    monkeypatch.setattr(memory, "_LIMITS", folder)
    monkeypatch.setattr(memory, "_PROCESS", folder)


def test_swap_space_can_be_had_and_is_not_free(tmp_path, monkeypatch):
    told_by_the_system(tmp_path, monkeypatch)
    assert (free_bytes(CPU), reachable_bytes(CPU)) == (10 * GIB, 14 * GIB)


def test_files_that_a_container_has_read_are_no_memory_that_is_taken(tmp_path, monkeypatch):
    stat = f"anon {GIB}\nactive_file {2 * GIB}\ninactive_file {GIB}\nslab_reclaimable {GIB}\n"
    told_by_the_system(tmp_path, monkeypatch, memory_max=6 * GIB, memory_current=6 * GIB, memory_stat=stat)
    assert free_bytes(CPU) == 4 * GIB
    assert reachable_bytes(CPU) == 8 * GIB, "no limit of its own for swap space"
    (tmp_path / "memory.swap.max").write_text("0")
    (tmp_path / "memory.swap.current").write_text("0")
    assert reachable_bytes(CPU) == 4 * GIB
