"""What no line of the program may do, whoever writes it: run data, run a shell, listen to the world (A6)."""

import re
from pathlib import Path

import pytest

import tuner

PACKAGE = Path(tuner.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "studies").glob("*.py")])
FORBIDDEN = {
    "pickle": r"(\bimport |\bfrom |^|[\s(=])(c?[pP]ickle|dill|cloudpickle|joblib|shelve|marshal)(\.| import|$)",
    "eval": r"(?<![\w.])(eval|exec|compile|__import__)\(",
    "weights_only": r"weights_only\s*=\s*(?!True)",
    "allow_pickle": r"allow_pickle\s*=\s*(?!False)",
    "yaml": r"\byaml\.(unsafe_|full_)?load\b(?!\([^\n]*, yaml\.BaseLoader\))",  # that one makes texts, lists and dicts
    "shell": r"shell\s*=\s*True|os\.(system|popen)\(",
    "the world": r"0\.0\.0\.0|INADDR_ANY|\bhost\s*=\s*[\"']{2}",
    "a server": r"import (socketserver|http\.server)|from (socketserver|http\.server)|\b(create_server|listen)\(\)",
    "distributed checkpoints": r"distributed\.checkpoint|\bdcp\b",
    "all of the environment": r"dict\(os\.environ\)|os\.environ\.items\(",
    "unescaped HTML": r"autoescape\s*=\s*False|\|\s*safe\b|Markup\(",
    "SQL by formatting": r"(text|execute)\(f[\"'](?!ALTER TABLE \{column\.table\.name\})",
}


def found(source: str) -> list[str]:
    """Names of what is forbidden and there; comments and docstrings may speak of it."""
    code = re.sub(r'""".*?"""|#[^\n]*', "", source, flags=re.DOTALL)
    return [name for name, pattern in FORBIDDEN.items() if re.search(pattern, code, re.MULTILINE)]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE.parent)) for path in FILES])
def test_no_line_runs_data_or_opens_a_door(path):
    assert found(path.read_text(encoding="utf-8")) == []


def test_no_template_switches_escaping_off():
    for path in PACKAGE.rglob("*.jinja"):
        assert not re.search(r"\|\s*safe\b|autoescape\s+false", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pickle", "import pickle"),
        ("pickle", "value = joblib.load(path)"),
        ("eval", "x = eval(text)"),
        ("weights_only", "torch.load(path, weights_only=False)"),
        ("weights_only", "torch.load(path, weights_only=trusted)"),
        ("allow_pickle", "np.load(path, allow_pickle=True)"),
        ("yaml", "yaml.load(text, Loader)"),
        ("yaml", "yaml.full_load(text)"),
        ("shell", "subprocess.run(command, shell=True)"),
        ("the world", 'serve("0.0.0.0", 80)'),
        ("a server", "import http.server"),
        ("distributed checkpoints", "import torch.distributed.checkpoint as dcp"),
        ("unescaped HTML", "Environment(autoescape=False)"),
        ("SQL by formatting", 'connection.execute(text(f"SELECT {name}"))'),
    ],
)
def test_the_check_sees_what_it_looks_for(name, line):
    assert name in found(line)


def test_what_is_fine_passes():
    assert found("model.eval()\nre.compile(pattern)\ntorch.load(path, weights_only=True)  # no pickle") == []
    assert found("data = yaml.load(text_of(path), yaml.BaseLoader)") == []
