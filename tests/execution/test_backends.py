"""A backend is one method: a third one, which hands jobs to somewhere else as text, trains the same bits."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from support import slope
from support.bench import Bench, Heard
from support.loaded import loaded
from support.slope import SlopeEngine
from support.tiny import Tiny

from tuner.errors import InputError, Interrupted, NotFusible, StudyChanged
from tuner.execution.in_process import InProcess
from tuner.execution.machine import Lease, Machine, Quota, machine_from
from tuner.execution.remote_job import StudyTask, engine_named, job_of, setup_from, setup_of, task_of
from tuner.records import Promises, State
from tuner.storage.store import open_ledger
from tuner.training.alone import Alone


class Elsewhere:
    """Trains in one place that it knows only by text, as a cluster is known; here it is a thread."""

    def __init__(self, url):
        self.url = url

    def run(self, job, listener, stop):
        setup = json.dumps(setup_of(job.workload, self.url, job.workload.machine).as_json())
        task = json.dumps(task_of(job).as_json())
        with ThreadPoolExecutor(1) as cluster:
            for claim, update in cluster.submit(train, setup, task).result():
                listener.trial_ended(claim, update)


def train(setup, task):
    """What the cluster does: load the workload, and train the study."""
    given, heard = setup_from(json.loads(setup)), Heard()
    with open_ledger(given.url, create=False) as ledger:
        job = job_of(StudyTask(**json.loads(task)), ledger, given.load())
        InProcess().run(job, heard, lambda: False)
    return heard.updates


def test_a_third_backend_has_one_method_and_trains_the_same_bits(tmp_path):
    alone, elsewhere, heard = Bench(tmp_path / "alone"), Bench(tmp_path / "elsewhere"), Heard()
    alone.run(0)
    elsewhere.run(1, backend=Elsewhere(elsewhere.url), listener=heard)
    assert elsewhere.rows() == alone.rows()
    assert [state for _, state, _ in heard.ended] == [State.COMPLETE] * 4


def test_a_place_with_another_workload_trains_nothing(tmp_path):
    bench = Bench(tmp_path)
    text = bench.file.read_text().replace("ReLU", "GELU")
    with pytest.raises(StudyChanged, match=r"not what was launched .*method Tiny\.model changed"):
        bench.run(1, backend=Elsewhere(bench.url), when_read=lambda: bench.file.write_text(text))
    assert bench.rows("select count(*) from trial where state = 'waiting'") == [(4,)]


class Bare(Alone):
    """An engine that trains as torch does and promises nothing."""

    promises = Promises()


def test_what_an_engine_does_not_promise_is_not_used(tmp_path):
    """No trial is fused, and none starts from the steps of another."""
    trains, whole, bare = [], Bench(tmp_path / "whole"), Bench(tmp_path / "bare")
    whole.run(1, backend=InProcess(), fuse=4)
    with pytest.raises(NotFusible, match=r"the engine of this study trains each trial for itself.*--fuse off"):
        bare.run(1, backend=InProcess(), engine=Bare, fuse=4)
    bare.run(1, backend=InProcess(), engine=lambda setup: trains.append(setup) or Bare(setup), fuse="auto")
    assert bare.rows() == whole.rows()
    assert len(trains) == 1, "an engine for each study, and not for each trial"
    assert bare.rows("select count(*) from conclusion where kind = 'fusion'") == [(0,)], "no group was probed"


def test_worker_processes_train_by_the_same_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(slope.__file__).parents[1]))
    here, there = Bench(tmp_path / "here"), Bench(tmp_path / "there")
    here.run(0, engine=SlopeEngine)
    there.run(2, engine=SlopeEngine)
    assert there.rows() == here.rows()
    metrics = {name for (name,) in there.rows("select name from metric")}
    assert metrics == {"validation/loss", "batch/loss"}, "torch would have measured more"


def test_an_engine_crosses_by_its_name(tmp_path):
    bench = Bench(tmp_path)
    here = partial(loaded, Tiny(), tmp_path, study_file=bench.file)
    for engine, name in ((Alone, "tuner.training.alone:Alone"), (SlopeEngine, "support.slope:SlopeEngine")):
        sent = setup_of(here(engine=engine), bench.url, Machine(tmp_path))
        assert sent.engine == name
        assert setup_from(json.loads(json.dumps(sent.as_json()))).load().engine is engine
    for nameless in (lambda setup: Alone(setup), partial(Alone)):
        with pytest.raises(InputError, match=r"find an engine by its name in a module, and .* has none there"):
            setup_of(here(engine=nameless), bench.url, Machine(tmp_path))
    with pytest.raises(InputError, match=r"the engine support\.slope:Gone cannot be loaded here: .*Gone"):
        engine_named("support.slope:Gone")


def test_a_workload_without_a_study_file_stays_in_its_process(tmp_path):
    here = loaded(Tiny(), tmp_path)
    with pytest.raises(InputError, match="load a workload from its study file"):
        setup_of(here, "sqlite:///l.sqlite", here.machine)


def test_a_machine_is_the_same_after_it_was_sent(tmp_path):
    every = Machine(
        tmp_path, "cuda:1", 3, "auto", "fast", allow_inexact=True, quota=Quota(10, 2),
        lease=Lease(5.0, renewed_here=False), commit_seconds=1.5, worker_count=None, workers_per_gpu=4,
        stall_seconds=9.0, other_numerics="refuse", claims_until=time.monotonic() + 1e4, gang=2,
        shard="fsdp2",
    )  # fmt: skip
    for machine in (Machine(tmp_path), every):
        there = machine_from(json.loads(json.dumps(machine.as_json())))
        assert replace(there, claims_until=machine.claims_until) == machine
        assert there.claims_until == (machine.claims_until and pytest.approx(machine.claims_until, abs=600.0))
    defaults = Machine(tmp_path)
    assert [one.name for one in fields(Machine) if getattr(every, one.name) == getattr(defaults, one.name)] == [
        "checkpoint_root"
    ], "each option differs from its default, or it could get lost unseen"


def test_the_folder_of_checkpoints_is_sent_as_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert machine_from(Machine(Path("checkpoints")).as_json()).checkpoint_root == tmp_path / "checkpoints"


def test_a_worker_leaves_its_leases_to_the_coordinator():
    worker = Machine(Path("c"), lease=Lease(7.0)).for_worker("cuda:1", 3)
    assert (worker.lease, worker.device, worker.worker_count) == (Lease(7.0, renewed_here=False), "cuda:1", 3)


def test_what_ended_in_the_last_seconds_is_done_and_not_stopped(tmp_path, monkeypatch):
    heard = Heard()
    monkeypatch.setattr(Machine, "may_begin", property(lambda machine: len(heard.ended) < 2))
    Bench(tmp_path / "done", trials=2, steps=20).run(0, listener=heard)
    heard.ended.clear()
    with pytest.raises(Interrupted, match="too little time is left to begin another trial"):
        Bench(tmp_path / "left", trials=3, steps=20).run(0, listener=heard)
    never = (
        "__import__('tuner.execution.machine').execution.machine.Machine.may_begin = False"  # from its first step on
    )
    Bench(tmp_path / "worker", trials=1, steps=20, loss=never).run(1)
