"""Text of strangers on terminals, pages and plots: nothing hidden, nothing executed, no line that poses as another."""

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import unicodedata

import optuna
import pyte
import pytest
from support import needs
from support.shell import run_in
from support.study_files import write_study

from tuner.shown import commands_with, quoted, shown, shown_lines, word

NAME = "act\nnext: rm -rf ~"
CHOICES = ["\x1b[2J\x1b]0;owned\x07x", "b\u202egnp.exe", "<script>document.title='run'</script>", "\u2028\x85\r$x_{$"]
STUDY = "e\u202e\x1b[31m'; echo owned #"
METRIC = "val\x9b31mloss\nnext: rm"
READING = ("trials", "best", "best-steps", "boundaries", "check", "verify")


def hidden(text):
    """Letters that a person cannot see, or that do something to a terminal; line breaks are the program's own."""
    return {
        letter for letter in text if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder with an Optuna study whose names and choices want to be more, imported."""
    folder = tmp_path_factory.mktemp("strangers")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(study_name="s", storage=f"sqlite:///{folder}/o.db")

    def objective(trial):
        trial.suggest_categorical(NAME, CHOICES)
        rate = trial.suggest_float("lr", 1e-4, 1, log=True)
        for k in range(1, 26):
            trial.report(1 / k + rate, 10 * k)
        return rate

    made.optimize(objective, n_trials=12)
    with pytest.MonkeyPatch.context() as patched:
        told = ("--study-name", "s", "--objective", METRIC, "--study", STUDY)
        assert run_in(folder, patched, "import", "optuna", "sqlite:///o.db", *told) == 0
    return folder


@pytest.fixture
def there(imported, tuner, monkeypatch):
    """`tuner` in the folder of the imported study."""
    monkeypatch.chdir(imported)
    return tuner


def command(folder, *arguments, **more):
    program = [sys.executable, "-c", "from tuner.cli import main; main()", *arguments]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, **more)


def on_a_terminal(folder, *arguments):
    """The title and the lines that a terminal emulator shows in the end."""
    screen = pyte.HistoryScreen(200, 400)
    stream = pyte.ByteStream(screen)
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "LINES": "400", "TERM": "xterm"}
    program = [sys.executable, "-c", "from tuner.cli import main; main()", *arguments]
    with subprocess.Popen(program, cwd=folder, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        stream.feed(b"before\r\n")
        while True:
            try:
                told = os.read(parent, 65536)
            except OSError:
                break
            if not told:
                break
            stream.feed(told)
        process.wait()
    os.close(parent)
    return screen.title, [line.rstrip() for line in screen.display]


def test_no_command_prints_what_cannot_be_seen(there):
    for verb in READING:
        run = there(verb, STUDY)
        assert run.code in ((0,) if verb == "verify" else (0, 3)), run.err + run.out
        assert not hidden(run.out + run.err), verb
        assert not re.search("^(next: )?rm", run.out + run.err, re.MULTILINE), verb
    told = there("trials", STUDY).out
    assert r"act\nnext: rm -rf ~" in told
    assert r"\x1b[2J\x1b]0;owned\x07x" in told or r"b\u202egnp.exe" in told


def test_a_terminal_keeps_its_title_its_lines_and_its_colours(imported):
    title, lines = on_a_terminal(imported, "trials", STUDY)
    assert title == ""
    assert lines[0] == "before", "the screen was not cleared"
    assert any(r"act\nnext: rm -rf ~" in line for line in lines)


def test_json_and_csv_keep_every_letter(there):
    rows = json.loads(there("trials", STUDY, "-f", "json").out)
    assert {row[NAME] for row in rows} <= set(CHOICES)
    header = next(csv.reader(io.StringIO(there("trials", STUDY, "-f", "csv").out, newline="")))
    assert NAME in header


def test_every_next_line_works_when_it_is_pasted(imported, there):
    """Into bash, where the name of the study holds a quote, a command, an escape and a mark of direction."""
    run = there("best-steps", STUDY)
    commands = [line.removeprefix("next: ") for line in run.err.splitlines() if line.startswith("next: ")]
    assert commands
    shims = imported / "bin"
    shims.mkdir()
    (shims / "tuner").write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from tuner.cli import main; main()' \"$@\"\n")
    (shims / "tuner").chmod(0o755)
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    for line in commands:
        run = ["bash", "-c", line]
        pasted = subprocess.run(run, cwd=imported, env=environment, capture_output=True, text=True, check=False)
        assert pasted.returncode in (0, 3), pasted.stderr
        assert "owned" not in pasted.stdout.split()


def test_a_page_and_a_notebook_hold_nothing_hidden_and_no_tag_of_a_stranger(imported, there):
    import tuner

    assert there("report", STUDY, "-o", "page.html").code == 0
    page = (imported / "page.html").read_text(encoding="utf-8")
    assert not hidden(page)
    assert "<script" not in page
    assert r"act\nnext: rm -rf ~" in page
    records = tuner.load(STUDY, str(imported / "runs/tuner.sqlite"))
    displays = [records._repr_html_(), records.frames()._repr_html_(), *(one._repr_html_() for one in records.check())]
    for text in [*displays, repr(records), repr(records.best()), *map(repr, records.check())]:
        assert not hidden(text)
        assert "<script" not in text or not text.startswith("<div>")


def test_plots_write_the_names_as_they_are(there):
    for kind in ("axes", "isolation", "parallel"):  # a letter that no font has would be a warning, which is an error
        run = there("plot", kind, STUDY, "-o", f"{kind}.svg")
        assert run.code == 0, run.err


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_a_browser_runs_nothing_of_the_page(imported, there):
    browser = needs.browser()
    assert there("report", STUDY, "-o", "seen.html").code == 0
    page = imported / "seen.html"
    # As a browser sees it without the page's own rule against scripts: escaping alone has to hold.
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
    arguments = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={imported}/b"]
    seen = subprocess.run([*arguments, page.as_uri()], capture_output=True, text=True, check=False)
    assert "<h2>Summary</h2>" in seen.stdout, seen.stderr[-2000:]
    assert "<title>run</title>" not in seen.stdout
    assert re.findall(r"<script|onerror=|<img(?! src=\"data:image/)", seen.stdout) == []


@pytest.mark.slow
def test_a_campaign_of_ones_own_is_shown_the_same_way(tuner, tmp_path):
    """Names of the space, reasons of trials, the name of the file and the message of an error."""
    space = 'dropout=uniform(0.0, 0.5, limits="low")'
    name = "x\nnext: rm -rf ~\x1b[2J"
    model = 'return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(16, 2))'
    fails = 'raise ValueError("bad\\nnext: rm\\x1b]0;owned\\x07" * 1000)'
    study = write_study(
        tmp_path, "a b\u202e.py", trials=2, replace=[(space, f"{space}, **{{{name!r}: uniform(0, 1)}}")]
    )
    run = tuner("launch", study.name)
    assert run.code == 0, run.err
    assert not hidden(run.out + run.err)
    assert not hidden(tuner("best", study.stem).out)
    bad = write_study(tmp_path, "bad.py", trials=2, replace=[(model, fails)])
    runs = [tuner("launch", bad.name), tuner("launch", "no\x1b[2J\nnext: rm.py")]
    traced = command(tmp_path, "launch", bad.name, "--debug")
    for code, told in [(traced.returncode, traced.stderr), *((run.code, run.err) for run in runs)]:
        assert code != 0
        assert not hidden(told), told
        assert not re.search("^next: rm", told, re.MULTILINE)
        assert max(map(len, told.splitlines())) < 5000


@pytest.mark.parametrize("given", ["option", "environment", "default"])
def test_a_next_line_names_the_storage_and_the_checkpoints_that_were_given(given, tuner, tmp_path, monkeypatch):
    study = write_study(tmp_path, trials=2, steps=20)
    place = tmp_path / "my records" / "a.sqlite"
    more = ["--storage", place, "--checkpoints", "ck pt"] if given == "option" else []
    if given == "environment":
        monkeypatch.setenv("TUNER_STORAGE", str(place))
    run = tuner("launch", study, *more)
    assert run.code == 0, run.err
    lines = [line for line in run.err.splitlines() if line.startswith("next: ")]
    assert lines
    for line in lines:
        assert (f"--storage '{place}'" in line) == (given != "default"), line
        assert "--checkpoints" not in line, "best-steps and boundaries read no checkpoint"
    reproduce = tuner("best", "tiny", *more).out
    assert (f"--storage '{place}'" in reproduce) == (given != "default")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain naïve 日本 🙂", "plain naïve 日本 🙂"),
        ("a\n\r\t\x00\x1b\x7f", r"a\n\r\t\x00\x1b\x7f"),
        ("\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff",
         r"\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff"),
        ("\udc80\ud800\U000e0001\ufff0\u3164", r"\udc80\ud800\U000e0001\ufff0\u3164"),
        ("\u0601", "\u0601"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_shown_by_its_number(text, seen):
    assert shown(text) == seen


@pytest.mark.parametrize("text", ["a b", "it's", "x\n$(touch a)`touch b`", "\x1b[2J\u202e\x85\\", "-x", "", "日本"])
def test_bash_reads_the_word_that_was_meant(text, tmp_path):
    told = word(text)
    assert shown(told) == told
    run = ["bash", "-c", f"printf %s {told}"]
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    read = subprocess.run(run, capture_output=True, check=True, cwd=tmp_path, env=environment)
    assert read.stdout.decode() == text
    assert list(tmp_path.iterdir()) == [], "no part of the text was run"


def test_a_message_quotes_no_more_than_a_line():
    assert quoted("x" * 10**8) == f"'{'x' * 78}… (100,000,000 characters)"
    assert quoted(10**400) == "a whole number of 1,329 bits"
    assert quoted("a\x1b") == r"'a\x1b'"
    assert len(shown_lines("y" * 10**7)) < 5000
    assert shown_lines("a\nnext: rm\n  b") == "a\n  next: rm\n  b"
    assert shlex.split(word("a b")) == ["a b"]


def test_the_dot_of_a_sentence_is_no_part_of_its_command():
    told = commands_with("Train both: tuner adopt x.py --baseline round-2/1.", lambda verb: f" --storage {verb}.db")
    assert told == "Train both: tuner adopt x.py --baseline round-2/1 --storage adopt.db."
    assert commands_with("`tuner check ..`", lambda verb: " -v") == "`tuner check .. -v`"
