"""metrics.jsonl and the plot of the losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jdreambooth.events import Events
from jdreambooth.plots import plot_losses, read_metrics, smooth
from jstyle.sd.files import WriteError
from tests.mounts import small_disk


def write_metrics(path, count, unfinished=""):
    rng = np.random.default_rng(0)
    lines = [{"step": i + 1, "loss": float(x), "lr": 1e-4} for i, x in enumerate(rng.random(count))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + unfinished)
    return lines


def test_metrics_are_read_up_to_an_unfinished_line(tmp_path):
    lines = write_metrics(tmp_path / "m.jsonl", 7, '{"step": 8, "lo')
    found = read_metrics(tmp_path / "m.jsonl")
    assert list(found["step"]) == list(range(1, 8))
    np.testing.assert_array_equal(found["loss"], [line["loss"] for line in lines])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="empty.jsonl: no steps"):
        read_metrics(tmp_path / "empty.jsonl")


def test_smoothing_is_a_trailing_mean_that_leaves_out_nan():
    values = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    np.testing.assert_allclose(smooth(values, 2), [1, 2, 3, 5, 6])
    np.testing.assert_allclose(smooth(values, 1)[[0, 1, 3, 4]], [1, 3, 5, 7])
    assert np.isnan(smooth(values, 1)[2]) and smooth(values, 99)[-1] == 4


def test_the_plot_is_a_picture_of_the_losses(tmp_path):
    write_metrics(tmp_path / "m.jsonl", 40)
    plot_losses(tmp_path / "m.jsonl", tmp_path / "loss.png", [20, 40])
    plain = np.asarray(Image.open(tmp_path / "loss.png").convert("RGB"))
    assert plain.shape[0] > 300 and len(np.unique(plain.reshape(-1, 3), axis=0)) > 20
    plot_losses(tmp_path / "m.jsonl", tmp_path / "other.png")
    assert not np.array_equal(plain, np.asarray(Image.open(tmp_path / "other.png").convert("RGB")))


def test_a_full_disk_ends_the_events_and_does_not_hang(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        (disk / "other").write_bytes(b"1" * 40_000)
        log = Events(disk / "tensorboard")
        with pytest.raises(WriteError, match="disk/tensorboard: disk full"):
            for step in range(10_000):
                log.add(step, {"loss": 0.5, "lr": 0.1})
        log.close()
