"""All metrics together, on small networks with drawn weights in files as they are published.

Each network agrees with PyTorch by tests of its own; here the scores of a contest have to be what
the metrics' own functions give for its pictures, one at a time.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from jstyle.score import run
from jstyle.score.histogram import hist_scores
from jstyle.score.layout import read_contest, result_path
from jstyle.score.metrics import clip_iqa, clip_r, cosine, dino, dreambooth, fid, lpips
from jstyle.score.pictures import read_rgb
from jstyle.score.scorers import WORDS
from jstyle.score.total import total
from jstyle.score.weights import REGISTRY
from tests.contests import make_contest
from tests.parity import test_score_clip, test_score_clip_iqa, test_score_vit
from tests.parity.score_networks import draw_weights, save_processor
from tests.tiny import TOKENIZER

SMALLER = {"dinov2-base": "dinov2", "dino-vits16": "vit"}
CLIPS = ("clip-vit-large-patch14", "clip-vit-base-patch32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of weights, complete for two protocols."""
    import torch

    from tests.parity import torch_networks

    folder = tmp_path_factory.mktemp("weights")
    (folder / "lpips").mkdir()
    for name in SMALLER:
        save_vit(folder / name, SMALLER[name])
    for name in CLIPS:
        save_clip(folder / name)
    network = torch_networks.fill(torch_networks.Inception("fid"))
    torch.save(network.state_dict(), folder / REGISTRY["inception"].place)
    network = torch_networks.fill(torch_networks.ClipResNet(*test_score_clip_iqa.SIZES))
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state = network.state_dict() | {name: torch.tensor(n) for name, n in numbers.items()}
    torch.save(state, folder / REGISTRY["clip-rn50"].place)
    state = torch_networks.fill(torch_networks.squeezenet()).state_dict()
    state = {f"features.{name}": values for name, values in state.items()}
    torch.save(state, folder / REGISTRY["squeezenet1_1"].place)
    counts = enumerate(lpips.CHANNELS["squeeze"])
    state = {f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1) for i, count in counts}
    torch.save(state, folder / REGISTRY["lpips-squeeze"].place)
    return folder


def save_vit(folder, kind):
    import transformers

    if kind == "dinov2":
        shape = transformers.Dinov2Config(**test_score_vit.SHAPE, mlp_ratio=3)
        model = transformers.Dinov2Model(shape)
    else:
        shape = transformers.ViTConfig(**test_score_vit.SHAPE, intermediate_size=72)
        model = transformers.ViTModel(shape)
    draw_weights(model).save_pretrained(folder)
    save_processor(folder, "BitImageProcessor", {"shortest_edge": 32}, crop=28)


def save_clip(folder):
    import transformers

    towers = {"text_config": test_score_clip.TEXT, "vision_config": test_score_clip.VISION}
    model = transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=28))
    draw_weights(model).save_pretrained(folder)
    save_processor(folder, "CLIPImageProcessor", {"shortest_edge": 28}, crop=28)
    shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(contest, its result)"""
    root, result = make_contest(tmp_path_factory.mktemp("contest"))
    return read_contest(root), result


@pytest.fixture
def settings(folder, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("\n".join(test_score_clip.WORDS))
    return run.Settings(weights=folder, words=words, cache=tmp_path / "cache", device="cpu")


def each(metric, paths):
    return np.concatenate([metric.features(read_rgb(path)[None]) for path in paths])


def by_style(place, metric, score):
    """score(generated, references, style) of every style."""
    contest, result = place
    values = []
    for style in contest.styles:
        paths = [result_path(result, style.name, prompt) for prompt in style.prompts]
        values.append(score(each(metric, paths), each(metric, style.references), style))
    return values


def test_a_contests_values_are_those_of_its_pictures_one_by_one(
    place, settings, folder, monkeypatch
):
    found = run.score(*place, settings)
    assert found["missing"] == []
    assert found["total"] == pytest.approx(total(found))

    def cosines(ours, theirs, style):
        return cosine.mean_pairwise(ours, theirs)

    wanted = by_style(place, dino.Dino(folder / "dinov2-base"), cosines)
    assert found["dino"] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert [style["dino"] for style in found["styles"].values()] == pytest.approx(wanted, rel=1e-5)

    places = [folder / REGISTRY[name].place for name in lpips.Lpips.needs]
    wanted = by_style(place, lpips.Lpips(*places), lambda a, b, _: lpips.style_score(a, b))
    assert found["lpips"] == pytest.approx(np.mean(wanted), rel=1e-5)

    metric = clip_iqa.ClipIqa(folder / REGISTRY["clip-rn50"].place)
    wanted = by_style(place, metric, lambda a, b, _: metric.quality(a).mean())
    assert found["clip_iqa"] == pytest.approx(np.mean(wanted), rel=1e-5)

    recognises = clip_r.ClipRecall(folder / CLIPS[0], test_score_clip.WORDS)
    wanted = by_style(
        place,
        recognises,
        lambda a, b, style: recognises.hits(a, [p.lower() for p in style.prompts]),
    )
    assert found["clip_r"] == np.concatenate(wanted).mean()

    metric = fid.Fid(folder / REGISTRY["inception"].place)
    pairs = by_style(place, metric, lambda a, b, _: (a, b))
    ours, theirs = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    assert found["fid"] == pytest.approx(fid.frechet_distance(ours, theirs), rel=1e-4)
    assert found["hist"] == pytest.approx(np.mean(list(hist_scores(*place).values())))

    def fails(*_):
        raise AssertionError("computed again")

    for kind in (dino.Dino, lpips.Lpips, clip_iqa.ClipIqa, clip_r.ClipRecall, fid.Fid):
        monkeypatch.setattr(kind, "features", fails)
    assert run.score(*place, settings) == found


def test_the_dreambooth_papers_measures(place, settings, folder):
    settings = run.Settings(**{**vars(settings), "metrics": run.choose(None, "dreambooth")})
    found = run.score(*place, settings)
    metric = dreambooth.DinoSubject(folder / "dino-vits16")
    wanted = by_style(place, metric, lambda a, b, _: cosine.mean_pairwise(a, b))
    assert found["dino_vits16"] == pytest.approx(np.mean(wanted), rel=1e-5)
    metric = dreambooth.ClipText(folder / CLIPS[1])
    wanted = by_style(place, metric, lambda a, b, _: cosine.mean_pairwise(a, b))
    assert found["clip_i"] == pytest.approx(np.mean(wanted), rel=1e-5)
    wanted = by_style(
        place, metric, lambda a, b, style: dreambooth.text_score(a, metric.texts(style.prompts))
    )
    assert found["clip_t"] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert found["total"] is None and found["missing"] == []


def test_recognition_takes_its_words_from_a_file_the_weights_or_the_package(settings, folder):
    without = run.Settings(**{**vars(settings), "words": None, "metrics": ("clip_r",)})
    ((one,), missing) = run.prepare(without)
    assert one.words == clip_r.read_words(clip_r.SHIPPED) and missing == {}
    shutil.copy(settings.words, folder / WORDS)
    try:
        ((one,), missing) = run.prepare(without)
    finally:
        (folder / WORDS).unlink()
    assert one.words == tuple(test_score_clip.WORDS) and missing == {}
    settings.words.write_text("cat")
    with pytest.raises(clip_r.WordsError, match="words.txt: 1 words"):
        run.prepare(settings)
