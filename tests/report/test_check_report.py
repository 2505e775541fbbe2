"""The check in a real browser passes a whole page and sees what is wrong with a broken one."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from encdec_train.report.page import write_report
from tests.report.conftest import invent

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_report.py"
NAMES = runpy.run_path(str(SCRIPT))["NAMES"]
BROKEN = """<!doctype html><html lang="en"><title>broken</title><main><p style="width: 2000px">wide</p>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><img alt="a" src="file:///nowhere/at/all.png">
<script>console.error("said"); undefined_name()</script></main>"""

needs_browser = pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="there is no Chromium")


def check(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@needs_browser
def test_pages(tmp_path):
    page = write_report(invent(tmp_path / "run"))
    done = check(page, "--shots", tmp_path / "shots")
    assert (done.returncode, done.stderr) == (0, "") and "hold together" in done.stdout
    assert len(list((tmp_path / "shots").iterdir())) == 4
    broken = tmp_path / "broken.html"
    broken.write_text(BROKEN)
    done = check(broken)
    assert done.returncode == 1
    for said in ("wider than the window", "pictures without words", "an exception", "on the console", "asks for file"):
        assert f"{broken} at 390: " in done.stdout and said in done.stdout


def test_without_a_browser_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = check(tmp_path / "page.html")
    assert done.returncode == 0 and "skipped, there is no Chromium" in done.stdout
