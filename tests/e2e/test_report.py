"""The page of a contest run, in a real browser without a network."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jdreambooth.contest.closeness import Yardstick
from jdreambooth.contest.comparison import write_comparison
from jdreambooth.contest.findings import collect
from jdreambooth.contest.folders import read_record
from jdreambooth.contest.report import write_report
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import read_contest
from jstyle.score.total import METRICS, total
from tests.contests import STYLES, make_contest, save
from tests.e2e.browser import probe

PROBE = """
  const names = () => shown("section[data-style]").map(e => e.dataset.style);
  const prompts = () => shown("figure[data-prompt]").map(e => e.dataset.prompt);
  const images = all("figure img"), before = document.getElementById("before");
  seen.images = images.map(i => i.naturalWidth); seen.every = names(); seen.all = prompts();
  chips[1].click(); seen.one = names(); seen.pressed = whole.getAttribute("aria-pressed");
  chips[0].click(); seen.both = names();
  whole.click(); seen.again = names();
  search.value = "TREE"; search.dispatchEvent(new Event("input")); seen.found = prompts();
  search.value = ""; search.dispatchEvent(new Event("input"));
  order.value = "hist"; order.dispatchEvent(new Event("change"));
  seen.sorted = all("figure[data-prompt]").map(e => Number(e.dataset.hist)); seen.worst = prompts();
  order.value = ""; order.dispatchEvent(new Event("change")); seen.unsorted = prompts();
  seen.refined = shown("img.before").length;
  before.click(); seen.unrefined = shown("img.before").length;
  images[0].click(); seen.zoomed = zoom.open && zoom.firstElementChild.naturalWidth > 0;
  zoom.click(); seen.closed = !zoom.open;
