"""The plugin of docs/how-to/extend.md works as it stands, once it is installed as the page says."""

import re
import subprocess
import sys
from pathlib import Path

from support.study_files import write_study

PAGE = (Path(__file__).parents[2] / "docs/how-to/extend.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_plugin_of_the_page_adds_what_it_says(tmp_path):
    folder = tmp_path / "sign_plugin-1.0.dist-info"
    folder.mkdir()
    (tmp_path / "sign_plugin.py").write_text(block("python"), encoding="utf-8")
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sign-plugin\nVersion: 1.0\n")
    group, entry = re.search(r'entry-points\."(.+)"\]\n(\w+ = "\w+")', block("toml")).groups()
    (folder / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    study = write_study(tmp_path, trials=2, steps=20, more="optimizer='sign',")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import tuner
tuner.launch({str(study)!r}, round=1, storage={str(tmp_path / "r.sqlite")!r})
records = tuner.load("tiny", {str(tmp_path / "r.sqlite")!r})
print(next(found for found in records.check() if found.question == "several_trials").verdict)
print(len(records.drawn("finals")[1]))
sys.argv = ["tuner", "greet", "reader"]
from tuner.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-4:] == ["several", "2", "hello reader", ""]
