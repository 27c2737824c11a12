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
from tuner.training.gang_evaluation import part_of_evaluation, whole_evaluation
from tuner.training.gang_run import GangRun
from tuner.training.loss_scale import Untouched
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup

Stop = Callable[[], bool]
Decode = Callable[[str], Trial]
SetupFor = Callable[[Mapping[str, Any]], TrainingSetup]
Command = Callable[[Mapping[str, Any], Said], None]


class Follower:
    """A rank that trains the trials of a study, one command after the other.

    commands: what is done of each. run: the trial, from its beginning until the next one.
    """

    def __init__(self, setup: TrainingSetup, gang: Gang, stop: Stop, decode: Decode) -> None:
        self.setup, self.gang, self.stop, self.decode = setup, gang, stop, decode
        self._run: GangRun | None = None
        self._before: Untouched | None = None  # what the model was before it was evaluated
        self._surroundings = ExitStack()
        self._inside = False
        self.commands: dict[str, Command] = {
            "begin": self.begin,
            "load": self.load,
            "advance": self.advance,
            "evaluate": self.evaluate,
            "evaluate all": self.evaluate_all,
            "evaluated in vain": self.evaluated_in_vain,
            "compare": self.compare,
            "rest": self.rest,
        }

    @property
    def run(self) -> GangRun:
        if self._run is None:
            raise GangLost("rank 0 of the gang goes on with a trial that it has not begun")
        return self._run

    def made(self, trial: Trial) -> GangRun:
        """The trial before its first step."""
        return GangRun(self.setup, trial, self.gang)

    def begin(self, heard: Mapping[str, Any], said: Said) -> None:
        trial = self.decode(heard["trial"])
        self._run = self._before = None  # first: there may be no memory for two
        self._enter()
        settle_determinism(self.setup, trial)
        self._run = run = self.made(trial)
        run.note_initial()
        run.say_initial(said)

    def _enter(self) -> None:
        """The surroundings of a trial, as the supervisor has them at rank 0."""
        if self._inside:
            return
        device = self.setup.device
        for context in (callers_generators_restored(device), denormals_as_zero(device), self.setup.loading()):
            self._surroundings.enter_context(context)
        self._inside = True

    def load(self, heard: Mapping[str, Any], said: Said) -> None:
        content = self.gang.received()
        self.run.load(state_in(content))
        self.forget()
        self.run.say_state(said)

    def advance(self, heard: Mapping[str, Any], said: Said) -> None:
        self._before = None
        self.run.advance_together(heard["until"], lambda: Flag.STOP if self.stop() else Flag.GO)
        self.forget()

    def forget(self) -> None:
        """What only an evaluation reads, which rank 0 makes of its own: it would grow."""
        self.run.losses, self.run.norms = [], []
        self.run.totals.clear()

    def evaluate(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.say_state(said)
        said.data = part_of_evaluation(self.run, self.gang)

    def evaluate_all(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.say_state(said)
        self._before = Untouched(self.run.model, parameters=False)
        whole_evaluation(self.run, self.gang)

    def evaluated_in_vain(self, heard: Mapping[str, Any], said: Said) -> None:
        """Another rank was stopped within the last evaluation, so it is made again."""
        if self._before is not None:
            self._before.put_back()

    def compare(self, heard: Mapping[str, Any], said: Said) -> None:
        self.run.say_state(said)

    def rest(self, heard: Mapping[str, Any], said: Said) -> None:
        self.close()

    def close(self) -> None:
        """Leave the surroundings of a trial, and let it go."""
        self._run, self._before, self._inside = None, None, False
        self._surroundings.close()


FollowerMaker = Callable[[TrainingSetup, Gang, Stop, Decode], Follower]


def follow(
    gang: Gang, setup_for: SetupFor, stop: Stop, decode: Decode, follower_of: FollowerMaker = Follower
) -> Mapping[str, Any]:
    """Do what rank 0 tells until it says that this is the end; what it says with it.

    setup_for: the setup of a study, made of what rank 0 tells of it; its errors are rank 0's. stop: whether this
    process was told to end, which rank 0 is told then; asked at every step, and once a second between two commands.
    decode: the trial that rank 0 has sent as text. follower_of: what trains the trials of a study here. Raises GangLost
    where rank 0 or another rank is gone, and DeviceLost where this process can train no more.
    """
    with ExitStack() as studies:
        follower: Follower | None = None

        def unknown(heard: Mapping[str, Any], said: Said) -> None:
            raise GangLost(f"rank 0 of the gang says {heard['do']!r}, which this rank cannot do now")

        def study(heard: Mapping[str, Any], said: Said) -> None:
            nonlocal follower
            studies.close()
            follower = None
            setup = replace(setup_for(heard["fields"]), stop=gang.stops(stop))
            _check_numerics(setup.numerics, Numerics.from_text(heard["numerics"]))
            follower = follower_of(setup, gang, stop, decode)
            studies.callback(follower.close)

        while True:
            heard = gang.hear(stop)
            failpoint("gang-heard")
            if heard["do"] == "end":
                return heard
            commands = {} if follower is None else follower.commands
            _obey(gang, study if heard["do"] == "study" else commands.get(heard["do"], unknown), heard)


def _obey(gang: Gang, command: Command, heard: Mapping[str, Any]) -> None:
    """Do one command, and report. Raises DeviceLost after the report: this process can train no more."""
    said, lost = Said(), None
    try:
        command(heard, said)
    except GangLost:
        raise
    except Exception as error:
        said.failed = failed_with(error)
        lost = DeviceLost(said.failed["text"]) if said.failed.get("error") == DeviceLost.__name__ else None
    failpoint("gang-reporting")
    gang.gathered(said.report())
    if lost is not None:
        raise lost


def _check_numerics(mine: Numerics, of_rank_0: Numerics) -> None:
    different = mine.differences(of_rank_0)
    if different:
        raise StudyChanged(
            f"it would compute other bits than rank 0 ({'; '.join(different)}): the ranks of one trial are alike, so "
            "start them on machines and devices of one kind, in one environment"
        )
