"""Loading processes: they fetch and collate batches ahead of the training, in the order in which it takes them.

A key says all about a batch (which split, which examples, which seed), so it makes no difference to the bits which
process makes it, nor when: a process that is killed is replaced, and its batches are made again. torch's DataLoader
starts the processes and carries the batches; what they make next is asked for one by one, so that the batches of
several trials, and of evaluations in between, come from the same processes.

At most `AHEAD` batches for each process wait to be taken, and twice as many around an evaluation.
"""

import gc
import importlib.util
import logging
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from tuner import system
from tuner.errors import Paused, WorkloadError
from tuner.signals import SHUTDOWN, STOPPING
from tuner.training.containers import pinned
from tuner.training.denormals import denormals_are_zero
from tuner.training.travelling_errors import TravellingError

AHEAD = 2  # batches for each process
MOST_DEATHS = 3  # in a row, while the same batch is waited for
GRACE_SECONDS = 2.0  # for a process to end its batch, when all end
SMALL = 1024  # bytes that go through a pipe; more go through shared memory, so that no message is ever half written
_TOO_MANY = ".*DataLoader will create.*worker processes.*"

_log = logging.getLogger(__name__)
Make = Callable[..., Any]
Key = tuple[int, tuple[Any, ...]]  # which maker, and its arguments


@dataclass(eq=False)
class _Source:
    """A sequence of keys; `made`: those batches that are made and not taken yet; `waiting`: how many are asked for."""

    keys: Iterator[Key] | None
    made: deque[Any] = field(default_factory=deque)
    waiting: int = 0

    @property
    def held(self) -> int:
        return self.waiting + len(self.made)