"""


@pytest.fixture(scope="session")
def page(finished, tmp_path_factory):
    return write_report(finished.record.out.folder, tmp_path_factory.mktemp("page") / "page.html")


def test_the_page_works_in_a_browser(page, tmp_path):
    seen = probe(page, tmp_path, PROBE)
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
    first = len(STYLES["00"][1])
    for part in (seen["sorted"][:first], seen["sorted"][first:]):
        assert part == sorted(part) and len(set(part)) > 1
    assert sorted(seen["worst"]) == sorted(prompts) and seen["unsorted"] == prompts


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


# ---- how pictures stand to the references


def test_a_copy_of_a_reference_is_seen_also_when_it_is_mirrored_and_recoloured(tmp_path):
    root, result = make_contest(tmp_path)
    for seed in range(20, 25):
        save(root / "01" / "images" / f"more{seed}.png", seed, 64)
    (style,) = read_contest(root, ["01"]).styles
    yardstick = Yardstick(style.references)
    own = yardstick.close(result / "01" / "Dog.png")
    assert not own.copied and own.distance > 0.2
    wanted = hist_scores(read_contest(root, ["01"]), result)["01"]
    hists = [yardstick.close(result / "01" / f"{prompt}.png").hist for prompt in style.prompts]
    assert np.mean(hists) == pytest.approx(wanted)
    with Image.open(root / "01" / "images" / "more22.png") as picture:
        pixels = np.asarray(picture)[:, ::-1]
    Image.fromarray((pixels * 0.8 + 20).astype(np.uint8)).resize((48, 48)).save(tmp_path / "c.png")
    copy = yardstick.close(tmp_path / "c.png")
    assert copy.reference == "more22" and copy.copied and copy.distance < 0.05
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert yardstick.close(tmp_path / "c.png") is None


# ---- several candidates of a prompt


@pytest.fixture
def with_candidates(finished, tmp_path):
    """The run as if "Ice cream" had been painted three times, and the last one chosen."""
    folder = tmp_path / "out"
    shutil.copytree(finished.record.out.folder, folder)
    stages, name = folder / "styles" / "00", "Ice cream"
    (stages / "choose").mkdir()
    rows = []
    for stage in ("generate", "refine"):
        first = stages / stage / f"{name}.png"
        (stages / stage / name).mkdir()
        for number in range(3):
            shutil.copy(first, stages / stage / name / f"{number}.png")
        first.unlink()
    for number in range(3):
        row = {"file": f"{name}/{number}.png", "seed": 7 + 2 * number, "hist": 0.1 * number}
        rows.append({**row, "recognised": 0.5, "gain": 0.3, "chosen": number == 2})
    for prompt in ("Ice cream", "wallet_"):
        source = stages / "refine" / (f"{name}/2.png" if prompt == name else f"{prompt}.png")
        shutil.copy(source, stages / "choose" / f"{prompt}.png")
    told = {name: {"chosen": f"{name}/2.png", "why": "adds <most>", "candidates": rows}}
    (stages / "choose" / "choice.json").write_text(json.dumps({"judge": "HIST", "prompts": told}))
    about = json.loads((folder / "contest.json").read_text())
    about["values"]["styles"]["00"]["generate"] = {"candidates": 3}
    (folder / "contest.json").write_text(json.dumps(about))
    return read_record(folder)


def test_candidates_are_shown_on_hover_with_their_scores_and_the_reason(with_candidates, tmp_path):
    found = collect(with_candidates)[0]
    first, second = found.pictures
    folder = with_candidates.out.stage("00", "choose")
    assert first.path == folder / "Ice cream.png" and first.last
    assert first.before == with_candidates.out.stage("00", "generate") / "Ice cream" / "2.png"
    assert [one.seed for one in first.candidates] == [7, 9, 11] and second.candidates == ()
    assert second.before == with_candidates.out.stage("00", "generate") / "wallet_.png"
    page = write_report(with_candidates.out.folder, tmp_path / "page.html")
    script = """
      const box = () => shown(".candidates").length, figure = all("figure[tabindex]")[0];
      seen.hidden = box(); figure.focus(); seen.focused = box();
      figure.blur(); seen.blurred = box();
      document.getElementById("candidates").click(); seen.all = box();
      seen.strip = shown(".candidates img").map(i => i.naturalWidth);
      seen.chosen = all(".strip .chosen").map(e => e.textContent);
      seen.why = all(".candidates p").map(e => e.textContent);
    """
    seen = probe(page, tmp_path, script)
    assert (seen["hidden"], seen["focused"], seen["blurred"], seen["all"]) == (0, 1, 0, 1)
    assert len(seen["strip"]) == 3 and min(seen["strip"]) >= 32
    (chosen,) = seen["chosen"]
    assert chosen.startswith("seed 11") and "hist 0.200" in chosen
    assert seen["why"] == ["adds <most>"]


def test_a_choice_that_is_odd_or_leads_elsewhere_is_left_out(with_candidates, tmp_path):
    record = with_candidates.out.stage("00", "choose") / "choice.json"
    shutil.copy(next(with_candidates.out.stage("00", "refine").glob("*.png")), tmp_path / "x.png")
    inside = "../../../../x.png"
    assert (with_candidates.out.stage("00", "refine") / inside).is_file()
    rows = [{"file": inside}, {"file": "Ice cream/9.png"}, 3, {}, {"file": "Ice cream/1.png"}]
    for text, left in (
        (json.dumps({"prompts": {"Ice cream": {"candidates": rows}}}), 1),
        (json.dumps({"prompts": {"Ice cream": []}}), 0),
        (json.dumps({"prompts": 3}), 0),
        ("{", 0),
    ):
        record.write_text(text)
        assert len(collect(with_candidates)[0].pictures[0].candidates) == left


# ---- the plan, and what pays


def test_the_plan_of_a_style_is_told_with_its_reason(page, finished):
    text = page.read_text("utf-8")
    plans = re.findall(r'<table class="plan">(.*?)</table>', text)
    assert len(plans) == 2 and "<td>refine</td><td>left out</td>" in plans[1]
    cells = dict(re.findall(r"<tr><td>(\w+)</td><td>(.*?)</td>", plans[0]))
    assert "steps 3" in cells["train"] and "rank 2" in cells["train"]
    assert "class_prompt a picture" in cells["train"] and "weight_decay" not in cells["train"]
    assert "style_image moon" in cells["refine"] and "gamma 0.75" in cells["refine"]
    used = json.loads((finished.record.out.stage("00", "pick") / "stage.json").read_text())
    why = re.search(r"<td>pick</td><td>.*?</td><td>(.*?)</td>", plans[0])[1]
    assert why.startswith(f"{used['facts']['step']} steps: ")


SCORES = {"dino": 0.2, "hist": 0.5, "lpips": 0.6, "fid": 2.0, "clip_r": 0.8, "clip_iqa": 0.7}


def scores_file(path, **more):
    values = {**SCORES, **more}
    values |= {"total": total(values), "styles": {"00": {"hist": 0.4}, "01": {"hist": 0.6}}}
    path.write_text(json.dumps(values))
    return path


def test_what_pays_is_told_by_the_formula(finished, tmp_path):
    path = scores_file(tmp_path / "s.json")
    text = write_report(finished.record.out.folder, tmp_path / "p.html", path, 16).read_text()
    table = re.search(r'<table class="worth">(.*?)</table>', text)[1]
    rows = {row[0]: row for row in re.findall(r"<tr><td>(.*?)</td>" + "<td>(.*?)</td>" * 3, table)}
    gain = total({**SCORES, "hist": 0.55}) - total(SCORES)
    assert rows["HIST"][1:] == ("0.5000", "+0.05", f"{gain:+.4f}") and len(rows) == 6
    assert float(rows["LPIPS"][3]) > 0 and float(rows["FID"][3]) > 0


# ---- several runs


@pytest.fixture
def two_runs(finished, tmp_path):
    """The run, and one with other options, other pictures and one picture missing."""
    other = tmp_path / "<b>other"
    shutil.copytree(finished.record.out.folder, other)
    for i, path in enumerate(sorted((other / "styles" / "01" / "generate").glob("*.png"))):
        save(path, 50 + i)
    (other / "styles" / "00" / "refine" / "wallet_.png").unlink()
    (other / "styles" / "00" / "generate" / "wallet_.png").unlink()
    about = json.loads((other / "contest.json").read_text())
    about["values"]["defaults"]["train"]["rank"] = 4
    about["values"]["styles"]["00"]["refine"]["gamma"] = 0.5
    (other / "contest.json").write_text(json.dumps(about))
    return [finished.record.out.folder, other]


def test_two_runs_are_compared_side_by_side(two_runs, tmp_path):
    after = {"hist": 0.6, "fid": 3.0}
    scores = [scores_file(tmp_path / "a.json"), scores_file(tmp_path / "b.json", **after)]
    page = write_comparison(two_runs, None, scores, size_px=32)
    assert page == two_runs[1] / "comparison.html"
    text = page.read_text("utf-8")
    assert "&lt;b&gt;other" in text and "<b>other" not in text
    wanted = {"train.rank: 2 -&gt; 4": "all", "refine.gamma: 0.75 -&gt; 0.5": "00"}
    rows = re.search(r'<table class="differences">(.*?)</table>', text)[1]
    assert dict(re.findall(r"<tr><td>A to B</td><td>(.*?)</td><td>(.*?)</td>", rows)) == wanted
    changes = dict(re.findall(r">([A-Z-]+)</text><rect.*?<text[^>]*>([-+.\d]+)</text>", text))
    assert set(changes) == {"A", "B", *(m.upper().replace("_", "-") for m in METRICS)}
    start, end = total(SCORES), total({**SCORES, **after})
    assert (changes["A"], changes["B"]) == (f"{start:.4f}", f"{end:.4f}")
    parts = sum(float(v) for name, v in changes.items() if len(name) > 1)
    assert parts == pytest.approx(end - start, abs=5e-4)
    assert float(changes["HIST"]) > 0 > float(changes["FID"]) and float(changes["DINO"]) == 0


def test_a_comparison_can_be_filtered_searched_and_sorted(two_runs, tmp_path):
    page = write_comparison(two_runs, tmp_path / "page.html", size_px=32)
    script = """
      const rows = () => shown(".row").map(e => e.dataset.prompt);
      seen.all = rows(); seen.cells = shown(".row figure").length;
      chips[0].click(); seen.one = rows(); whole.click();
      search.value = "dog"; search.dispatchEvent(new Event("input")); seen.found = rows();
      search.value = ""; search.dispatchEvent(new Event("input"));
      order.value = "change"; order.dispatchEvent(new Event("change"));
      seen.changes = all("section[data-style='01'] .row").map(e => Number(e.dataset.change));
      seen.missing = shown(".row figure.missing").map(e => e.textContent);
    """
    seen = probe(page, tmp_path, script)
    prompts = [prompt for _, (_, prompts) in STYLES.items() for prompt in prompts]
    assert seen["all"] == prompts and seen["cells"] == 2 * len(prompts)
    assert seen["one"] == list(STYLES["00"][1]) and seen["found"] == ["Dog"]
    assert seen["changes"] == sorted(seen["changes"]) and len(set(seen["changes"])) == 3
    assert seen["missing"] == ["Bnot made yet"]
    assert "with all six metrics of every run" in page.read_text("utf-8")


def test_runs_that_cannot_be_compared_are_refused(two_runs, tmp_path):
    one = scores_file(tmp_path / "a.json")
    with pytest.raises(ValueError, match="scores: 1 files for 2 runs; one for each"):
        write_comparison(two_runs, tmp_path / "p.html", [one])
    with pytest.raises(ValueError, match="from 2 to 8 runs can be compared, got 9"):
        write_comparison([two_runs[0]] * 9, tmp_path / "p.html")
    same = write_comparison([two_runs[0]] * 2, tmp_path / "p.html", size_px=16).read_text("utf-8")
    assert "The configurations are the same." in same
