"""--dtype on the commands: what the record and the key hold, what is painted, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jdreambooth.cli import main as jdreambooth
from jdreambooth.contest.config import ConfigError, make_config
from jdreambooth.contest.run import make_record, make_tasks
from jstyle.cli import main as jstyle
from jstyle.commands.inputs import find_model
from tests.contests import make_contest

SMALL = ("--height", "64", "--width", "64", "--steps", "2", "--device", "cpu", "--quiet")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path), np.int16)


def record(path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def generated(folder, name, *words) -> np.ndarray:
    path = folder / f"{name}.png"
    assert jstyle(["generate", "--prompt", "a star", "--out", str(path), *SMALL, *words]) == 0
    return pixels(path)


def test_generate(tmp_path):
    """The shipped files hold float16, so that number type moves nothing on the CPU."""
    usual, half, brain = (
        generated(tmp_path, name, *(("--dtype", name) if name != "usual" else ()))
        for name in ("usual", "float16", "bfloat16")
    )
    np.testing.assert_array_equal(half, usual)
    assert 0 < np.abs(brain - usual).max() <= 8
    assert "dtype" not in record(tmp_path / "usual.png")["model"]
    assert record(tmp_path / "bfloat16.png")["model"]["dtype"] == "bfloat16"


def test_stylize_makes_a_result_again_in_another_number_type(tmp_path, photos, capsys):
    words = ["stylize", "--content", str(photos / "hill.png"), "--style", str(photos / "lake.png")]
    words += [
        "--out",
        str(tmp_path / "x.png"),
        "--size-px",
        "32",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    told = []
    for more in ([], [], ["--dtype", "float32"], ["--dtype", "float16"], ["--dtype", "float16"]):
        assert jstyle([*words, *more]) == 0
        told.append("skipped" in capsys.readouterr().out)
    assert told == [False, True, True, False, True]
    assert record(tmp_path / "x.png")["model"]["dtype"] == "float16"


@pytest.mark.parametrize(
    "program, words",
    [
        (jstyle, ["generate", "--prompt", "x", "--out", "x.png"]),
        (jstyle, ["stylize", "--content", "x.png", "--style", "x.png", "--out", "o.png"]),
        (jstyle, ["reconstruct", "--image", "x.png", "--out", "o.png"]),
        (jstyle, ["score", "x", "x", "--protocol", "contest"]),
        (jdreambooth, ["contest", "run", "x", "--out", "o"]),
    ],
)
def test_another_name_is_one_line(program, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "red").save("x.png")
    assert program([*words, "--dtype", "half"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    wanted = "dtype must be auto, float32, float16 or bfloat16, got 'half'"
    assert len(told) == 1 and wanted in told[0]


def test_models_of_two_number_types_have_two_keys():
    keys = [find_model("tiny", dtype=name).key for name in ("float32", "float16", "bfloat16")]
    assert keys[0] != keys[1] != keys[2] and len(keys[0]) == 3
    assert find_model("tiny", dtype="auto", device="cpu").key == keys[0]
    assert find_model("tiny", dtype="auto", device="cuda").key == keys[1]


class TestContest:
    def tasks(self, tmp_path, **wide):
        root = make_contest(tmp_path)[0]
        config = make_config({**wide, "styles": {}}, "here", tmp_path)
        return make_tasks(make_record(root, tmp_path / "out", config), device="cpu")

    def test_stages_that_paint_depend_on_it_and_trainings_do_not(self, tmp_path):
        from jdreambooth.contest.order import stages_of

        stages = {
            name: {stage.name: stage for stage in stages_of(self.tasks(tmp_path / name, **wide)[0])}
            for name, wide in {"usual": {}, "half": {"dtype": "float16"}}.items()
        }
        assert "dtype" not in stages["half"]["train"].inputs()
        assert stages["half"]["train"].trains and not stages["half"]["generate"].trains
        assert stages["half"]["generate"].task.setup.dtype == "float16"
        assert stages["usual"]["generate"].task.setup.dtype == "float32"

    def test_the_worker_trains_in_float32_and_paints_in_half(self, tmp_path):
        from jdreambooth.contest.worker import Worker

        setup, worker = self.tasks(tmp_path, dtype="float16")[0].setup, Worker()
        kinds = [
            str(sd.unet.conv_in.weight.dtype)
            for sd in (worker.plain(setup, trains=True), worker.plain(setup), worker.plain(setup))
        ]
        assert kinds == ["float32", "float16", "float16"] and worker.loads == 2

    def test_a_wrong_name_is_refused_with_the_file(self, tmp_path):
        with pytest.raises(ConfigError, match="contest.yaml: dtype must be auto.*got 'half'"):
            make_config({"dtype": "half"}, "contest.yaml", tmp_path)
        with pytest.raises(ConfigError, match="it is the same for all styles"):
            make_config({"defaults": {"train": {"dtype": "float16"}}}, "here", tmp_path)
