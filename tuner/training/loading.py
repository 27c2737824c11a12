"""Who loads the batches of datasets and streams: the process that trains, or loading processes beside it.

The bits are the same; see `loading_processes`. How many there are is the workload's `data_workers`, or what a look at
the first steps says.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch

from tuner.training.fetching import Fetcher
from tuner.training.loading_processes import Ahead, Key, LoadingProcesses, Make, check_loading
from tuner.training.streams import StreamFetcher

DataWorkers = int | Literal["auto"]
Wanted = tuple[torch.Tensor, int]  # the indices and the seed of a batch
PROBED = 8  # steps that an automatic choice looks at
LEAST_SECONDS = 1e-3  # of a batch; to hand it over takes about half as long
LEAST_SHARE = 0.1  # of a step
MOST_OPEN = 8  # places at which a stream is read at the same time
ABSENT = object()


def useful_processes(fetch: float, rest: float, most: int) -> int:
    """How many loading processes hide the fetching, where a batch takes `fetch` seconds and the rest of a step `rest`.

    At most `most`. 0 where it is nearly free, and where no core is left for it.
    """
    if most < 2 or fetch < LEAST_SECONDS or fetch < LEAST_SHARE * (fetch + rest):
        return 0
    return most if fetch >= most * rest else math.ceil(fetch / rest)


class Loading:
    """The loading processes of a workload's splits. There are some within `at_work` only; outside, each batch is
    fetched where it is asked for.

    chosen: what an automatic choice came to, once it is known. session: how often they were at work.
    """

    def __init__(self) -> None:
        self.chosen: int | None = None
        self.session = 0
        self._makers: list[Make] = []
        self._asked: DataWorkers = 0
        self._most = 0
        self._pin = False
        self._processes: dict[bool, LoadingProcesses] = {}  # of streams, of datasets
        self._readers = itertools.count()
        self._fetches: list[float] = []
        self._rests: list[float] = []
        self._fetched_at: float | None = None

    def add(self, fetcher: Callable[[], Fetcher], *, stream: bool) -> int:
        """Another split, whose batches the processes can make; its place among all."""
        self._makers.append(_OfStream(fetcher) if stream else fetcher().batch)
        return len(self._makers) - 1

    @contextmanager
    def at_work(self, asked: DataWorkers, most: int, *, pin: bool) -> Iterator[None]:
        """Have batches loaded by so many processes within the block; they end with it.

        asked: "auto" takes as many as are useful, and `most` at most. pin: see `LoadingProcesses`.
        """
        if self._asked or not asked or not self._makers:  # it is at work already, or has nothing to do
            yield
            return
        self._asked, self._most, self._pin = asked, most, pin
        self.session += 1
        try:
            yield
        finally:
            self._asked, self._fetched_at = 0, None
            for processes in self._processes.values():
                processes.close()
            self._processes = {}

    def check(self) -> None:
        """Raise WorkloadError where loading processes could not be given what they need."""
        check_loading(self._makers)

    @property
    def count(self) -> int:
        """How many processes there are now; 0 also while an automatic choice is not made."""
        return (self.chosen or 0) if self._asked == "auto" else self._asked

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [pid for processes in self._processes.values() for pid in processes.pids]

    def ahead(self, place: int, wanted: Iterator[Wanted]) -> Ahead:
        """The batches of a split, on the CPU, made by the processes. Only while `count` is not 0."""
        stream = isinstance(self._makers[place], _OfStream)
        if stream not in self._processes:  # what is read in order is read by one process
            self._processes[stream] = LoadingProcesses(self._makers, 1 if stream else self.count, pin=self._pin)
        reader = next(self._readers)
        keys: Iterator[Key] = (
            (place, (*([reader] * stream), indices.tolist(), seed)) for indices, seed in wanted
        )  # fmt: skip
        return self._processes[stream].ahead(keys)

    def fetched_here(self, fetch: Callable[[], Any]) -> Any:
        """A training batch that this process fetches. An automatic choice is made by what it takes."""
        if self._asked != "auto" or self.chosen is not None:
            return fetch()
        began = time.perf_counter()
        batch = fetch()
        if self._fetched_at is not None:
            self._rests.append(began - self._fetched_at)
        self._fetched_at = time.perf_counter()
        self._fetches.append(self._fetched_at - began)
        if len(self._rests) == PROBED:
            self.chosen = useful_processes(median(self._fetches[1:]), median(self._rests), self._most)
        return batch


class _OfStream:
    """Makes batches of a stream; each reader has an iterator of its own, which is kept while its batches follow."""

    def __init__(self, fetcher: Callable[[], Fetcher]) -> None:
        self._fetcher = fetcher
        self._open: dict[int, Fetcher] = {}

    def __call__(self, reader: int, indices: Sequence[int], seed: int) -> Any:
        fetcher = self._open.pop(reader, None) or self._opened()
        self._open[reader] = fetcher
        while len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]
        return fetcher.batch(indices, seed)

    def _opened(self) -> Fetcher:
        fetcher = self._fetcher()
        if isinstance(fetcher, StreamFetcher):
            fetcher.skip_on()  # what one reader leaves out, others take
        return fetcher


@dataclass(eq=False)
class _Reader:
    """One who takes batch after batch: the next step, and the batch before it where others may take it too."""

    step: int
    batches: Ahead
    last: Any = ABSENT


class Readers:
    """The training batches of a split by step, as one or several trials take them that may be at different steps.

    Where batches are cut into slices, the slices are meant, counted from the first of the training; of a process that
    takes only some of each batch, those.

    open_at: the batches from a step on. `most`: how many trials there are. `repeated`: whether each takes the batch of
    a step for itself; then it gets a copy, because it may change it.
    """

    def __init__(self, open_at: Callable[[int], Ahead]) -> None:
        self.most = 1
        self.repeated = False
        self._open_at = open_at
        self._readers: list[_Reader] = []  # the one that was not asked for longest comes first
        self._session = 0

    def take(self, step: int, session: int) -> Any:
        """The batch of a step, on the CPU; ABSENT where it was taken before and is not kept.

        session: that of the `Loading`.
        """
        if session != self._session:
            self.forget()
            self._session = session
        reader = next((each for each in self._readers if each.step in (step, step + 1)), None)
        if reader is None:
            reader = self._opened(step)
        self._readers.remove(reader)
        self._readers.append(reader)
        if reader.step == step:
            reader.step, reader.last = step + 1, ABSENT
            batch = next(reader.batches)
            if not self.repeated:
                return batch
            reader.last = batch
        with suppress(Exception):  # an object of the user's that cannot be copied
            return copy.deepcopy(reader.last) if reader.last is not ABSENT else ABSENT
        return ABSENT

    def forget(self) -> None:
        """What was made ahead is not taken: the trials go on elsewhere, or the processes have ended."""
        for reader in self._readers:
            reader.batches.close()
        self._readers = []

    def _opened(self, step: int) -> _Reader:
        while len(self._readers) >= self.most:
            self._readers.pop(0).batches.close()
        self._readers.append(reader := _Reader(step, self._open_at(step)))
        return reader
