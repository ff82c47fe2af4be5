from __future__ import annotations

import json

from PIL import Image

from jdreambooth.cli import main


def test_draw_writes_pictures_with_captions(tmp_path, capsys):
    words = ["draw", "--out", str(tmp_path), "--object", "star", "--style", "mosaic"]
    assert main([*words, "--count", "2", "--seed", "7", "--size-px", "32"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").open()]
    assert [line["seed"] for line in lines] == [7, 8]
    for line in lines:
        assert line["caption"] == "a star in mosaic style"
        assert Image.open(tmp_path / line["file"]).size == (32, 32)
    assert "wrote 2 pictures" in capsys.readouterr().out


def test_draw_refuses_in_one_line_before_writing(tmp_path, capsys):
    out = tmp_path / "new"
    assert main(["draw", "--out", str(out), "--object", "starr"]) == 2
    assert main(["draw", "--out", str(out), "--object", "star", "--count", "0"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert (
        len(errors) == 2 and "starr" in errors[0] and "count must be an integer from 1" in errors[1]
    )
    assert not out.exists()
    (tmp_path / "file").touch()
    assert main(["draw", "--out", str(tmp_path / "file"), "--object", "star"]) == 2


def test_several_objects_take_turns(tmp_path):
    words = ["draw", "--out", str(tmp_path), "--object", "star, ice cream", "--size-px", "32"]
    assert main([*words, "--count", "3"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").open()]
    assert [line["caption"] for line in lines] == ["a star", "an ice cream", "a star"]
    assert (tmp_path / "ice_cream_0001.png").is_file()
