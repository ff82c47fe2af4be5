"""`jstyle stylize` on folders: every image is inverted once, results share batches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jstyle import StyleConfig
from jstyle.commands.stylize import Request, stylize
from jstyle.sd import image
from jstyle.sd.unet import UNet2DConditionModel
from tests.pictures import picture
from tests.tiny import make_ours

STEPS = 2


class Bar:
    """A progress bar that remembers how far it came."""

    def __call__(self, total):
        self.total, self.done = total, 0
        return self

    def update(self, n=1):
        self.done += n

    def set_postfix_str(self, text, refresh):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_ours("sd2").save_pretrained(folder, "float32")
    return str(folder)


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """run(contents, styles, batch, out, **config) -> batch sizes of all UNet evaluations."""

    def folder(name, count):
        path = tmp_path / f"{name}{count}"
        path.mkdir(exist_ok=True)
        for i in range(count):
            pixels = image.to_uint8(picture(len(name) * 10 + i, 64, 64))[0]
            image.save_png(path / f"{name}{i}.png", pixels)
        return str(path)

    seen, told, bar, execute = [], [], Bar(), UNet2DConditionModel.execute

    def counted(self, z, *rest):
        seen.append(z.shape[0])
        return execute(self, z, *rest)

    monkeypatch.setattr(UNet2DConditionModel, "execute", counted)

    def start(contents, styles, batch, out="out", **config):
        seen.clear()
        cfg = StyleConfig(steps=STEPS, size_px=64, **config)
        inputs = folder("content", contents), folder("style", styles), str(tmp_path / out)
        how = {"model": model, "device": "cpu", "batch": batch}
        done = stylize(Request(*inputs, cfg, **how), bar, told.append)
        assert len(done.written) == contents * styles
        assert bar.done == bar.total == STEPS * (contents + styles + contents * styles)
        return list(seen)

    start.told, start.out = told, tmp_path / "out"
    return start


@pytest.mark.parametrize("contents, styles", [(3, 2), (2, 3), (1, 1)])
def test_n_contents_and_m_styles_take_n_plus_m_inversions_and_n_times_m_samplings(
    run, contents, styles
):
    evaluations = run(contents, styles, batch=1)
    assert evaluations == [1] * STEPS * (contents + styles + contents * styles)


def test_results_of_one_image_share_a_batch(run):
    evaluations = run(2, 3, batch=2, features="memory")  # the styles are walked, each with both
    assert sorted(evaluations) == [1] * STEPS * 5 + [2] * STEPS * 3
    evaluations = run(4, 1, batch=3, out="others", features="memory")
    assert sorted(evaluations) == [1] * STEPS * (5 + 1) + [3] * STEPS  # contents, with one style


def test_recomputing_adds_rows_and_no_evaluations(run):
    evaluations = run(2, 3, batch=2, features="recompute")
    assert (
        sorted(evaluations) == [1] * STEPS * 5 + [5] * STEPS * 3
    )  # two contents, a style, results


def test_where_features_are_kept_is_told_and_written_beside_the_pictures_not_inside(run):
    run(1, 2, batch=1, out="out")
    assert len(run.told) == 1 and "kept in memory" in run.told[0]
    run(1, 2, batch=1, out="filed", features="disk")
    run(1, 2, batch=2, out="again", features="recompute")
    for path in run.out.glob("*.png"):
        record = json.loads(path.with_suffix(".json").read_text())
        filed, again = (run.out.parent / name / path.name for name in ("filed", "again"))
        assert path.read_bytes() == filed.read_bytes()
        of_file = json.loads(filed.with_suffix(".json").read_text())
        assert (record["features"], of_file["features"]) == ("memory", "disk")
        assert record["key"] == of_file["key"]
        gap = np.asarray(Image.open(path), np.int64) - np.asarray(Image.open(again))
        assert np.abs(gap).max() <= 1 and np.mean(gap != 0) < 1e-3
    assert len(list(run.out.glob("*.png"))) == 2 and len(list(filed.parent.iterdir())) == 4


def test_a_batch_of_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch must be an integer from 1 to 1024, got 0"):
        Request("no.png", "no.png", str(tmp_path / "out"), StyleConfig(), batch=0)
