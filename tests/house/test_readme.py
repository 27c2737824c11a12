"""README and architecture tell the truth about what exists: files, commands, options, the map of the playbook."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tuner.cli.commands import commands
from tuner.cli.program import program

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MAP = ARCHITECTURE.split("## The playbook, and where each part lives")[1].split("\n## ")[0]


def test_every_file_that_the_readme_and_the_map_name_exists():
    files = r"(?:tuner|studies|tests|notebooks|docs)/[\w/.-]+\.(?:py|ipynb|png|md)"
    named = set(re.findall(files, README + MAP))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_map_of_the_playbook_has_a_file_for_every_heading():
    rows = [line for line in MAP.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) >= 10
    assert all(re.search(r"`tuner/[\w/]+\.py`", row) for row in rows)


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented_and_says_what_it_does(name):
    assert f"`tuner {name} " in README or f"| `tuner {name}" in README
    assert commands()[name].help


def test_every_option_in_the_table_of_commands_exists():
    for name, options in re.findall(r"\| `tuner ([\w-]+) ([^`]*)`", README):
        known = {flag for parameter in program().commands[name].params for flag in parameter.opts}
        assert set(re.findall(r"--[\w-]+", options)) <= known, name


def test_the_packages_of_the_architecture_exist():
    for name in (
        "budget",
        "design",
        "training",
        "storage",
        "execution",
        "analysis",
        "rounds",
        "plots",
        "report",
        "cli",
    ):
        assert f"`{name}`" in ARCHITECTURE
        assert (ROOT / "tuner" / name / "__init__.py").exists()


def test_help_imports_nothing_heavy():
    script = (
        "import sys; sys.argv = ['tuner', '--help']\n"
        "from tuner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'scipy', 'matplotlib', 'sqlalchemy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "boundaries" in ended.stdout


def test_the_changelog_knows_the_version():
    import tuner

    newest = re.search(r"## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text()).group(1)
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert newest == project == tuner.__version__


def test_the_wheel_contains_what_it_must(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "tuner = tuner.cli:main" in archive.read(entry).decode()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "tuner").rglob("*") if path.suffix in (".py", ".jinja")}
    assert sources | {"tuner/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "studies", "runs"))]
