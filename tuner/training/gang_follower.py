"""What a rank other than 0 does in a gang: as it is told.

It has no Ledger, saves nothing and decides nothing. It computes its own slices, and makes the same steps with the same
bits as rank 0, in the same surroundings: generators, denormals, kernels, loading processes.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tuner.design.trial import Trial
from tuner.errors import DeviceLost, GangLost, StudyChanged
from tuner.failpoints import failpoint
from tuner.records import Numerics
from tuner.training.checkpoints import state_in
from tuner.training.denormals import denormals_as_zero
from tuner.training.determinism import settle_determinism
from tuner.training.gang import Flag, Gang
from tuner.training.gang_command import Said, failed_with
from tuner.training.gang_run import GangRun
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup

Stop = Callable[[], bool]
Decode = Callable[[str], Trial]
SetupFor = Callable[[Mapping[str, Any]], TrainingSetup]


def follow(gang: Gang, setup_for: SetupFor, stop: Stop, decode: Decode) -> Mapping[str, Any]:
    """Do what rank 0 tells until it says that this is the end; what it says with it.

    setup_for: the setup of a study, made of what rank 0 tells of it; its errors are rank 0's. stop: whether this
    process was told to end, which rank 0 is told then; asked at every step, and once a second between two commands.
    decode: the trial that rank 0 has sent as text. Raises GangLost where rank 0 or another rank is gone, and DeviceLost
    where this process can train no more.
    """
    follower = _Follower(gang, setup_for, stop, decode)
    try:
        while True:
            heard = gang.hear(stop)
            failpoint("gang-heard")
            if heard["do"] == "end":
                return heard
            follower.obey(heard)
    finally:
        follower.rest({}, Said())


class _Follower:
    """A rank between two commands: the study that it has loaded, and the trial that it trains."""

    def __init__(self, gang: Gang, setup_for: SetupFor, stop: Stop, decode: Decode) -> None:
        self.gang, self.setup_for, self.stop, self.decode = gang, setup_for, stop, decode
        self._setup: TrainingSetup | None = None
        self._run: GangRun | None = None
        self._surroundings = ExitStack()
        self._inside = False
        self._commands: dict[str, Callable[[Mapping[str, Any], Said], None]] = {
            "study": self.study,
            "begin": self.begin,
            "load": self.load,
            "advance": self.advance,
            "evaluate": self.evaluate,
            "compare": self.compare,
            "rest": self.rest,
        }

    def obey(self, heard: Mapping[str, Any]) -> None:
        """Do one command, and report. Raises DeviceLost after the report: this process can train no more."""
        said, lost = Said(), None
        try:
            self._commands[heard["do"]](heard, said)
        except GangLost:
            raise
        except Exception as error:
            said.failed = failed_with(error)
            lost = DeviceLost(said.failed["text"]) if said.failed.get("error") == DeviceLost.__name__ else None
        failpoint("gang-reporting")
        self.gang.gathered(said.report())
        if lost is not None:
            raise lost

    @property
    def run(self) -> GangRun:
        if self._run is None:
            raise GangLost("rank 0 of the gang goes on with a trial that it has not begun")
        return self._run

    def study(self, heard: Mapping[str, Any], said: Said) -> None:
        self.rest(heard, said)
        self._setup = None
        setup = replace(self.setup_for(heard["fields"]), stop=self.gang.stops(self.stop))
        different = setup.numerics.differences(Numerics.from_text(heard["numerics"]))
        if different:
            raise StudyChanged(
                f"it would compute other bits than rank 0 ({'; '.join(different)}): the ranks of one trial are "
                "alike, so start them on machines and devices of one kind, in one environment"
            )
        self._setup = setup

    def begin(self, heard: Mapping[str, Any], said: Said) -> None:
        if self._setup is None:
            raise GangLost("rank 0 of the gang begins a trial of a study that it has not told")
        setup, trial = self._setup, self.decode(heard["trial"])
        self._run = None  # first: there may be no memory for two
        self._enter(setup)
        settle_determinism(setup, trial)
        self._run = run = GangRun(setup, trial, self.gang)
        run.note_initial()
        run.say_initial(said)

    def _enter(self, setup: TrainingSetup) -> None:
        """The surroundings of a trial, as the supervisor has them at rank 0."""
        if self._inside:
            return
        for context in (callers_generators_restored(setup.device), denormals_as_zero(setup.device), setup.loading()):
            self._surroundings.enter_context(context)
        self._inside = True

    def load(self, heard: Mapping[str, Any], said: Said) -> None:
        content = self.gang.received()
        self.run.load(state_in(content))
        self.forget()
        self.run.say_state(said)

    def advance(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.advance_together(heard["until"], lambda: Flag.STOP if self.stop() else Flag.GO)
        self.forget()

    def forget(self) -> None:
        """What only an evaluation reads, which rank 0 makes of its own: it would grow."""
        self.run.losses, self.run.norms = [], []
        self.run.totals.clear()

    def evaluate(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.say_state(said)

    def compare(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.say_state(said)

    def rest(self, heard: Mapping[str, Any], said: Said) -> None:
        self._run, self._inside = None, False
        self._surroundings.close()
