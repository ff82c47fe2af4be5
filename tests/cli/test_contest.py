"""`jdreambooth contest` where something is wrong, and what it says about runs and submissions."""

from __future__ import annotations

import json
import logging
import signal

import numpy as np
import pytest
from PIL import Image

from jdreambooth.cli import PROGRAM
from jdreambooth.contest.mini import make_mini
from jstyle.score.layout import read_contest, result_path
from jstyle.sd import image


@pytest.fixture
def contest(capsys, monkeypatch, tmp_path):
    """contest("check", ...) -> (exit code, stdout, lines of stderr), in a folder with a small
    contest "small" of two styles."""
    monkeypatch.chdir(tmp_path)
    make_mini("small", styles=2, references=2, prompts=2, size_px=16)
    handler = signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(name) for name in ("jstyle", "jdreambooth")]
    levels = [logger.level for logger in loggers]

    def run(*words):
        capsys.readouterr()
        code = PROGRAM.main(["contest", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    yield run
    signal.signal(signal.SIGTERM, handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_the_commands_are_listed_and_a_wrong_one_gets_the_nearest_named(contest, capsys):
    assert PROGRAM.main(["--help"]) == 0
    assert "contest      every style of a contest" in capsys.readouterr().out
    code, out, _ = contest("--help")
    assert code == 0 and all(f"\n  {name} " in out for name in ("run", "tune", "mini", "check"))
    code, _, lines = contest("pak")
    assert code == 2 and "no command 'pak'; did you mean pack?" in lines[0]
    code, _, lines = contest("check", "result")
    assert code == 2 and len(lines) == 1 and lines[0].startswith("jdreambooth contest check: ")


BAD = [
    (("nowhere",), "nowhere: no such folder"),
    (("small", "--config", "none.yaml"), "none.yaml: no such file"),
    (("small", "--config", "bad.yaml"), "bad.yaml: defaults: train: no option 'stepz'; did you"),
    (("small", "--config", "style.yaml"), "style.yaml: no style '5' (there are 00, 01)"),
    (("small", "--config", "image.yaml"), "style_image must be one of"),
    (("small", "--styles", "00,07"), "small/07: no such style; there are 00, 01"),
    (("small", "--engine", "dask"), "engine must be local or ray, got 'dask'"),
    (("small", "--jobs", "0"), "jobs must be an integer from 1 to 1024, got 0"),
    (("small", "--device", "tpu"), "device must be one of auto, cpu, cuda, got 'tpu'"),
    (("small", "--model", "no such"), "no such: no such model"),
]


@pytest.mark.parametrize("words, told", BAD)
def test_what_is_wrong_is_said_before_anything_is_written(contest, tmp_path, words, told):
    (tmp_path / "bad.yaml").write_text("defaults: {train: {stepz: 3}}")
    (tmp_path / "style.yaml").write_text("styles: {5: {pick: yes}}")
    (tmp_path / "image.yaml").write_text("defaults: {refine: {style_image: nobody}}")
    code, _, lines = contest("run", *words, "--out", "out")
    assert code == 2 and len(lines) == 1 and told in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_every_problem_of_a_contest_is_named_with_its_path(contest, tmp_path):
    for path in (tmp_path / "small/00/images").iterdir():
        path.unlink()
    (tmp_path / "small/01/prompt.json").write_text('{"0": "Cup", "1": "Cup"}')
    code, _, (line,) = contest("run", "small", "--out", "out", "--dry-run")
    assert code == 2 and "small/00/images: no images" in line
    assert "small/01/prompt.json: prompt 'Cup' occurs 2 times" in line
    (tmp_path / "small/01/prompt.json").write_text("{")
    assert "small/01/prompt.json: not JSON" in contest("check", "x", "--root", "small")[2][0]


def test_a_dry_run_tells_what_there_is_to_do_and_writes_nothing(contest, tmp_path):
    code, out, lines = contest("run", "small", "--out", "out", "--dry-run", "--styles", "01")
    assert code == 0 and not lines and not (tmp_path / "out").exists()
    assert "01  train     500 steps          missing" in out and "no estimate" in out
    assert "01  generate  2 pictures         after train" in out and "00  train" not in out


def test_a_search_tells_what_it_would_try_and_refuses_what_cannot_be(contest, tmp_path):
    words = ("tune", "small", "--out", "out", "--dry-run", "--prompts", "2")
    code, out, lines = contest(*words, "--budget", "7", "--styles", "01")
    assert code == 0 and not lines and not (tmp_path / "out").exists()
    assert out.startswith("01: 7 trials\n  trials paint ") and "method: none, styleid" in out
    (tmp_path / "words.yaml").write_text("Nobody: [x]\n")
    (tmp_path / "bad.yaml").write_text("defaults: {train: {stepz: 3}}")
    for more, told in (
        (("--budget", "soon"), "budget must be trials per style (40), time (90m, 2h), or the work"),
        (("--by", "eye"), "by must be one of score, full, hist, recognised, got 'eye'"),
        (("--by", "full"), "by full: dino "),
        (("--draws", "0"), "draws must be an integer from 1 to"),
        (("--words", "words.yaml"), "words: no prompt 'Nobody'"),
        (("--config", "bad.yaml"), "no option 'stepz'; did you mean steps?"),
        (("--engine", "dask"), "engine must be local or ray, got 'dask'"),
        (("--candidates", "0"), "candidates must be an integer from 1 to"),
    ):
        code, _, lines = contest(*words, *more)
        assert code == 2 and len(lines) == 1 and told in lines[0], (more, lines)
    assert not (tmp_path / "out").exists()


def test_a_style_that_fails_is_named_and_the_others_are_finished(contest, tmp_path, model):
    (tmp_path / "c.yaml").write_text(
        f"model: {model}\nsize_px: 32\n"
        "defaults: {train: no, generate: {init: average, steps: 1, guidance: 1}}\n"
    )
    broken = next((tmp_path / "small/00/images").iterdir())
    broken.write_bytes(broken.read_bytes()[:200])
    words = ("run", "small", "--out", "out", "--config", "c.yaml")
    code, out, lines = contest(*words)
    assert code == 1 and lines[-1] == "jdreambooth contest run: error: 1 style failed: 00"
    assert f"00: failed: small/00/images/{broken.name}: is truncated" in out
    assert len(list((tmp_path / "out/result/01").iterdir())) == 2
    code, out, _ = contest("status", "out")
    assert code == 0 and "style  generate\n00     0%\n01     done\n" in out
    assert "about " in out  # style 01 was measured
    rows = json.loads(contest("status", "out", "--json")[1])["rows"]
    assert [row["state"] for row in rows] == ["interrupted", "done"]
    broken.write_bytes(next((tmp_path / "small/01/images").iterdir()).read_bytes())
    code, out, _ = contest(*words, "-q")
    assert code == 0 and out == ""
    assert contest("check", "out/result", "--root", "small")[0] == 0


def test_the_status_of_another_folder_is_an_error(contest, tmp_path):
    code, _, lines = contest("status", "small")
    assert code == 2 and lines[0].endswith(
        "small/contest.json: no such file, so small is not of a contest run"
    )
    (tmp_path / "small/contest.json").write_text("{}")
    code, _, lines = contest("status", "small")
    assert code == 2 and "small/contest.json: cannot be read" in lines[0]


def test_check_and_pack_name_every_problem_and_exit_with_1(contest, tmp_path):
    result = tmp_path / "result"
    for style in read_contest("small").styles:
        for prompt in style.prompts:
            path = result_path(result, style.name, prompt)
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save_png(path, np.zeros((16, 16, 3), np.uint8))
    code, out, _ = contest("check", "result", "--root", "small")
    assert code == 0 and out == "result: 4 pictures of 2 styles, all right\n"
    assert contest("pack", "result", "--root", "small", "--out", "a.zip")[0] == 0
    first, second = sorted((result / "00").iterdir())
    first.unlink()
    Image.new("L", (16, 16)).save(second)
    (result / "01/more.png").write_bytes(b"")
    for words in (("check",), ("pack", "--out", "b.zip")):
        code, out, _ = contest(words[0], "result", "--root", "small", *words[1:])
        lines = out.splitlines()
        assert code == 1 and len(lines) == 4 and lines[-1].startswith("3 problems")
        named = (f"00/{first.name}: missing", f"00/{second.name}: must be RGB, is L", "01/more.png")
        assert all(any(name in line for line in lines) for name in named)
    assert contest("check", "result", "--root", "small", "--styles", "01")[0] == 1
    (result / "01/more.png").unlink()
    assert contest("check", "result", "--root", "small", "--styles", "01")[0] == 0
    assert not (tmp_path / "b.zip").exists()
