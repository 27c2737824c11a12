"""A workload loaded for a folder, and studies of it trained in this process."""

from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.training.alone import Alone


def loaded(workload, root, *, study_file=None, engine=Alone, **options):
    return LoadedWorkload(workload, Machine(root, **options), study_file, engine)


def train(loaded, ledger, row, listener=None, stop=lambda: False):
    InProcess().run(Job(ledger, row, loaded), listener or Silent(), stop)
