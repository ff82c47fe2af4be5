"""Batches, crops, captions and class pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdreambooth import data, prior
from jdreambooth.captions import CaptionError, make_captions, read_captions
from jdreambooth.recipe import Recipe
from jstyle.sd import image
from tests import tiny
from tests.train.conftest import make_pictures

SHAPE = (4, 6, 8)


@pytest.fixture(scope="module")
def sd():
    return tiny.make_ours("sd2")


def pictures(count, variants=1, first=0.0):
    shape = (variants, *SHAPE)
    return [
        data.Picture(Path(f"{i}.png"), f"picture {i}", np.full(shape, first + i, np.float32))
        for i in range(count)
    ]


def shown(dataset, steps):
    return [c for step in range(steps) for c in dataset.batch(step, 0).captions]


def test_a_batch_is_a_function_of_seed_step_and_number():
    first, second = (data.Dataset(pictures(5), batch=2, seed=4) for _ in range(2))
    second.batch(0, 0)
    for a, b in zip(first.batch(7, 1), second.batch(7, 1), strict=True):
        np.testing.assert_array_equal(a, b)
    other = data.Dataset(pictures(5), batch=2, seed=5).batch(7, 1)
    assert (first.batch(7, 1).noise != other.noise).all()
    assert (first.batch(7, 1).noise != first.batch(8, 1).noise).all()
    assert (first.batch(7, 1).noise != first.batch(7, 0).noise).all()


def test_four_batches_of_one_are_one_batch_of_four():
    options = {"instances": pictures(5), "classes": pictures(3), "offset_noise": 0.1}
    whole = data.Dataset(**options, batch=4).batch(3, 0)
    parts = [data.Dataset(**options, accumulation=4).batch(3, i) for i in range(4)]
    for name in ("z", "noise", "t"):
        rows = [getattr(part, name) for part in parts]
        for half, take in ((slice(0, 4), 0), (slice(4, 8), 1)):
            np.testing.assert_array_equal(getattr(whole, name)[half], [r[take] for r in rows])


def test_every_picture_is_shown_once_before_any_comes_again():
    seen = shown(data.Dataset(pictures(5), seed=1), 15)
    for start in (0, 5, 10):
        assert sorted(seen[start : start + 5]) == [f"picture {i}" for i in range(5)]
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:]


def test_timesteps_cover_the_whole_range():
    dataset = data.Dataset(pictures(2), batch=8)
    t = np.concatenate([dataset.batch(step, 0).t for step in range(60)])
    assert t.min() < 20 and t.max() > 979 and abs(t.mean() - 499.5) < 45


def test_captions_are_dropped_as_often_as_asked():
    dropped = shown(data.Dataset(pictures(2), caption_dropout=0.3), 400).count("")
    assert 90 < dropped < 150
    assert "" not in shown(data.Dataset(pictures(2)), 100)


def test_offset_noise_moves_whole_channels():
    noise = data.Dataset(pictures(2), batch=200, offset_noise=0.5).batch(0, 0).noise
    assert noise.mean((2, 3)).std() == pytest.approx(np.sqrt(0.25 + 1 / 48), rel=0.1)


def test_the_fingerprint_changes_with_latents_and_captions():
    marks = {
        data.Dataset(p).fingerprint() for p in (pictures(2), pictures(2, first=1.0), pictures(3))
    }
    assert len(marks) == 3


def test_mirror_images_and_crops_are_encoded_not_made_of_latents(sd, tmp_path):
    path = make_pictures(tmp_path / "one", ("lake",)) / "lake.png"
    plain = data.encode_pictures(sd, {path: "x"}, 32)[0].latents
    both = data.encode_pictures(sd, {path: "x"}, 32, flip=True)[0].latents
    np.testing.assert_array_equal(both[0], plain[0])
    mirrored = tmp_path / "mirrored.png"
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    want = data.encode_pictures(sd, {mirrored: "x"}, 32)[0].latents
    np.testing.assert_allclose(both[1], want[0], atol=1e-4)
    assert np.abs(both[1] - both[0][..., ::-1]).max() > 1e-2
    crops = data.encode_pictures(sd, {path: "x"}, 32, crops=2, flip=True)[0].latents
    assert crops.shape == (4, *plain.shape[1:])
    assert len({crop.tobytes() for crop in crops}) == 4


def test_a_square_picture_is_really_cropped(tmp_path):
    path = make_pictures(tmp_path / "square", ("lake",), 48, 48) / "lake.png"
    views = data._random_crops(path, 32, 4, np.random.default_rng(0))
    assert len({view.tobytes() for view in views}) == 4
    whole = image.load(path, 32)
    assert all(view.shape == whole.shape and np.abs(view - whole).max() > 0.01 for view in views)


STEMS = ("Cherry_blossom.png", "wallet_.png", "ice__cream__.png")


@pytest.mark.parametrize("case, first", [("keep", "Cherry blossom"), ("lower", "cherry blossom")])
def test_captions_from_stems(case, first):
    got = make_captions([Path(n) for n in STEMS], "{stem} in style_05", None, case)
    want = [first, "wallet", "ice cream"]
    assert list(got.items()) == [(n, f"{w} in style_05") for n, w in zip(STEMS, want, strict=True)]


def test_the_words_of_a_template_are_lowered_too():
    assert make_captions([Path("A.png")], "{stem} By Me", None, "lower") == {"A.png": "a by me"}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.jsonl", '{"file": "a.png"}', 'line 1: expected a "file" and a "caption"'),
        ("c.jsonl", "[1]", "line 1: expected"),
        ("c.txt", "a.png\tone\na.png\ttwo", "line 2: a second caption for a.png"),
        ("c.txt", "a.png one", "line 1: expected name, tab, caption, got 'a.png one'"),
        ("c.csv", "a.png,one", "captions are read from .jsonl or .txt"),
        ("c.txt", "a.png\tone", "no caption for b.png"),
        ("c.txt", "a.png\tone\nb.png\tone", "all 2 captions are 'one'; give it as instance_prompt"),
    ],
)
def test_bad_captions_are_one_line(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CaptionError, match="^[^\n]+$") as caught:
        make_captions([Path("a.png"), Path("b.png")], None, file)
    assert message in str(caught.value)


def test_a_missing_caption_file(tmp_path):
    with pytest.raises(CaptionError, match="none.txt: no such file"):
        read_captions(tmp_path / "none.txt")


def make_class(sd, folder, count=2, prompts=("a cat", "a dog"), **options):
    recipe = Recipe(seed=7, steps=1, guidance=1.0)
    return prior.make_class_images(sd, folder, list(prompts), count, 32, recipe, **options)


def test_class_pictures_are_made_once_and_completed_later(sd, tmp_path):
    calls = []
    first = make_class(sd, tmp_path, progress=lambda *a: calls.append(a))
    assert {p.name: c for p, c in first.items()} == {
        "class-00000.png": "a cat",
        "class-00001.png": "a dog",
    }
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first}
    again = make_class(sd, tmp_path, count=3, progress=lambda *a: calls.append(a))
    assert calls == [(1, 2), (2, 2), (3, 3)] and list(again.values()) == ["a cat", "a dog", "a cat"]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in first} == before
    gone = list(again)[1]
    gone.unlink()
    make_class(sd, tmp_path, count=3)
    assert gone.read_bytes() == before[gone][1]


def test_a_half_written_class_picture_is_no_picture(sd, tmp_path):
    (tmp_path / ".class-00000.png.part.png").write_bytes(b"half")
    assert len(make_class(sd, tmp_path, count=1)) == 1


def test_own_class_pictures_count(sd, tmp_path):
    own = make_pictures(tmp_path / "class", ("my_cat", "your_cat"))
    made = make_class(sd, own, count=3, prompts=("a cat",))
    assert [p.name for p in made] == ["my_cat.png", "your_cat.png", "class-00000.png"]
    assert len(make_class(sd, own, count=1, prompts=("a cat",))) == 1


def test_class_pictures_of_another_prompt_are_refused(sd, tmp_path):
    make_class(sd, tmp_path, count=1)
    with pytest.raises(ValueError, match="shows the class prompt 'a cat', not 'a bird'"):
        make_class(sd, tmp_path, count=1, prompts=("a bird",))