class _Requests:
    """What the processes are asked for, one after the other: a sampler of the DataLoader that never ends.

    The source with the fewest batches ahead comes next, of equals the newest. Where none wants more, a process is
    asked for nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most  # batches of one source
        self.sources: list[_Source] = []  # the newest first
        self.asked: deque[tuple[_Source | None, Key | None]] = deque()
        self._again: deque[tuple[_Source | None, Key | None]] = deque()

    def __iter__(self) -> Iterator[Key | None]:
        return self

    def __next__(self) -> Key | None:
        request = self._again.popleft() if self._again else self._chosen()
        self.asked.append(request)
        return request[1]

    def ask_again(self) -> None:
        """All that was asked for and did not come is asked for again, in the same order."""
        self._again = self.asked + self._again
        self.asked = deque()

    def _chosen(self) -> tuple[_Source | None, Key | None]:
        for source in sorted(self.sources, key=lambda source: source.held):
            if source.held > self.most:
                break
            key = None if source.keys is None else next(source.keys, None)
            if key is not None:
                source.waiting += 1
                return source, key
            source.keys = None
        return None, None


class Ahead:
    """The batches of a sequence of keys, in order, on the CPU, made ahead. An error of the maker comes in its place."""

    def __init__(self, processes: "LoadingProcesses", keys: Iterator[Key]) -> None:
        self._processes = processes
        self._source = _Source(keys)

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> Any:
        return self._processes.taken(self._source)

    def close(self) -> None:
        """Nothing more of it is made; what is made already is dropped."""
        self._processes.drop(self._source)


class LoadingProcesses:
    """`count` processes that call `makers`. They start with the first batch that is taken.

    They take one thread of torch each, leave signals to their parent and end with it, however that ends; and with this
    object (by the DataLoader), where nobody closes it. pin: batches come in memory from which a GPU copies them faster.
    """

    def __init__(self, makers: Sequence[Make], count: int, *, pin: bool = False) -> None:
        self.count = count
        self._making = _Making(tuple(makers))
        self._pin = pin
        self._requests = _Requests(2 * AHEAD * count)
        self._iterator: Any = None
        self._deaths = 0

    def ahead(self, keys: Iterator[Key]) -> Ahead:
        """The batches of these keys, of which there may be no end."""
        made = Ahead(self, keys)
        self._requests.sources.insert(0, made._source)
        return made

    @property
    def pids(self) -> list[int]:
        """Of the processes, while there are any."""
        return [] if self._iterator is None else [process.pid for process in self._iterator._workers]

    def taken(self, source: _Source) -> Any:
        """The next batch of a source. Raises StopIteration at its end, the error of its maker, Paused."""
        while not source.made:
            if source.keys is None and not source.waiting:
                self.drop(source)
                raise StopIteration
            self._receive()
        if self._requests.asked and self._requests.asked[0][0] is None:
            self._receive()  # a process that was asked for nothing is asked again
        made = source.made.popleft()
        if isinstance(made, TravellingError):
            raise made.error()
        return made

    def drop(self, source: _Source) -> None:
        """Forget a source: what is still made for it is not kept."""
        source.keys = None
        source.made.clear()
        with suppress(ValueError):
            self._requests.sources.remove(source)

    def close(self) -> None:
        """End the processes: those that do not end by themselves in a moment are killed."""
        iterator, self._iterator = self._iterator, None
        if iterator is None:
            return
        timer = threading.Timer(GRACE_SECONDS, _kill, [iterator._workers])
        timer.daemon = True
        timer.start()
        iterator._shutdown_workers()
        timer.cancel()

    def _receive(self) -> None:
        """Wait for what was asked for first, and keep it for whom it was made."""
        made = self._next()
        source, _ = self._requests.asked.popleft()
        if source is not None:
            source.waiting -= 1
            if source in self._requests.sources:
                source.made.append(made)

    def _next(self) -> Any:
        while True:
            if self._iterator is None:
                self._start()
            try:
                made = next(self._iterator).content()
            except (RuntimeError, OSError, EOFError) as error:
                self._replace(error)
            else:
                self._deaths = 0
                return made

    def _start(self) -> None:
        loader: DataLoader[Any]
        with warnings.catch_warnings(), _signal_of_children_left():
            warnings.filterwarnings("ignore", message=_TOO_MANY)  # said once, and in our words
            loader = DataLoader(
                self._making,
                sampler=self._requests,
                batch_size=None,
                num_workers=self.count,
                collate_fn=_as_it_is,
                pin_memory=self._pin,
                prefetch_factor=AHEAD,
                worker_init_fn=_Beginning.here(),
                multiprocessing_context=start_method(),
                generator=torch.Generator(),  # it would draw from the global one
            )
            self._iterator = iter(loader)
            self._iterator._workers_done_event = _ShownToProcesses(self._iterator._workers_done_event)

    def _replace(self, error: Exception) -> None:
        """Processes in the place of those that are there, one of which has ended."""
        iterator, self._iterator = self._iterator, None
        ended = connection.wait([process.sentinel for process in iterator._workers], GRACE_SECONDS)
        for process in (process for process in iterator._workers if process.sentinel in ended):
            process.join(GRACE_SECONDS)  # its files are closed a moment before it has an exit code
        codes = [process.exitcode for process in iterator._workers if process.sentinel in ended]
        _kill(iterator._workers)
        iterator._workers_done_event = threading.Event()  # nobody is left who reads the old one
        iterator._shutdown_workers()
        self._requests.ask_again()
        self._deaths += 1
        how = _how_it_ended(codes, error)
        if self._deaths == MOST_DEATHS:
            raise Paused(
                f"{MOST_DEATHS} loading processes ended one after the other while they made the same batch, the last "
                f"{how}; nothing committed is lost: set data_workers = 0 to see what happens there, then run the same "
                "command again"
            )
        _log.warning("a loading process ended, %s: it is replaced, and its batches are made again", how)


class _ShownToProcesses:
    """The event by which a DataLoader ends its processes. This process never waits for the lock of the shared one.

    Each process takes that lock for a moment with each batch. One that is killed then takes it along, and the
    DataLoader would wait for it for ever, where it only wants to know what it has itself set.
    """

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        telling = threading.Thread(target=self._shared.set, daemon=True)
        with suppress(RuntimeError):  # where the interpreter ends, no thread begins
            telling.start()
            telling.join(GRACE_SECONDS)  # processes that cannot be told are killed


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        with suppress(Exception):  # it has ended already
            process.kill()


def _how_it_ended(codes: Sequence[int | None], error: Exception) -> str:
    code = next((code for code in codes if code), None)
    if code is None:
        return f"by {type(error).__name__}: {error}"
    if code == -getattr(signal, "SIGBUS", 0):
        return "killed by SIGBUS (is there room in /dev/shm? in Docker, --shm-size makes more)"
    if code == -getattr(signal, "SIGKILL", 0):
        return "killed by SIGKILL (by the system, where memory ends)"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


@contextmanager
def _signal_of_children_left() -> Iterator[None]:
    """Without torch's handler of SIGCHLD, by which a dead loading process would end any line of the user's code."""
    number = getattr(signal, "SIGCHLD", None)
    before = None if number is None else signal.getsignal(number)
    try:
        yield
    finally:
        if number is not None and signal.getsignal(number) is not before:
            signal.signal(number, signal.SIG_DFL if before is None else before)


def start_method() -> str:
    """How loading processes start: by fork where that is whole, else as new ones, and what they need is pickled."""
    if not system.FORKS_WHOLE:
        return "spawn"
    return "forkserver" if _uses_cuda() else "fork"


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def check_loading(makers: Sequence[Make]) -> None:
    """Try that a loading process can be given what it needs, where it is not forked. Raises WorkloadError."""
    if start_method() == "fork":
        return
    way_out = (
        "define the dataset, what it holds, and collate at the top of a file (no lambdas, no classes inside "
        "functions), open files in __getitem__ and not in __init__, or set data_workers = 0"
    )
    try:
        bytes(ForkingPickler.dumps(_Making(tuple(makers))))
    except Exception as error:
        raise WorkloadError(
            f"the dataset cannot be sent to loading processes ({type(error).__name__}: {error}), which are not forked "
            f"where CUDA is in use or the system is not Linux, so that all they need is pickled: {way_out}"
        ) from error
    processes = LoadingProcesses(makers, 1)
    try:
        next(processes.ahead(iter([(_NOTHING, ())])))
    except Paused as error:
        raise WorkloadError(f"no loading process could begin with the dataset ({error}): {way_out}") from error
    finally:
        processes.close()


_NOTHING = -1  # a maker of nothing


@dataclass(frozen=True)
class _Beginning:
    """How a loading process begins, given what its parent does."""

    parent: int  # its process id, where it forks the process; else 0
    flush_denormal: bool
    precision: torch.dtype
    deterministic: tuple[bool, bool]

    @classmethod
    def here(cls) -> "_Beginning":
        return cls(
            os.getpid() if start_method() == "fork" else 0,
            denormals_are_zero(),
            torch.get_default_dtype(),
            _deterministic(),
        )

    def __call__(self, number: int) -> None:
        system.end_with_the_parent(self.parent)
        SHUTDOWN.forget()
        for each in STOPPING:
            if each is not signal.SIGTERM:  # by which multiprocessing ends what it has started
                signal.signal(each, signal.SIG_IGN)
        gc.freeze()  # what the parent held is neither searched nor copied, nor closed here
        torch.set_flush_denormal(self.flush_denormal)
        torch.set_default_dtype(self.precision)
        if self.deterministic != _deterministic():  # it imports the compiler, which takes seconds
            torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


class _Making(Dataset["_Message"]):
    """What the DataLoader takes for a dataset: a key gives the message with its batch, or with the error."""

    def __init__(self, makers: tuple[Make, ...]) -> None:
        self.makers = makers

    def __getitem__(self, key: Key | None) -> "_Message":
        if key is None or key[0] == _NOTHING:
            return _Message.of(None)
        place, arguments = key
        try:
            with torch.inference_mode(False), torch.enable_grad():  # a fork is in the mode of its parent
                batch = self.makers[place](*arguments)
            return _sent(batch)
        except BaseException as error:
            return _Message.of(TravellingError.of(error))

    def __getstate__(self) -> dict[str, Any]:
        """Where it is pickled: together with the study files whose classes it names."""
        makers = bytes(ForkingPickler.dumps(self.makers))
        studies = [name for name in sys.modules if name.startswith("tuner_study_") and name.encode() in makers]
        return {"study files": {name: str(sys.modules[name].__file__) for name in studies}, "makers": makers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, file in state["study files"].items():
            if name not in sys.modules:
                _import_file(name, file)
        self.makers = ForkingPickler.loads(state["makers"])


def _import_file(name: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def _sent(batch: Any) -> "_Message":
    """A batch on its way. Raises WorkloadError where it cannot go."""
    if _uses_cuda():
        raise WorkloadError(
            "the dataset uses the GPU, and each loading process would take memory there for itself; let the dataset "
            "give examples on the CPU (the trainer moves each batch), or set data_workers = 0"
        )
    try:
        return _Message.of(batch)
    except Exception as error:
        raise WorkloadError(
            f"a batch cannot be sent from the process that loads it ({type(error).__name__}: {error}); let it hold "
            "tensors (detached ones), arrays, numbers, texts and objects that can be pickled, or set data_workers = 0"
        ) from error


class _Pickler(ForkingPickler):
    """Sends small tensors (labels, lengths) by value: torch would share each, which takes a connection of its own."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not torch.Tensor or value.layout is not torch.strided or value.device.type != "cpu":
            return NotImplemented
        if value.requires_grad or value.is_nested:
            return NotImplemented
        if value.is_conj() or value.is_neg():  # torch would send the numbers without that
            return _itself, (value.resolve_conj().resolve_neg(),)
        num_bytes = value.nbytes
        if (
            not 0 < num_bytes <= SMALL // 2
            or not value.is_contiguous()
            or value.untyped_storage().nbytes() != num_bytes
        ):
            return NotImplemented
        held = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        return _tensor_of, (held, value.dtype, value.shape, value.stride())


