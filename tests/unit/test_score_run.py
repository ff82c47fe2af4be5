"""Which metrics are computed, what a report says, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.score import run
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import ContestError, read_contest
from jstyle.score.scorers import SCORERS
from jstyle.score.total import METRICS, PROTOCOLS
from jstyle.score.weights import REGISTRY, MissingWeights, default_folder, locate, where
from tests.contests import make_contest


@pytest.fixture
def contest(tmp_path):
    return read_contest(make_contest(tmp_path)[0])


def settings(tmp_path, **more):
    return run.Settings(weights=tmp_path / "weights", cache=tmp_path / "cache", **more)


class Bar:
    """What a tqdm bar counts."""

    def __init__(self, total):
        self.total, self.count = total, 0
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, count):
        self.count += count


def test_without_weights_hist_is_there_and_the_rest_is_missing(contest, tmp_path):
    found = run.score(contest, tmp_path / "result", settings(tmp_path), Bar)
    wanted = hist_scores(contest, tmp_path / "result")
    assert found["hist"] == pytest.approx(np.mean(list(wanted.values())))
    assert found["styles"] == {name: {"hist": pytest.approx(v)} for name, v in wanted.items()}
    assert found["missing"] == [name for name in METRICS if name != "hist"]
    assert found["total"] is None and found["lpips"] is None and found["images"] == 5
    assert "lpips/squeeze.pth" in found["why"]["lpips"]
    assert Bar.last.total == Bar.last.count == 5 + 4


def test_a_second_run_reads_the_cache_and_says_the_same(contest, tmp_path):
    asked = settings(tmp_path, metrics=("hist",))
    first = run.score(contest, tmp_path / "result", asked)
    times = {p: p.stat().st_mtime_ns for p in asked.cache.rglob("*.npy")}
    assert len(times) == 9 and first == run.score(contest, tmp_path / "result", asked, Bar)
    assert times == {p: p.stat().st_mtime_ns for p in asked.cache.rglob("*.npy")}
    assert Bar.last.count == 9
    corrected = settings(tmp_path, metrics=("hist",), corrected=True)
    other = run.score(contest, tmp_path / "result", corrected)
    proper = hist_scores(contest, tmp_path / "result", corrected=True)
    assert other["hist"] == pytest.approx(np.mean(list(proper.values()))) and other["corrected"]
    assert abs(other["hist"] - first["hist"]) > 1e-3


def test_a_faulty_submission_is_refused_with_all_its_problems(contest, tmp_path):
    (tmp_path / "result" / "00" / "wallet_.png").unlink()
    (tmp_path / "result" / "01" / "Cat.png").write_bytes(b"")
    with pytest.raises(ContestError) as caught:
        run.score(contest, tmp_path / "result", settings(tmp_path))
    assert "2 problems" in str(caught.value)
    assert "wallet_.png: missing" in str(caught.value) and "Cat.png: is empty" in str(caught.value)


def test_a_reference_that_cannot_be_read_is_named(contest, tmp_path):
    contest.styles[0].references[1].write_bytes(b"no picture")
    with pytest.raises(ContestError, match="origami_crane.png: is not an image"):
        run.score(contest, tmp_path / "result", settings(tmp_path))


def test_metrics_are_chosen_by_name_and_protocol():
    assert run.choose(None) == METRICS
    assert run.choose("fid, hist,fid") == ("fid", "hist")
    assert run.choose(None, "dreambooth") == PROTOCOLS["dreambooth"]
    with pytest.raises(run.MetricError, match="no metric 'clip' in contest; there are dino, hist"):
        run.choose("hist,clip")
    with pytest.raises(
        run.MetricError, match="protocol must be one of contest, dreambooth, artfid"
    ):
        run.choose(None, "contests")


def test_every_metric_is_made_by_a_class_that_needs_what_is_said():
    from importlib import import_module

    assert set(SCORERS) == {name for names in PROTOCOLS.values() for name in names}
    for name, scorer in SCORERS.items():
        module, home = scorer.home.split(":")
        made = getattr(import_module(module, "jstyle.score"), home)
        assert made.needs == scorer.needs and made.name == name
        assert set(scorer.needs) <= set(REGISTRY)


def test_the_parts_of_artfid_need_what_is_said():
    from jstyle.commands.score import ARTFID_NEEDS
    from jstyle.score.metrics.artfid import PARTS

    assert {name: part.needs for name, part in PARTS.items()} == ARTFID_NEEDS
    assert {name for names in ARTFID_NEEDS.values() for name in names} <= set(REGISTRY)


def test_weights_are_found_or_their_source_is_told(tmp_path, monkeypatch):
    with pytest.raises(MissingWeights) as caught:
        locate("squeezenet1_1", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'squeezenet1_1-b8a52dc0.pth'}: no such file "
        "(from https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth)"
    )
    (tmp_path / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"")
    assert locate("squeezenet1_1", tmp_path) == tmp_path / "squeezenet1_1-b8a52dc0.pth"
    folder = tmp_path / "dinov2-base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    lost = "without preprocessor_config.json, model.safetensors or .* or pytorch_model.bin"
    with pytest.raises(MissingWeights, match=lost):
        locate("dinov2-base", tmp_path)
    for name in ("preprocessor_config.json", "pytorch_model.bin"):
        (folder / name).write_text("")
    assert locate("dinov2-base", tmp_path) == folder
    monkeypatch.setenv("JSTYLE_WEIGHTS", str(tmp_path))
    assert default_folder() == tmp_path
    told = where({"dino": ("dinov2-base",), "hist": (), "fid": ("inception",)}, tmp_path)
    states = {line.split()[1]: line.split()[4] for line in told.splitlines() if "Apache" in line}
    name = "weights-inception-2015-12-05-6726825d.pth"
    assert states == {"dinov2-base/": "there", name: "missing"}
    assert "hist needs no file" in told and "torch-fidelity/releases" in told
