"""Captions from beside the pictures, and folders that say how often theirs are drawn."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from jdreambooth.captions import CaptionError, find_captions
from jdreambooth.config import TrainConfig
from jdreambooth.contest.config import make_config
from jdreambooth.data import Dataset, Picture
from jdreambooth.instances import find_instances, told
from jdreambooth.train import Run
from jstyle.sd.image import ImageError
from tests import tiny
from tests.train.conftest import make_pictures
from tests.train.test_data import SHAPE, shown


def captioned(folder, prompt=None, source="auto", case="keep"):
    return find_captions(find_instances(folder), prompt, source, case)


def metadata(folder, **texts):
    rows = [{"file_name": f"{name}.png", "text": text} for name, text in texts.items()]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """a.png and b.png."""
    return make_pictures(tmp_path / "foxes", ("a", "b"))


def test_sidecars_may_have_a_mark_other_line_ends_and_capitals(folder):
    (folder / "a.txt").write_bytes("\ufeffa sks fox,\r\nin Snow\r\n".encode())
    (folder / "b.TXT").write_text("a fox, é")
    found = captioned(folder, source="sidecar")
    assert found.texts == {"a.png": "a sks fox, in Snow", "b.png": "a fox, é"}
    assert found.told() == "2 from .txt files"
    assert captioned(folder, source="sidecar", case="lower").texts["a.png"] == "a sks fox, in snow"


def test_metadata_names_pictures_and_what_it_names_in_vain_is_told(folder, caplog):
    metadata(folder, a="one", b="one", gone="three")
    found = captioned(folder, source="metadata")
    assert found.texts == {"a.png": "one", "b.png": "one"}
    assert found.told() == "2 from metadata.jsonl"
    (line,) = caplog.messages
    assert "metadata.jsonl: not used for gone.png" in line


def test_auto_takes_the_first_that_there_is(tmp_path):
    folder = make_pictures(tmp_path / "10_sks_fox", ("a", "b", "c"))
    metadata(folder, a="listed")
    (folder / "a.txt").write_text("beside")
    (folder / "b.txt").write_text("beside")
    found = captioned(folder, "{stem} in red")
    assert found.texts == {"a.png": "listed", "b.png": "beside", "c.png": "c in red"}
    assert found.told() == "1 from metadata.jsonl, 1 from .txt files, 1 from instance_prompt"
    assert captioned(folder).texts["c.png"] == "sks fox"


def test_a_prompt_alone_warns_of_captions_beside_and_template_does_not(folder, caplog):
    before = captioned(folder, "{stem} in red", None)
    assert before.texts == {"a.png": "a in red", "b.png": "b in red"} and not caplog.messages
    (folder / "a.txt").write_text("a fox")
    metadata(folder, a="a fox")
    assert captioned(folder, "{stem} in red", "template") == before and not caplog.messages
    assert captioned(folder, "{stem} in red", None) == before
    (line,) = caplog.messages
    assert "not used (a.txt, metadata.jsonl); captions = auto uses them" in line


@pytest.mark.parametrize(
    "source, beside, message",
    [
        ("sidecar", {}, "a.png: no caption (and for 1 more: b.png); write it to a.txt beside it"),
        ("sidecar", {"b.txt": b"x"}, "a.png: no caption; write it to a.txt"),
        ("metadata", {}, "foxes/metadata.jsonl, or give captions = auto and an instance_prompt"),
        ("auto", {"a.txt": b"x"}, "b.png: no caption; write it to b.txt beside it, or to metadata"),
        ("sidecar", {"a.txt": b" \n", "b.txt": b"x"}, "a.txt: empty; write what the picture shows"),
        ("sidecar", {"a.txt": b"x", "a.caption": b"y"}, "several captions, a.caption, a.txt"),
        ("sidecar", {"a.txt": "é".encode("latin-1")}, "a.txt: not UTF-8 text"),
        ("sidecar", {"a.txt": "x".encode("utf-16")}, "a.txt: not UTF-8 text"),
        ("sidecar", {"a.txt": b"x" * 70_000}, "a.txt: 70000 bytes; text is read up to 65536"),
        ("auto", {"metadata.jsonl": b'{"file_name": "a.png"}'}, 'line 1: expected a "file_name"'),
        (
            "metadata",
            {"metadata.jsonl": b'{"file_name": "a.png", "text": "x"}\n' * 2},
            "line 2: a second caption for a.png",
        ),
        ("sidecars", {}, "or are one of template, sidecar, metadata, auto"),
    ],
)
def test_what_is_wrong_with_captions_is_one_line(folder, source, beside, message):
    for name, content in beside.items():
        (folder / name).write_bytes(content)
    with pytest.raises(CaptionError, match="^[^\n]+$") as caught:
        captioned(folder, source=source)
    assert message in str(caught.value)


def test_which_options_go_together():
    places = {"instance_dir": "pictures", "out": "run"}
    for source in ("template", "auto", None):
        TrainConfig(**places, instance_prompt="x", captions=source)
    for source in ("sidecar", "metadata", "auto", "c.jsonl"):
        TrainConfig(**places, captions=source)
    with pytest.raises(ValueError, match="give either instance_prompt or captions"):
        TrainConfig(**places, captions="template")
    with pytest.raises(ValueError, match="only one of them, or captions = 'auto'"):
        TrainConfig(**places, captions="sidecar", instance_prompt="x")


def test_a_contest_takes_the_words_as_words_and_other_captions_as_files(tmp_path):
    def train(**options):
        return make_config({"defaults": {"train": options}}, "c.yaml", tmp_path).style("05").train

    assert train(captions="sidecar").captions == "sidecar"
    assert train(captions="auto").instance_prompt == "{stem} in style_05"
    assert train(captions="c.jsonl").captions == str(tmp_path / "c.jsonl")


@pytest.fixture
def numbered(tmp_path):
    """Two folders in one: two pictures that are drawn three times as often as the third."""
    root = tmp_path / "img"
    root.mkdir()
    make_pictures(root / "30_sks_fox", ("a", "b"))
    make_pictures(root / "10_dog", ("a",))
    (root / "30_sks_fox" / "a.txt").write_text("a fox")
    return root


def test_numbered_folders_say_how_often_and_what(numbered, caplog):
    make_pictures(numbered / "others", ("x",))
    make_pictures(numbered / "0_none", ("x",))
    pictures = find_instances(numbered)
    assert [(p.name, p.repeats, p.words) for p in pictures] == [
        ("10_dog/a.png", 10, "dog"),
        ("30_sks_fox/a.png", 30, "sks fox"),
        ("30_sks_fox/b.png", 30, "sks fox"),
    ]
    assert told(pictures) == "3 pictures (10_dog: 1 x 10, 30_sks_fox: 2 x 30)"
    found = find_captions(pictures, None, "auto")
    assert list(found.texts.values()) == ["dog", "a fox", "sks fox"]
    assert found.told() == "2 from folder names, 1 from .txt files"
    (line,) = caplog.messages
    assert "left out 0_none, others; folders of pictures are named 10_WORDS" in line


def test_pictures_beside_numbered_folders_come_first(numbered, caplog):
    make_pictures(numbered, ("top",))
    assert [p.name for p in find_instances(numbered)] == ["top.png"]
    assert "not looked into 10_dog, 30_sks_fox" in caplog.text


def test_too_many_repeats_are_refused(tmp_path):
    (tmp_path / "img").mkdir()
    make_pictures(tmp_path / "img" / "1000000_fox", ("a",))
    with pytest.raises(ImageError, match="1000000 repeats; at most 1000"):
        find_instances(tmp_path / "img")


def repeated(*repeats):
    latents = np.zeros((1, *SHAPE), np.float32)
    return [Picture(None, f"picture {i}", latents, often) for i, often in enumerate(repeats)]


def test_repeats_are_how_often_a_picture_is_drawn_in_every_round():
    seen = shown(Dataset(repeated(10, 30, 20), seed=3), 18)
    for start in (0, 6, 12):
        counts = Counter(seen[start : start + 6])
        assert counts == {"picture 0": 1, "picture 1": 3, "picture 2": 2}


def test_equal_repeats_change_nothing_and_unequal_ones_are_in_the_fingerprint():
    once, often, uneven = (Dataset(repeated(*r)) for r in ((1, 1), (10, 10), (1, 2)))
    assert shown(once, 20) == shown(often, 20) and once.fingerprint() == often.fingerprint()
    assert uneven.fingerprint() != once.fingerprint()


def test_a_run_is_conditioned_on_the_captions_beside_and_draws_by_the_folders(
    config, numbered, caplog
):
    caplog.set_level("INFO", "jdreambooth")
    options = {"instance_dir": str(numbered), "captions": "auto", "steps": 7, "rank": 1}
    run = Run(config(**options), None, None, tiny.make_ours("sd2"))
    drawn = Counter(c for step in range(7) for c in run.data.batch(step, 0).captions)
    assert drawn == {"a fox": 3, "sks fox": 3, "dog": 1}
    assert set(run.trained.contexts) == {"", "a fox", "sks fox", "dog"}
    assert (run.trained.contexts["a fox"] != run.trained.contexts["sks fox"]).any()
    (line,) = [line for line in caplog.messages if "pictures" in line]
    assert line.endswith(
        "img: 3 pictures (10_dog: 1 x 10, 30_sks_fox: 2 x 30); "
        "captions: 2 from folder names, 1 from .txt files"
    )
    assert run.captions["30_sks_fox/a.png"] == "a fox" and len(run.captions) == 3


# Captions with weights


def test_names_of_files_and_folders_mean_themselves_in_weighted_captions(tmp_path):
    folder = make_pictures(tmp_path / "10_sks [big] fox", ("fox (1)", "b"))
    pictures = find_instances(folder)
    found = find_captions(pictures, "a ({stem}:1.2)", None, syntax="webui").texts
    assert found == {"b.png": "a (b:1.2)", "fox (1).png": r"a (fox \(1\):1.2)"}
    found = find_captions(pictures, None, "auto", syntax="webui").texts
    assert set(found.values()) == {r"sks \[big\] fox"}
    assert find_captions(pictures, "{stem}", None).texts["fox (1).png"] == "fox (1)"


@pytest.mark.parametrize("text", ["a [fox:cat:3]", "a [fox|cat]", "a AND b", "a (fox"])
def test_a_caption_that_is_none_names_its_picture(folder, text):
    (folder / "a.txt").write_text("a (fox:1.1)")
    (folder / "b.txt").write_text(text)
    pictures = find_instances(folder)
    assert find_captions(pictures, None, "sidecar").texts["b.png"] == text
    with pytest.raises(CaptionError, match=r"b\.png: .*(about sampling|never closed)"):
        find_captions(pictures, None, "sidecar", syntax="webui")


@pytest.mark.parametrize("text_encoder", [False, True])
def test_captions_of_different_lengths_are_trained_together(folder, tmp_path, text_encoder):
    (folder / "a.txt").write_text("a (fox:1.5) BREAK in snow")
    (folder / "b.txt").write_text("fox, " * 60)
    options = {"captions": "sidecar", "syntax": "webui", "size_px": 32, "steps": 1, "batch": 2}
    options |= {"train_text_encoder": text_encoder, "rank": 1, "device": "cpu"}
    cfg = TrainConfig(str(folder), str(tmp_path / "run"), **options)
    run = Run(cfg, None, None, tiny.make_ours("sd2"))
    assert np.isfinite(run.step(0)["loss"])
    context = run.trained.context(["a (fox:1.5) BREAK in snow", ("fox, " * 60).strip(), ""])
    assert context.shape == (3, 2 * 77, 20)
    plain = run.sd.encode_text([""]).numpy()[0]
    np.testing.assert_allclose(context.numpy()[2], np.concatenate([plain, plain]), atol=1e-5)
