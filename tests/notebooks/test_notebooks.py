"""The notebooks run from top to bottom on a real campaign."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest
from support.patience import STILL
from support.study_files import write_study

pytestmark = [
    # ipykernel and zmq, not ours: a kernel on loopback, closed by its own garbage collection
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_read_a_study_runs_and_shows_its_plots(tuner, tmp_path, monkeypatch):
    study = write_study(tmp_path, trials=6, more='name="digits",', replace=[("max_train_steps=60, ", "")])
    assert tuner("run", study, "--yes").code == 0
    notebook = nbformat.read(NOTEBOOKS / "read_a_study.ipynb", as_version=4)
    monkeypatch.setenv("TUNER_STORAGE", str(tmp_path / "runs" / "tuner.sqlite"))
    nbclient.NotebookClient(notebook, timeout=STILL, kernel_name="python3").execute(cwd=os.fspath(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5, "sweep, best steps, axes, isolation, curves"
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("evidence, " in html for html in shown) == 2, "best steps and a boundary, as findings show themselves"
    assert not [output for output in outputs if output["output_type"] == "error"]


def test_import_an_optuna_study_runs_and_shows_findings_and_plots(tmp_path):
    notebook = nbformat.read(NOTEBOOKS / "import_an_optuna_study.ipynb", as_version=4)
    resources = {"metadata": {"path": os.fspath(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=STILL, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 3
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("expand_high" in html for html in shown), "the best learning rate lies beyond the range"


def test_the_notebooks_are_stored_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), path.name


def test_run_a_study_trains_a_campaign_that_is_defined_in_a_cell(tmp_path, monkeypatch):
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    notebook = nbformat.read(NOTEBOOKS / "run_a_study.ipynb", as_version=4)
    again = nbformat.v4.new_code_cell("Spirals.batch_size = 8\ntuner.launch(campaign)")  # an edited cell, run again
    notebook.cells.append(again)
    resources = {"metadata": {"path": os.fspath(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=STILL, kernel_name="python3", resources=resources)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=r"value Spirals\.batch_size changed"):
        client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = "\n".join(output.get("data", {}).get("text/plain", output.get("text", "")) for output in outputs)
    assert f"spirals: round-1; report: {tmp_path}/runs/spirals.html" in told
    assert "round-1 10/10" in told, "progress, a line for each trial"
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    assert (tmp_path / "runs" / "spirals.html").exists()