def _itself(value: Any) -> Any:
    return value


def _tensor_of(held: bytes, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]) -> torch.Tensor:
    return torch.frombuffer(bytearray(held), dtype=dtype).as_strided(shape, stride)


class _Message:
    """A batch or an error on its way, pickled where it was made, so that what cannot be pickled is an error there."""

    def __init__(self, pickled: bytes | torch.Tensor) -> None:
        self._pickled: Any = pickled
        self._content: Any = None

    @classmethod
    def of(cls, content: Any) -> "_Message":
        pickled = bytes(_Pickler.dumps(content))
        return cls(pickled if len(pickled) <= SMALL else torch.frombuffer(bytearray(pickled), dtype=torch.uint8))

    def content(self) -> Any:
        """What was sent. Raises OSError, RuntimeError or EOFError where its sender ended before it was read."""
        if self._pickled is not None:
            held, self._pickled = self._pickled, None
            with torch.inference_mode(False):  # it may be taken in an evaluation, and trained on later
                self._content = ForkingPickler.loads(held if isinstance(held, bytes) else held.numpy())
        return self._content

    def pin_memory(self) -> "_Message":
        """Called by the DataLoader in a thread of its own."""
        with suppress(OSError, RuntimeError, EOFError):
            pickled = self._pickled
            content = self.content()
            self._content = content if isinstance(content, TravellingError) else pinned(content)
            return self
        self._pickled = pickled  # the trainer reads it again, and has the error
        return self


def _as_it_is(value: Any) -> Any:
    return value
