"""Names and prompts that would be HTML: on no page do they run anything or fetch anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from jdreambooth.contest.comparison import write_comparison
from jdreambooth.contest.config import read_config
from jdreambooth.contest.report import write_report
from jdreambooth.contest.run import make_record
from jstyle.grids.cells import Cell
from jstyle.grids.page import as_html as as_sheet
from jstyle.parity.page import as_html
from jstyle.parity.report import Report
from jstyle.parity.task import Task
from tests.contests import make_contest, save

RUNS = "document.title='ran'"
HOSTILE = (
    f"<img src=x onerror={RUNS}>",
    f'" autofocus onfocus="{RUNS}',
    f"<svg onload={RUNS}>",
    f"<script>{RUNS}",
    "$script $title ${styles}",
    "<img src='http:example.invalid'>",
)
OUTSIDE = ("src", "href", "action", "srcset", "poster", "data", "formaction")


class Finder(HTMLParser):
    """What a page would run or fetch, apart from its own scripts, which are counted."""

    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        for name, value in attrs:
            outside = name in OUTSIDE and not (value or "").startswith(("data:", "#", "./"))
            if name.startswith("on") or name == "autofocus" or outside:
                self.found.append((tag, name, value))


def found_in(text: str) -> tuple[list, int]:
    finder = Finder()
    finder.feed(text)
    return finder.found, finder.scripts


@pytest.fixture
def page(tmp_path):
    """The page of a contest whose folder, pictures and prompts are called like that."""
    root, _ = make_contest(tmp_path / HOSTILE[0])
    (root / "00" / "prompt.json").write_text(json.dumps(dict(enumerate(HOSTILE))))
    images = root / "00" / "images"
    (images / "moon.png").rename(images / f"{HOSTILE[1]}.png")
    record = make_record(root, tmp_path / "out", read_config(None))
    record.out.style("00").mkdir(parents=True)
    record.write()
    return write_report(tmp_path / "out")


def test_nothing_of_a_contest_becomes_html(page):
    text = page.read_text("utf-8")
    assert found_in(text) == ([], 1)
    assert "&lt;svg onload=" in text and "$script $title ${styles}" in text


def test_nothing_of_a_comparison_becomes_html(page, tmp_path):
    out = tmp_path / HOSTILE[0]
    shutil.copytree(page.parent, out / HOSTILE[3].replace("/", ""))
    text = write_comparison([page.parent, next(out.iterdir())], tmp_path / "c.html").read_text()
    assert found_in(text) == ([], 1)
    assert "&lt;svg onload=" in text and "&lt;script&gt;" in text


def test_nothing_of_a_parity_report_becomes_html():
    words = {"prompt": HOSTILE[0], "source": HOSTILE[2], "fingerprint": None, "rng": "numpy"}
    task = Task(stages=(), steps=3, seed=0, size_px=64, timestep=501, **words)
    facts = {"side": HOSTILE[1], "device": HOSTILE[3], "versions": {HOSTILE[0]: HOSTILE[3]}}
    text = as_html(Report(task, [], facts, facts, fault=HOSTILE[0]))
    assert found_in(text) == ([], 0)
    assert "default-src 'none'" in text and "&lt;svg onload=" in text


@pytest.fixture
def sheet(tmp_path):
    """The page of a grid whose folder, axes and values are called like that."""
    folder = tmp_path / HOSTILE[0].replace("/", "_")
    folder.mkdir()
    save(folder / "painted.png", 1)
    values = dict.fromkeys(HOSTILE[:3], HOSTILE[3])
    painted = Cell((0, 0, 0), values, None, (), key="painted")
    cells = {(0, 0, 0): painted, (1, 0, 0): replace(painted, why=HOSTILE[2])}
    labels = ([HOSTILE[0], HOSTILE[1]], [HOSTILE[2]], [HOSTILE[3]])
    text = as_sheet(HOSTILE[4], {HOSTILE[5]: HOSTILE[1]}, labels, cells, folder)
    path = tmp_path / "grid.html"
    path.write_text(text, "utf-8")
    return path


def test_nothing_of_a_grid_becomes_html(sheet):
    text = sheet.read_text("utf-8")
    assert found_in(text) == ([], 0)
    assert "default-src 'none'" in text and "&lt;svg onload=" in text


@pytest.mark.parametrize("kind", ["page", "sheet"])
def test_a_browser_runs_nothing_but_the_pages_own_script(kind, request, tmp_path):
    page = request.getfixturevalue(kind)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        reason = "no browser is installed (apt install chromium)"
        warnings.warn(f"hostile pages were NOT looked at in a browser; {reason}", stacklevel=1)
        pytest.skip(reason)
    text = page.read_text("utf-8")
    raw = "".join(f"{prompt}</script>" for prompt in HOSTILE)  # as if nothing had been escaped
    end = "</nav>" if kind == "page" else "<dl>"
    assert end in text
    page.write_text(text.replace(end, f"{end}{raw}"), "utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    words += [f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", page.as_uri()]
    done = subprocess.run([browser, *words], capture_output=True, text=True, timeout=120)
    title = "Contest root" if kind == "page" else HOSTILE[4]
    assert f"<title>{title}</title>" in done.stdout, done.stderr
    assert "<title>ran</title>" not in done.stdout
