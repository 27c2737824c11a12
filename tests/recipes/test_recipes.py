"""The recipes as they stand on the pages: shell, schemas, commands with their options, and one table of exit codes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import ValidationError
from support.needs import require

from tuner import signals
from tuner.cli.commands import commands
from tuner.cli.exit_codes import Exit
from tuner.cli.program import parser_of

DOCS = Path(__file__).parents[2] / "docs"
RECIPES = sorted((DOCS / "recipes").iterdir())
SCRIPTS = [path for path in RECIPES if path.suffix == ".sh"]
MANIFESTS = [path for path in RECIPES if path.name.startswith("kubernetes-")]
JOBS = [path for path in MANIFESTS if "kind: Job" in path.read_text(encoding="utf-8")]
GANG = DOCS / "recipes/kubernetes-gang.yaml"
SKY = DOCS / "recipes/skypilot.yaml"
AGAIN = {int(one) for one in Exit if one.requeue}  # 75 and 130
NEVER = {int(one) for one in Exit if not one.requeue} - {0}
KILLED = {128 + 9, 128 + 15}  # what a shell makes of SIGKILL, and of SIGTERM before it is handled
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]  # of Kubernetes; before 1.29 a rule had no exit codes alone
name = lambda path: path.name  # noqa: E731


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(job):
    """The exit codes of a Job by what is done about them."""
    found: dict[str, list[int]] = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if codes := rule.get("onExitCodes"):
            assert codes["operator"] == "In"
            assert codes["containerName"] == container(job)["name"]
            assert codes["values"] == sorted(set(codes["values"])), "the API server wants them in order"
            assert 0 not in codes["values"], "the API server refuses it"
            found.setdefault(rule["action"], []).extend(codes["values"])
    return found


def container(job):
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def tuner_command(path):
    """The words of the one command of `tuner` in a recipe."""
    if path in JOBS:
        words = container(read(path))["command"]
        return words[words.index("tuner") :]
    joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
    (found,) = re.findall(r"^\s*(?:srun (?:.* rank +)?|exec |entrypoint: )?(tuner (?:run|worker) .+)$", joined, re.M)
    return shlex.split(found)


def test_every_recipe_is_shown_by_a_page_as_it_is():
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "how-to").glob("*.md")]
    shown = {found for page in pages for found in re.findall(r"^```\{literalinclude\} \.\./recipes/(\S+)$", page, re.M)}
    assert shown == {path.name for path in RECIPES}


@pytest.mark.parametrize("path", [*SCRIPTS, *JOBS, SKY], ids=name)
def test_the_command_of_a_recipe_exists_with_its_options(path):
    program, command, *words = tuner_command(path)
    assert program == "tuner"
    parser_of(commands()[command], command).make_context(command, list(words), resilient_parsing=False)


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_is_bash(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.needs("shellcheck")
def test_shellcheck_finds_nothing_in_the_scripts():
    environment = "SC1091"  # the environment of a site, which is not there
    ended = subprocess.run(
        ["shellcheck", "-e", environment, *SCRIPTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_slurm_starts_again_what_may_be_started_again(path):
    (codes,) = re.findall(r"^\s+([\d |]+)\) #", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in codes.split("|")} == AGAIN | KILLED


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_kubernetes_starts_again_what_may_be_started_again(path):
    found = rules(read(path))
    last = "FailIndex" if "worker" in path.name else "FailJob"
    assert found == {"Ignore": [130], "Count": [75], last: sorted(NEVER)}
    assert {*found["Ignore"], *found["Count"]} == AGAIN


def test_skypilot_starts_again_what_may_be_started_again():
    recovery = read(SKY)["resources"]["job_recovery"]
    assert set(recovery["recover_on_exit_codes"]) == AGAIN | KILLED
    assert recovery["max_restarts_on_errors"] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_a_manifest_is_valid(path, version):
    assert kubernetes_validate.validate(read(path), version, strict=True) == version


def misspelled(job):
    job["spec"]["podFailurePolicies"] = job["spec"].pop("podFailurePolicy")


def a_word_for_a_number(job):
    container(job)["env"][-1]["value"] = 4


def a_rule_without_a_condition(job):
    (rule,) = (rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onPodConditions" in rule)
    del rule["onPodConditions"][0]["type"]


def a_claim_in_the_wrong_place(job):
    container(job)["volumes"] = job["spec"]["template"]["spec"].pop("volumes")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "broken",
    [misspelled, a_word_for_a_number, a_rule_without_a_condition, a_claim_in_the_wrong_place],
    ids=lambda broken: broken.__name__,
)
def test_a_broken_manifest_is_found(broken, version):
    job = read(JOBS[0])
    broken(job)
    with pytest.raises(ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


def test_a_cluster_that_is_too_old_for_the_rules_refuses_them():
    with pytest.raises(ValidationError):
        kubernetes_validate.validate(read(JOBS[0]), "1.28", strict=True)


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_kubernetes_waits_longer_than_saving_takes(path):
    grace = read(path)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    saving = signals.SAVE_SECONDS + signals.LAST_SECONDS  # after the step that runs, which has as long again
    assert grace >= 2 * saving + signals.INSIST_SECONDS


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_a_pod_asks_for_no_more_rights_than_it_needs(path):
    pod = read(path)["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "without it there is no podFailurePolicy"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert container(read(path))["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    (storage,) = (one for one in container(read(path))["env"] if one["name"] == "TUNER_STORAGE")
    assert "value" not in storage, "a password comes from a Secret"
    mounted = {one["mountPath"] for one in container(read(path))["volumeMounts"]}
    assert "/dev/shm" in mounted
    assert any(word.startswith(place) for word in container(read(path))["command"] for place in mounted)


def test_the_pods_of_a_gang_find_its_first_one_by_the_service():
    job, service = read(GANG), read(DOCS / "recipes/kubernetes-gang-service.yaml")
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}, "a label that each pod of a Job has"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--master-addr {name}-0.{pod['subdomain']} " in container(job)["command"][2]
    given = {one["name"]: one.get("value") for one in container(job)["env"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(given["NUM_NODES"])
    assert container(job)["resources"]["limits"]["nvidia.com/gpu"] == int(given["NUM_GPUS"])
    saving = int(given["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert signals.SAVE_SECONDS + signals.LAST_SECONDS < saving < pod["terminationGracePeriodSeconds"]


def test_the_script_in_the_manifest_of_a_gang_is_bash_with_nothing_to_find_fault_with(tmp_path):
    require("shellcheck")
    (tmp_path / "script.sh").write_text("#!/bin/bash\n" + container(read(GANG))["command"][2])
    later = "SC2016"  # what the ranks' own shells expand
    ended = subprocess.run(
        ["shellcheck", "-e", later, tmp_path / "script.sh"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_the_pods_of_a_campaign_and_of_its_workers_differ_in_their_command_only():
    (run, workers) = (read(path)["spec"]["template"] for path in JOBS if path != GANG)
    for template in (run, workers):
        del template["spec"]["containers"][0]["command"]
    assert run == workers
    specs = [deepcopy(read(path)["spec"]) for path in JOBS if path != GANG]
    assert specs[1]["completionMode"] == "Indexed"
    assert specs[1]["completions"] == specs[1]["parallelism"]


CHECK = """
import sys, yaml, jsonschema, sky
from sky.utils import schemas
task = yaml.safe_load(open(sys.argv[1]))
jsonschema.validate(task, schemas.get_task_schema())
jsonschema.validate(task["resources"], schemas.get_resources_schema())
sky.Task.from_yaml_config(task, secrets_overrides=[(name, "given") for name in task["secrets"]])
"""


@pytest.mark.needs("skypilot")
def test_skypilot_reads_its_recipe(tmp_path):
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    shutil.copy(SKY, tmp_path / "wrong.yaml")
    wrong = (tmp_path / "wrong.yaml").read_text().replace("recover_on_exit_codes: [75,", "recover_on_exit_codes: [-75,")
    (tmp_path / "wrong.yaml").write_text(wrong)
    for path, fine in ((SKY, True), (tmp_path / "wrong.yaml", False)):
        command = [sys.executable, "-c", CHECK, path]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == fine, ended.stderr
