"""CLIP, CLIP_R, CLIP-I and CLIP-T against transformers: same weights, from the folder it saved."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from jstyle.score.metrics.clip_r import (
    ORGANISERS_WORDS,
    SHIPPED,
    TOP,
    ClipRecall,
    label_of,
    read_words,
    recall,
)
from jstyle.score.metrics.cosine import mean_pairwise
from jstyle.score.metrics.dreambooth import ClipImage, ClipText, text_score
from jstyle.score.networks.clip import CLIP, end_positions
from jstyle.sd.config_json import ConfigError
from jstyle.sd.startup import jt
from jstyle.sd.weights import WeightsError, read_safetensors
from tests.parity.score_networks import draw_weights, edit_json, pictures, save_processor
from tests.tiny import TOKENIZER
from tests.tolerances import assert_close

VOCABULARY = 2159
WORDS = "cafe swan belt pencil shoes cherry plane forest bamboo workshop dog butterfly".split()
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 20,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "eos_token_id": VOCABULARY - 1,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 28,
    "patch_size": 4,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(transformers' CLIPModel, its folder with tokenizer and processor)."""
    import transformers

    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=28)
    model = draw_weights(transformers.CLIPModel(config))
    model.logit_scale.fill_(np.log(100.0))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    save_processor(folder, "CLIPImageProcessor", {"shortest_edge": 28}, crop=28)
    shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
    return model, folder


@pytest.fixture
def copy(saved, tmp_path):
    """A folder of its own, to be damaged."""
    return shutil.copytree(saved[1], tmp_path / "copy")


@pytest.fixture(scope="module")
def outputs(saved):
    """transformers' CLIPOutput for pictures and texts, prepared as a CLIPProcessor does."""
    import torch
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model, folder = saved
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder))

    def run(images, texts):
        pixels = processor([Image.fromarray(i) for i in images], return_tensors="np")
        ids = tokenizer(list(texts), padding=True, return_tensors="pt")
        return model(pixel_values=torch.tensor(np.stack(pixels["pixel_values"])), **ids)

    return run


