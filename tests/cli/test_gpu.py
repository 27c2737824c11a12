"""Round 1 of the digits study on a GPU through the real path: fused and one by one, the same records."""

import json
from pathlib import Path

import torch
from support.gpu import ON_GPU
from support.records import CURVES, rows
from support.study_files import write_study

pytestmark = ON_GPU
BEST = "select path, digest from checkpoint_file where path like '%safetensors' order by 1"
DIGITS = Path(__file__).parents[1] / "reference_studies" / "digits.py"
ROUND = ("--round", "1", "--max-train-steps", "100", "--device", "cuda")


def test_the_fast_profile_trains_on_a_gpu_and_says_so(tuner, tmp_path):
    run = tuner("launch", DIGITS, *ROUND, "--fuse", "16", "--profile", "fast")
    assert run.code == 0, run.err
    torch.use_deterministic_algorithms(False)
    ((data,),) = rows(tmp_path, "select data from conclusion where kind = 'fusion'")
    assert "equal to rounding" in data
    ((numerics,),) = rows(tmp_path, "select distinct numerics from trial")
    assert json.loads(numerics)["engine"] == "fast"


def test_round_1_of_digits_is_the_same_fused_and_unfused(tuner, tmp_path, monkeypatch):
    for folder, fuse in (("alone", "off"), ("together", "32"), ("chosen", "auto")):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        run = tuner("launch", DIGITS, *ROUND, "--fuse", fuse)
        assert run.code == 0, run.err
    torch.use_deterministic_algorithms(False)
    alone = rows(tmp_path / "alone", CURVES)
    assert len({number for number, *_ in alone}) == 32
    assert rows(tmp_path / "together", CURVES) == alone
    assert rows(tmp_path / "chosen", CURVES) == alone
    ((data,),) = rows(tmp_path / "together", "select data from conclusion where kind = 'fusion'")
    assert [told["self_check"] for told in json.loads(data).values()] == ["identical"]
    ((numerics,),) = rows(tmp_path / "together", "select distinct numerics from trial")
    assert json.loads(numerics)["device"] == torch.cuda.get_device_name()


def test_two_ranks_that_share_a_gpu_have_the_bits_of_one_process(tuner, tmp_path, monkeypatch):
    on_gpu = ("--workers-per-gpu", "2", "--device", "cuda", "--fuse", "off")
    slices = [("batch_size = 8", "batch_size, slices = 8, 4")]
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        monkeypatch.chdir(folder)
        study = write_study(folder, trials=2, steps=40, replace=slices)
        run = tuner("launch", study, "--gang", str(ranks), *on_gpu)
        assert run.code == 0, run.err
    assert rows(tmp_path / "2", CURVES) == rows(tmp_path / "1", CURVES)
    assert rows(tmp_path / "2", BEST) == rows(tmp_path / "1", BEST)
