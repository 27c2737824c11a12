"""The RayJob of the page about Ray: its command parses, and its pods are valid for Kubernetes.

KubeRay's own schema is in no Python package, so the parts of the file around the pods are checked by hand here.
"""

import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tuner import signals
from tuner.cli.commands import commands
from tuner.cli.program import parser_of
from tuner.execution.engines import parsed_engine

FILE = Path(__file__).parents[2] / "docs/recipes/kuberay-rayjob.yaml"


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_it_is_a_rayjob_with_a_head_that_trains_nothing(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == {
        "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "rayClusterSpec",
    }  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}, "texts, as KubeRay wants them"
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_its_command_is_one_of_ours(job):
    program, name, *options = shlex.split(job["spec"]["entrypoint"])
    assert program == "tuner"
    parser = parser_of(commands()[name], name)
    context = parser.make_context(name, list(options), resilient_parsing=True)
    assert parsed_engine(context.params["engine"]).address == ""
    assert context.params["gpus"] == 1.0


@pytest.mark.parametrize("place", ["head", "workers"])
def test_its_pods_are_valid(job, place):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"]] if place == "head" else cluster["workerGroupSpecs"]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        grace = group["template"]["spec"].get("terminationGracePeriodSeconds")
        assert grace is None or grace > signals.SAVE_SECONDS + signals.LAST_SECONDS


def test_the_version_of_ray_is_one_that_we_take(job):
    major, minor, _ = map(int, job["spec"]["rayClusterSpec"]["rayVersion"].split("."))
    assert (major, minor) >= (2, 55)
    assert re.search(r'ray = \["ray>=2\.55,<3"\]', (FILE.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
