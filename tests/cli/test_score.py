"""`jstyle score` as a grader runs it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from jstyle.cli import main
from jstyle.score import weights
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import read_contest
from tests.cli.conftest import environment
from tests.contests import SIZE, make_contest, save


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A root and its result; features and weights stay in the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JSTYLE_WEIGHTS", raising=False)
    return make_contest(tmp_path)


@pytest.fixture
def score(place, capsys):
    """score("--hist-only", ...) -> (exit code, what was printed, the error)"""
    root, result = place

    def run(*words, folders=(result, root)):
        code = main(["score", *map(str, folders), *map(str, words)])
        out, err = capsys.readouterr()
        lines = [
            line for line in re.split(r"[\r\n]", err) if line.strip() and "image/s" not in line
        ]
        return code, out, "\n".join(lines)  # without the progress bar

    return run


def hist(place, styles=None, corrected=False):
    values = hist_scores(read_contest(place[0], styles), place[1], corrected).values()
    return f"hist         {sum(values) / len(values):.6f}\n"


def test_a_grader_gets_hist_at_once_and_the_report_as_json(place, jstyle, tmp_path):
    root, result = place
    done = jstyle("score", result, root, "--hist-only", "--json", tmp_path / "out" / "s.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == hist(place) and "error" not in done.stderr
    report = json.loads((tmp_path / "out" / "s.json").read_text())
    assert report["total"] is None and report["missing"] == [] and report["images"] == 5
    assert f"hist         {report['hist']:.6f}\n" == done.stdout
    assert {name: list(v) for name, v in report["styles"].items()} == {
        "00": ["hist"],
        "01": ["hist"],
    }


def test_hist_starts_neither_jittor_nor_any_network(place):
    root, result = place
    code = (
        "import sys; from jstyle.cli import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'jittor', 'torch', 'transformers'} & set(sys.modules)))"
    )
    words = ["score", str(result), str(root), "--hist-only", "--quiet"]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.stdout == "0 []\n", done.stderr


def test_missing_weights_are_told_and_no_total_is_invented(score, place, tmp_path):
    code, out, err = score("--weights", tmp_path / "w", "--json", tmp_path / "s.json")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0 and lines["total"] == "none" and float(lines["hist"]) < 1
    wanted = f"missing: {tmp_path / 'w' / 'RN50.pt'}: no such file (from https://github.com/"
    assert lines["clip_iqa"].startswith(wanted)
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["missing"] == ["dino", "lpips", "fid", "clip_r", "clip_iqa"]
    assert report["lpips"] is None and set(report["why"]) == set(report["missing"])


def test_where_is_one_table_of_files_and_says_what_is_there(score, tmp_path):
    folder = tmp_path / "w"
    (folder / "lpips").mkdir(parents=True)
    for name in ("RN50.pt", "squeezenet1_1-b8a52dc0.pth", "lpips/squeeze.pth"):
        (folder / name).write_bytes(b"not the published file")
    code, out, err = score("--where", "--weights", folder, folders=())
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("metric "))
    starts = [lines[head].index(name) for name in weights.HEADS]
    rows = {}
    for line in lines[head + 1 : lines.index("", head)]:
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        rows[cells[1]] = cells
    assert code == 0 and len(rows) == len(weights.REGISTRY) and str(folder) in out
    assert rows["RN50.pt"][0] == "clip_iqa" and rows["RN50.pt"][3:5] == ["-", "there"]
    assert rows["squeezenet1_1-b8a52dc0.pth"][3:5] == ["b8a52dc0...", "another file"]
    assert rows["clip-vit-large-patch14/"][2:5] == ["1711", "a2bf730a...", "missing"]
    assert rows["vgg19-dcbb9e9d.pth"][0] == "artfid cfsd"
    assert "dinov2-base: from https://huggingface.co/facebook/dinov2-base" in out
    assert "offline: download each file on another machine and copy it" in out
    assert "hist needs no file" in lines
    words = tmp_path / "list.txt"
    words.write_text("cat")
    assert f"clip_r words: {words}  [there]" in score("--where", "--words", words, folders=())[1]


def test_a_file_with_the_published_hash_is_right(tmp_path):
    data = b"as published"
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "a.pth").write_bytes(data)
    for known, state in ((digest, "right"), (digest[:8], "right"), ("0" * 8, "another file")):
        one = weights.Weights("a", "a.pth", "https://example.invalid", "MIT", 1, known)
        assert one.state(tmp_path) == state


def test_styles_quirks_and_the_cache_can_be_chosen(score, place, tmp_path):
    kept = tmp_path / "home" / "jstyle" / "features"
    assert score("--metrics", "hist", "--cache", "none")[1] == hist(place)
    assert not kept.exists()
    assert score("--hist-only", "--styles", "01")[1] == hist(place, ["01"]) != hist(place)
    assert len(list(kept.rglob("*.npy"))) == 5
    asked = ("--hist-only", "--corrected", "--cache", tmp_path / "cache")
    assert score(*asked)[1] == hist(place, corrected=True) != hist(place)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 9


def test_protocols_have_metrics_of_their_own(score, place, tmp_path):
    code, out, err = score("--protocol", "dreambooth")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [
        "dino_vits16",
        "clip_i",
        "clip_t",
    ]
    photos, paintings, results = (tmp_path / n for n in ("photos", "paintings", "results"))
    for folder, names in ((photos, "ab"), (paintings, "xy"), (results, ())):
        folder.mkdir()
        for name in names:
            save(folder / f"{name}.png", ord(name))
    words = ("--protocol", "artfid", "--content", photos, "--style", paintings)
    code, out, err = score(*words, folders=(results,))
    assert code == 2 and err.count("_stylized_") == 4 and f"{results / 'a_stylized_x.png'}" in err
    for content in "ab":
        for style in "xy":
            save(results / f"{content}_stylized_{style}.png", 5)
    code, out, err = score(*words, "--json", tmp_path / "s.json", folders=(results,))
    assert code == 0 and "art_inception.pth: no such file" in out
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["missing"] == ["fid", "lpips", "cfsd"] and report["images"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "hits"], "no metric 'hits' in contest; there are dino, hist, lpips"),
        (["--metrics", "fid", "--protocol", "dreambooth"], "there are dino_vits16, clip_i, clip_t"),
        (["--protocol", "paper"], "protocol must be one of contest, dreambooth, artfid"),
        (["--hist-only", "--metrics", "fid"], "--hist-only goes with neither"),
        (["--device", "gpu"], "device must be one of auto, cpu, cuda, got 'gpu'"),
        (["--styles", "00,7"], "7: no such style; there are 00, 01"),
        (["--content", "x"], "--content and --style go with --protocol artfid"),
        (["--protocol", "artfid"], "one folder is needed"),
        (["--words", "list.txt", "--metrics", "hist", "--batch", "2"], "--batch"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(score, words, message):
    code, out, err = score(*words)
    assert code == 2 and message in err and "\n" not in err and not out


def test_artfid_takes_only_what_it_uses(score, tmp_path):
    save(tmp_path / "a.png", 1)
    words = ("--protocol", "artfid", "--content", tmp_path, "--style", tmp_path)
    for more in (("--metrics", "fid"), ("--hist-only",), ("--corrected",), ("--styles", "00")):
        code, out, err = score(*words, *more, folders=(tmp_path,))
        assert code == 2 and f"{more[0]} does not go with --protocol artfid" in err
    assert score("--protocol", "artfid", folders=(tmp_path,))[2].count("--content and --style") == 1


def test_a_root_is_needed(score, place):
    assert "two folders are needed" in score(folders=(place[1],))[2]


@pytest.mark.parametrize(
    ("spoil", "where", "message"),
    [
        (lambda path: path.unlink(), "root/00/prompt.json", "no such file"),
        (lambda path: path.write_text("{'0': 1}"), "root/00/prompt.json", "not JSON"),
        (
            lambda path: path.write_text('{"0": "Cat", "1": "Cat"}'),
            "root/01/prompt.json",
            "prompt 'Cat' occurs 2 times",
        ),
        (
            lambda path: [image.unlink() for image in path.iterdir()],
            "root/00/images",
            "no images in this folder",
        ),
        (lambda path: path.write_bytes(b"x"), "root/01/images/cat_.png", "is not an image"),
        (lambda path: path.unlink(), "result/01/Dog.png", "missing"),
        (lambda path: path.write_bytes(b"x"), "result/00/Ice cream.png", "is not an image"),
        (lambda path: save(path, 1, 64), "result/00/wallet_.png", "is 64 x 64, most others are 48"),
        (
            lambda path: Image.new("L", (SIZE, SIZE)).save(path),
            "result/01/Tree house.png",
            "must be RGB, is L",
        ),
        (lambda path: save(path, 1), "result/01/Sun.png", "not a prompt of style 01"),
    ],
)
def test_bad_input_is_named_with_its_path(score, tmp_path, spoil, where, message):
    spoil(tmp_path / where)
    code, out, err = score("--hist-only")
    assert code == 2 and not out and "\n" not in err
    assert f"{tmp_path / where}: " in err and message in err