def normalised(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_features_of_pictures_and_texts_agree(saved, outputs):
    texts = [*WORDS[:4], "ice cream", "a very long description of a small boat at sea"]
    expected = outputs(pictures(3), texts)
    clip = CLIP.from_folder(saved[1])
    images, words = clip.images(pictures(3)), clip.texts(texts)
    assert_close("score.clip", normalised(images), expected.image_embeds.numpy())
    assert_close("score.clip", normalised(words), expected.text_embeds.numpy())
    logits = clip.scale * normalised(images) @ normalised(words).T
    assert_close("score.clip", logits, expected.logits_per_image.numpy())


def test_texts_in_several_rounds_and_lengths_are_the_same(saved):
    clip = CLIP.from_folder(saved[1])
    texts = [f"{word} {other}" for word in WORDS for other in WORDS[:6]]  # more than one round
    together = clip.texts(texts)
    assert len(together) == 72
    assert_close("score.clip", together[-2:], clip.texts(texts[-2:]))
    assert_close("score.clip", together[:1], clip.texts(["a " * 50, texts[0]])[1:])  # padded more


def test_a_text_ends_at_its_first_end_token_however_it_is_padded():
    ids = np.array([[8, 5, 9, 9, 9], [8, 1, 2, 9, 9], [8, 9, 0, 0, 0]])
    for eos_token_id in (9, 2, None):  # 2 stands in OpenAI's files for "the largest"
        assert end_positions(ids, eos_token_id).tolist() == [2, 3, 1]


def test_hits_are_those_of_softmax_and_top_five(saved, outputs):
    """The organiser's procedure: list and label as a set, softmax, the five most probable."""
    import torch

    metric = ClipRecall(saved[1], WORDS)
    images = pictures(24, seed=8)
    labels = ["ice cream", *WORDS, "swan", "mountain"] + ["fox", "cup", "bee"] * 3
    found = metric.hits(metric.features(images), labels)
    expected = []
    for image, label in zip(images, labels, strict=True):
        texts = sorted(set([*WORDS, label]))
        probabilities = outputs(image[None], texts).logits_per_image.softmax(1)[0]
        expected.append(label in [texts[i] for i in torch.topk(probabilities, 5).indices])
    assert found.tolist() == expected
    assert 2 < sum(expected) < 22
    assert recall([found[:5], found[5:]]) == sum(expected) / 24


def test_the_shipped_list_gives_the_hits_of_an_independent_network_also_at_the_fifth_place(
    saved, outputs
):
    """Labels are the words that the other implementation has at its fifth and sixth place."""
    words, images = read_words(SHIPPED), pictures(16, seed=9)
    order = outputs(images, list(words)).logits_per_image.argsort(1, descending=True)
    places = [TOP - 1 + i % 2 for i in range(len(images))]
    labels = [words[order[i, place]] for i, place in enumerate(places)]
    metric = ClipRecall(saved[1], words)
    found = metric.hits(metric.features(images), labels)
    assert found.tolist() == [place < TOP for place in places]
    assert len(set(labels)) > 4


def test_the_label_is_the_file_name_up_to_its_first_dot():
    assert label_of("Ice cream") == "ice cream"
    assert label_of("St. Bernard") == "st"


def test_the_contests_own_list_is_shipped_with_the_word_that_it_has_twice(caplog):
    words = read_words(SHIPPED)
    assert len(words) == ORGANISERS_WORDS and not caplog.text
    lines = [line.lower() for line in SHIPPED.read_text().split("\n") if line]
    assert [word for word in words if lines.count(word) == 2] == ["watch"]
    assert {"cat", "wolf", "lobster"} <= set(words) and lines[0] == "cat"


def test_a_word_list_is_trimmed_and_its_problems_are_named(tmp_path, caplog):
    path = tmp_path / "words.txt"
    with pytest.raises(ValueError, match=r"words\.txt: no such file \(a list of words"):
        read_words(path)
    path.write_text("Dog\n cat \n\nICE Cream\ndog\nowl\nbee\nfox\n")
    assert read_words(path) == ("dog", "cat", "ice cream", "owl", "bee", "fox")
    assert "6 words; the organiser's list has 215" in caplog.text
    caplog.clear()
    path.write_text("\n".join(f"word {i}" for i in range(215)))
    assert len(read_words(path)) == 215 and not caplog.text
    path.write_text("dog\ncat\n")
    with pytest.raises(ValueError, match="2 words, at least 5 are needed"):
        read_words(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8 text; it looks like UTF-16"):
        read_words(path)


def test_dreambooths_scores_are_means_of_cosines(saved, outputs):
    prompts = ["Swan", "Ice cream", "A red fox"]
    generated, references = pictures(3, seed=1), pictures(2, seed=2)
    of_generated, of_references = outputs(generated, prompts), outputs(references, prompts)
    metric = ClipImage(saved[1])
    ours, texts = metric.features(generated), ClipText(saved[1]).texts(prompts)
    cosines = of_generated.image_embeds @ of_references.image_embeds.T
    assert abs(mean_pairwise(ours, metric.features(references)) - cosines.mean().item()) < 1e-6
    cosines = (of_generated.image_embeds * of_generated.text_embeds).sum(1)
    assert abs(text_score(ours, texts) - cosines.mean().item()) < 1e-6
    with pytest.raises(ValueError, match="3 pictures but 2 prompts"):
        text_score(ours, texts[:2])


def test_folders_as_openai_published_them_are_read(saved, copy):
    """Two copies of each tower's config, id 2 as end of text, position ids, a file of torch."""
    import torch

    twice = {"text_config_dict": {**TEXT, "eos_token_id": 2}, "vision_config_dict": VISION}
    edit_json(copy / "config.json", **twice, text_config={"hidden_size": 99})
    path = copy / "model.safetensors"
    tensors = {name: torch.tensor(t.array()) for name, t in read_safetensors(path).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    path.unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    old, new = CLIP.from_folder(copy), CLIP.from_folder(saved[1])
    assert np.array_equal(old.texts(WORDS), new.texts(WORDS))
    assert np.array_equal(old.images(pictures(2)), new.images(pictures(2)))
    assert abs(old.scale - 100) < 1e-4


def test_what_does_not_fit_is_named(saved, copy):
    with pytest.raises(ValueError, match="takes 28 x 28 pixels, got 28 x 32"):
        CLIP.from_folder(copy).model.encode_image(jt.zeros((2, 3, 28, 32)))
    config = copy / "config.json"
    for change, error, message in [
        ({"model_type": "siglip"}, ConfigError, r"model_type = 'siglip' \(supported: clip\)"),
        ({"projection_dim": 0}, ConfigError, "projection_dim = 0 must be a whole number above 0"),
        ({"projection_dim": 30}, WeightsError, r"text_projection\.weight \[28, 20\] instead of"),
        ({"vision_config": 3}, ConfigError, "vision_config must be an object"),
        (
            {"text_config": {**TEXT, "vocab_size": 99}},
            ConfigError,
            "the tokenizer has 2159 tokens, more than vocab_size = 99",
        ),
    ]:
        before = config.read_text()
        edit_json(config, **change)
        with pytest.raises(error, match=message):
            CLIP.from_folder(copy)
        config.write_text(before)
    (copy / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt missing"):
        CLIP.from_folder(copy)
