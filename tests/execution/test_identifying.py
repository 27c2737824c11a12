"""Files that are edited while a study is loaded, or trained."""

from dataclasses import replace

import pytest
import torch
from support.loaded import loaded
from support.study_files import write_study

from tuner.design.study_file import load_campaign
from tuner.errors import StudyChanged
from tuner.rounds.plan import study_of_round

IMPORTS = ("from tuner import *", "from tuner import *\nimport blocks")


@pytest.fixture
def opened(tmp_path):
    blocks = tmp_path / "blocks.py"
    blocks.write_text("WIDTH = 1\n")
    file = write_study(tmp_path, replace=[IMPORTS])
    _, campaign = load_campaign(file)
    local = loaded(campaign.workload, tmp_path, device="cpu", study_file=file)
    return blocks, local, study_of_round(campaign, 1, 20)


def test_a_file_that_is_saved_while_the_study_is_loaded_is_refused(opened):
    blocks, local, study = opened
    assert torch.is_tensor(local.data.training.tensors[0])
    blocks.write_text("WIDTH = 2\n")
    with pytest.raises(StudyChanged, match=r"blocks\.py was changed while the study was loaded; launch again"):
        local.identity_of(study)


def test_a_file_that_is_edited_while_it_is_trained_stops_nothing_here(opened):
    blocks, local, study = opened
    before = local.identity_of(study)
    blocks.write_text("WIDTH = 2\n")
    again = local.identity_of(replace(study, name="round-2"))
    assert again.fingerprint == before.fingerprint
