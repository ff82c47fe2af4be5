"""The page of a contest run, in a real browser without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from html import unescape
from pathlib import Path

import pytest

from jdreambooth.contest.report import write_report
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import read_contest
from tests.contests import STYLES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """
<script>
addEventListener("load", async () => {
  const shown = selector => all(selector).filter(e => e.checkVisibility());
  const names = () => shown("section[data-style]").map(e => e.dataset.style);
  const prompts = () => shown("figure[data-prompt]").map(e => e.dataset.prompt);
  const images = all("figure img");
  await Promise.all(images.map(i => i.decode().catch(() => 0)));
  const seen = { images: images.map(i => i.naturalWidth), every: names(), all: prompts() };
  chips[1].click(); seen.one = names(); seen.pressed = whole.getAttribute("aria-pressed");
  chips[0].click(); seen.both = names();
  whole.click(); seen.again = names();
  search.value = "TREE"; search.dispatchEvent(new Event("input")); seen.found = prompts();
  search.value = ""; search.dispatchEvent(new Event("input"));
  seen.refined = shown("img.before").length;
  before.click(); seen.unrefined = shown("img.before").length;
  images[0].click(); seen.zoomed = zoom.open && zoom.firstElementChild.naturalWidth > 0;
  zoom.click(); seen.closed = !zoom.open;
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = JSON.stringify(seen);
  document.body.append(probe);
  console.error("the probe is through");
});
</script></body>
"""


@pytest.fixture
def browse(tmp_path):
    """browse(page) -> the page's DOM after its scripts, and the lines of its console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        reason = "no browser is installed (apt install chromium)"
        warnings.warn(f"the report was NOT looked at in a browser; {reason}", stacklevel=1)
        pytest.skip(reason)

    def look(page: Path) -> tuple[str, list[str]]:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'user'}"]
        options += ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]
        command = [browser, *options, page.as_uri()]
        env = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    return look


@pytest.fixture(scope="session")
def page(finished, tmp_path_factory):
    return write_report(finished.record.out.folder, tmp_path_factory.mktemp("page") / "page.html")


def test_the_page_works_in_a_browser(page, browse, tmp_path):
    probed = tmp_path / "probed.html"
    text = re.sub("script-src '[^']+'", "script-src 'unsafe-inline'", page.read_text("utf-8"))
    probed.write_text(text.replace("</body>", PROBE), "utf-8")
    dom, console = browse(probed)
    assert len(console) == 1 and "the probe is through" in console[0], console
    seen = json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))
    prompts = [prompt for _, (_, prompts) in STYLES.items() for prompt in prompts]
    references = [stem for _, (stems, _) in STYLES.items() for stem in stems]
    refined = len(STYLES["00"][1])
    assert len(seen["images"]) == len(references) + len(prompts) + refined
    assert all(width >= 32 for width in seen["images"])
    assert seen["every"] == seen["both"] == seen["again"] == ["00", "01"]
    assert seen["one"] == ["01"] and seen["pressed"] == "false"
    assert seen["all"] == prompts and seen["found"] == ["Tree house"]
    assert (seen["refined"], seen["unrefined"]) == (0, refined)
    assert seen["zoomed"] and seen["closed"]


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', text) and "@import" not in text
    assert "default-src 'none'" in text


def test_pictures_have_their_prompts_seeds_and_scores(page, finished):
    text, out = page.read_text("utf-8"), finished.record.out
    captions = re.findall(r"<figcaption>([^<]+)<small>seed (\d+) &middot; ([^<]+)</small>", text)
    wanted = [
        (prompt, str(7 + i), f"{prompt} in style_{name}")
        for name, (_, prompts) in STYLES.items()
        for i, prompt in enumerate(prompts)
    ]
    assert captions == wanted
    hist = hist_scores(read_contest(finished.record.root), out.result)
    for name, value in hist.items():
        cells = row(text, f'<a href="#style-{name}">{name}</a>')
        assert cells[-1] == f"{value:.4f}"
    assert row(text, "all")[-1] == f"{sum(hist.values()) / 2:.4f}"
    used = json.loads((out.stage("00", "pick") / "stage.json").read_text())["facts"]["step"]
    table = re.search(r'<table class="pick">.*?</table>', text)[0]
    assert re.findall(r'<tr class="chosen"><td>(\d+)', table) == [str(used)]
    assert re.findall(r"<tr[^>]*><td>(\d+)", table) == ["0", "2", "3"]
    assert text.count("<svg") == 2 and text.count(">the style of the refinement<") == 1


def row(text: str, first: str) -> list[str]:
    cells = re.search(rf"<tr><td>{re.escape(first)}</td>(.*?)</tr>", text)[1]
    return re.findall(r"<td>(.*?)</td>", cells)


def test_scores_of_a_file_are_shown_and_an_odd_file_is_named(finished, tmp_path):
    scores = {"total": 0.4648, "hist": 0.5, "dino": None, "missing": ["dino"]}
    scores["styles"] = {"00": {"hist": 0.25}, "01": {"hist": 0.75}}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(scores))
    folder = finished.record.out.folder
    page = write_report(folder, tmp_path / "page.html", path, size_px=16)
    text = page.read_text("utf-8")
    assert "total 0.4648; missing: dino" in text
    assert row(text, '<a href="#style-01">01</a>')[-2:] == ["-", "0.7500"]
    foreign = "is not what `jstyle score --json`"
    for wrong, why in (
        ("[]", "must hold an object, got a list"),
        ("{", "not JSON"),
        ('{"styles": []}', foreign),
        ('{"styles": {"00": {"hist": "much"}}}', foreign),
    ):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=f"scores.json: {why}"):
            write_report(folder, scores=path)


def test_an_unfinished_run_shows_what_there_is(finished, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(finished.record.out.folder, folder)
    (folder / "styles" / "00" / "refine" / "wallet_.png").unlink()
    (folder / "styles" / "01" / "generate" / "Dog.png").unlink()
    (folder / "styles" / "01" / "generate" / "Cat.png").write_bytes(b"no picture")
    shutil.rmtree(folder / "result")
    text = write_report(folder).read_text("utf-8")
    assert "2 styles, 4 of 5 pictures" in text
    assert text.count("not made yet") == 1 and text.count("Cat.png cannot be read") == 1
    assert 'alt="wallet_"' in text and 'alt="wallet_ before refinement"' not in text
    assert "<th>HIST</th>" not in text


def test_a_page_of_somebody_else_is_replaced_only_if_asked(finished, tmp_path):
    page, folder = tmp_path / "index.html", finished.record.out.folder
    page.write_text("<!doctype html>mine")
    with pytest.raises(ValueError, match="index.html: is there already .* --overwrite"):
        write_report(folder, page)
    write_report(folder, page, overwrite=True)
    first = page.read_bytes()
    write_report(folder, page)
    assert b"mine" not in first and page.read_bytes() == first


def test_names_cannot_leave_their_place_on_the_page(finished, tmp_path):
    folder, root = tmp_path / "out", tmp_path / "root"
    shutil.copytree(finished.record.out.folder, folder)
    shutil.copytree(finished.record.root, root)
    prompt = '"><script>alert(1)<!--'
    (root / "01" / "prompt.json").write_text(json.dumps({"0": prompt.replace("/", "")}))
    about = json.loads((folder / "contest.json").read_text())
    (folder / "contest.json").write_text(json.dumps({**about, "root": str(root)}))
    text = write_report(folder).read_text("utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_the_same_run_gives_the_same_page(finished, page, tmp_path):
    again = write_report(finished.record.out.folder, tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()
