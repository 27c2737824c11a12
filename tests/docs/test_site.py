"""The pages build without a warning, and nothing in them is fetched from a network."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+["']""")


def test_the_pages_build_without_a_warning(tmp_path):
    assert importlib.util.find_spec("sphinx"), "the pages cannot be built; run: pip install -e '.[docs]'"
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees"]
    built = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "html"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert FETCHED.findall(page.read_text(encoding="utf-8")) == [], page
    assert 'href="../reference/rules.html#a14"' in (site / "concepts/verdicts.html").read_text(encoding="utf-8")
    assert (site / "example-report.html").exists()
    assert "tuner boundaries" in (site / "reference/cli.html").read_text(encoding="utf-8")


def test_the_pattern_sees_what_a_page_fetches():
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert FETCHED.search("<script async src='//cdn.example/x.js'></script>")
    assert not FETCHED.search('<a href="https://example.org">x</a> <link href="_static/x.css">')
