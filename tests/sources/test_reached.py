"""Which files belong to a study, whoever asks and wherever they lie; and which belong to installed packages."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import DeclarationError
from tuner.sources import reached as reached_module
from tuner.sources.reached import FROM_TEXT, STUDY_FILE, Reached
from tuner.sources.running import Seen, loaded, watched


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder on the path; `project(name="text")` writes modules into it, dots for folders."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def write(**files):
        for name, text in files.items():
            path = folder / (name.replace("__", "/").replace("/init", "/__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return folder / "study.py"

    yield write
    for name in set(sys.modules) - before:
        sys.modules.pop(name)


def labels(study):
    return set(Reached(study).code) - {STUDY_FILE}


@pytest.mark.parametrize(
    ("study", "files", "expected"),
    [
        ("import blocks", {"blocks": ""}, {"blocks.py"}),
        ("from blocks import net", {"blocks": "net = 1"}, {"blocks.py"}),
        ("def f():\n    import blocks", {"blocks": ""}, {"blocks.py"}),
        ("try:\n    import blocks\nexcept ImportError:\n    import other", {"blocks": ""}, {"blocks.py"}),
        ("import pkg.net", {"pkg__init": "", "pkg__net": ""}, {"pkg/__init__.py", "pkg/net.py"}),
        ("from pkg import net", {"pkg__init": "", "pkg__net": ""}, {"pkg/__init__.py", "pkg/net.py"}),
        ("import pkg", {"pkg__init": "from . import net", "pkg__net": "from .deep import x", "pkg__deep": "x = 1"},
         {"pkg/__init__.py", "pkg/net.py", "pkg/deep.py"}),
        ("import pkg.a.b", {"pkg__init": "", "pkg__a__init": "", "pkg__a__b": "from .. import c", "pkg__c": ""},
         {"pkg/__init__.py", "pkg/a/__init__.py", "pkg/a/b.py", "pkg/c.py"}),
        ("import space.net", {"space__net": ""}, {"space/net.py"}),  # a namespace: a folder without __init__
        ("import a", {"a": "import b", "b": "import a"}, {"a.py", "b.py"}),
        ("import importlib\nm = importlib.import_module('blocks')", {"blocks": ""}, {"blocks.py"}),
        ("m = __import__('blocks')", {"blocks": ""}, {"blocks.py"}),
        ("exec(open('layers.py').read())", {"layers": "import deep", "deep": ""}, {"layers.py", "deep.py"}),
        ("import torch, json, tuner, no_such_module", {"unused": ""}, set()),
    ],
)  # fmt: skip
def test_imports_are_followed_without_importing(project, study, files, expected):
    path = project(study=study, **files)
    before = set(sys.modules)
    assert labels(path) == expected
    assert set(sys.modules) == before


def test_neither_the_place_nor_the_process_decides(project, tmp_path):
    path = project(study="import blocks\nfrom pkg import net", blocks="x = 1", pkg__init="", pkg__net="y = 2")
    here = Reached(path).code
    importlib.import_module("pkg.net")
    (path.parent / "unrelated.py").write_text("z = 3")
    importlib.import_module("unrelated")
    assert Reached(path).code == here, "what else a process has imported does not count"
    moved = tmp_path / "elsewhere"
    path.parent.rename(moved)
    script = (
        "import json, sys; from pathlib import Path; from tuner.sources.reached import Reached; "
        "print(json.dumps(Reached(Path(sys.argv[1])).code, sort_keys=True))"
    )
    environment = {"PYTHONPATH": f"{moved}:{Path(reached_module.__file__).parents[2]}", "PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", script, str(moved / "study.py")], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert run.stdout.strip() == __import__("json").dumps(here, sort_keys=True)


def test_the_name_of_the_study_file_is_no_part_of_it(project):
    path = project(study="x = 1", renamed="x = 1")
    assert Reached(path).code == Reached(path.with_name("renamed.py")).code


def test_what_runs_without_being_imported_by_name_is_added(project):
    path = project(study="", plugins__relu="import deep\ndef act(x):\n    return x\n", deep="", unused="")
    reached = Reached(path)
    with watched(Seen()) as seen:
        spec = importlib.util.spec_from_file_location("a_plugin_7f3a", path.parent / "plugins" / "relu.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.act(1)
    reached.add_seen(seen)
    assert set(reached.code) == {STUDY_FILE, "plugins/relu.py", "deep.py"}


def ran_from_text(text, project):
    path = project(study="")
    module = type(sys)("its_study")
    module.__file__ = str(path)
    sys.modules["its_study"] = module
    reached = Reached(path)
    exec(text, vars(module))
    with watched(Seen()) as seen:
        module.act(1)
    reached.add_seen(seen)
    return reached.code[FROM_TEXT]


def test_a_function_that_exec_made_counts_by_its_compiled_code(project):
    mine = ran_from_text("def act(x):\n    return x + 1", project)
    assert list(mine) == ["function act"]
    assert mine == ran_from_text("# a remark\n\ndef act(x):\n    return (x + 1)  # more", project)
    assert mine != ran_from_text("def act(x):\n    return x + 2", project)


def test_a_text_counts_that_a_module_runs_while_it_is_loaded(project):
    def known(text, file="<string>"):
        path = project(study="", config=f"exec(compile({text!r}, {file!r}, 'exec'))\n")
        with loaded(Seen()) as seen:
            importlib.import_module("config")
        reached = Reached(path)
        reached.add_seen(seen)
        sys.modules.pop("config")
        return reached.code

    mine = known("WIDTH = 3")[FROM_TEXT]
    assert next(iter(mine)).startswith("text run by config.py")
    assert mine == known("# a remark\nWIDTH  =  3")[FROM_TEXT]
    assert mine != known("WIDTH = 4")[FROM_TEXT]


def test_a_debugger_stays_where_it_is():
    def tracer(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with watched(Seen()) as seen:
            Path("x").with_suffix(".y")
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert any(code.co_name == "with_suffix" for code, _ in seen.codes)


def install(folder, name, *, files, version="1.0", direct_url=None):
    folder.mkdir(exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))
    if direct_url:
        (info / "direct_url.json").write_text(direct_url)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("from x_inner import y\n" if file.endswith("py") else "")


@pytest.mark.parametrize("where", ["site-packages", "target"])
def test_of_an_installed_distribution_the_version_counts(project, tmp_path, monkeypatch, where):
    folder = tmp_path / where
    install(folder, "Reached.Lib", files=["reachedlib/__init__.py", "reachedlib/net.py"], version="2.3")
    install(folder, "one-file", files=["single.py"], version="4")
    monkeypatch.syspath_prepend(str(folder))
    reached = Reached(project(study="from reachedlib import net\nimport single, torch"))
    assert (set(reached.code), reached.packages) == ({STUDY_FILE}, {"reached-lib": "2.3", "one-file": "4"})


@pytest.mark.parametrize(("name", "counts"), [("reachedlib.made_for_net", False), ("reachedmine.made", True)])
def test_a_module_that_an_installed_package_writes_to_a_new_file_each_time_does_not_count(
    project, tmp_path, monkeypatch, name, counts
):
    """PyTorch Geometric writes torch_geometric.nn.conv.gin_conv_GINConv_propagate to a file with a random name."""
    install(tmp_path / "site-packages", "Reached.Lib", files=["reachedlib/__init__.py"])
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    (tmp_path / "site-packages" / "reachedlib" / "__init__.py").write_text("")
    path = project(study="import reachedlib", reachedmine__init="")
    importlib.import_module(name.partition(".")[0])
    (tmp_path / f"{name}_g9lzr5fu.py").write_text("def propagate(x):\n    return x\n")
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}_g9lzr5fu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    reached = Reached(path)
    with loaded(Seen()) as seen:
        spec.loader.exec_module(module)
    reached.add_seen(seen)
    with watched(Seen()) as seen:
        module.propagate(1)
    reached.add_seen(seen)
    assert any("g9lzr5fu" in label for label in reached.code) == counts
    assert reached.packages == {"reached-lib": "1.0"}


def test_source_trees_and_what_was_installed_from_a_folder_are_own_code(project, tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    install(site, "editable", files=["__editable__.editable.pth"])
    install(site, "local", files=["local.py"], direct_url='{"dir_info": {}, "url": "file:///home/me/local"}')
    (site / "loose.py").write_text("")
    source = tmp_path / "src"
    (source / "editable.egg-info").mkdir(parents=True)
    (source / "editable.egg-info" / "top_level.txt").write_text("editable\n")
    (source / "editable.py").write_text("")
    for folder in (site, source):
        monkeypatch.syspath_prepend(str(folder))
    reached = Reached(project(study="import editable, local, loose"))
    assert (set(reached.code), reached.packages) == ({STUDY_FILE, "editable.py", "local.py", "loose.py"}, {})


def test_a_package_that_several_distributions_share_has_the_version_of_the_right_one(project, tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    install(site, "corp-a", files=["corp/a.py"], version="1")
    install(site, "corp-b", files=["corp/b.py"], version="2")
    monkeypatch.syspath_prepend(str(site))
    assert Reached(project(study="import corp.b")).packages == {"corp-b": "2"}


def test_code_without_source_counts_by_its_bytes(project):
    import py_compile

    path = project(study="import blocks", blocks="x = 1")
    source = path.with_name("blocks.py")
    py_compile.compile(str(source), cfile=str(path.with_name("blocks.pyc")))
    source.unlink()
    importlib.invalidate_caches()
    first = Reached(path).code["blocks.pyc"]
    assert list(first) == ["the whole file"]
    path.with_name("blocks.pyc").write_bytes(path.with_name("blocks.pyc").read_bytes() + b"x")
    assert Reached(path).code["blocks.pyc"] != first


def test_a_module_in_an_archive_is_read_there(project, tmp_path, monkeypatch):
    import zipfile

    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped.py", "import blocks\nx = 1\n")
    monkeypatch.syspath_prepend(str(archive))
    assert labels(project(study="import zipped", blocks="")) == {"zipped.py", "blocks.py"}


def test_a_loaded_module_whose_file_is_gone_cannot_be_read_back(project):
    path = project(study="import blocks", blocks="x = 1")
    importlib.import_module("blocks")
    path.with_name("blocks.py").unlink()
    with pytest.raises(DeclarationError, match=r"blocks\.py .*cannot be read back from .*put the file back"):
        Reached(path)


def test_a_module_that_was_edited_after_its_import_is_refused(project):
    path = project(study="import blocks", blocks="def net():\n    return 1\n")
    importlib.import_module("blocks")
    Reached(path).refuse_stale_modules()
    path.with_name("blocks.py").write_text("# a remark\n\ndef net():\n    return 1\n\ndef new():\n    return 2\n")
    Reached(path).refuse_stale_modules()
    path.with_name("blocks.py").write_text("def net():\n    return 2\n")
    with pytest.raises(DeclarationError, match=r"blocks\.py was edited after this process had imported it.*kernel"):
        Reached(path).refuse_stale_modules()


def test_each_of_fifty_modules_is_read_and_parsed_once(project, monkeypatch):
    import ast

    body = "import pkg\nfrom pkg import m0, m1\nfrom .m2 import f\n" + "def f(x):\n    return x + 1\n" * 40
    files = {f"pkg__m{number}": body for number in range(50)}
    path = project(study="import pkg", pkg__init="".join(f"from . import m{n}\n" for n in range(50)), **files)
    reads, read = [], reached_module._read
    monkeypatch.setattr(reached_module, "_read", lambda file, label: reads.append(file) or read(file, label))
    parses, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *rest, **named: parses.append(1) or parse(*rest, **named))
    assert len(Reached(path).code) == 52
    assert len(reads) == len(set(reads)) == 52
    assert len(parses) <= 3, "of equal sources one, and once for its meaning, its imports and the files it names"
