"""Image processors against transformers' Pillow processors: every number equal."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jstyle.score.processing import processor_from_json, read_processor
from jstyle.sd.config_json import ConfigError
from jstyle.sd.weights import WeightsError
from tests.parity.score_networks import MEAN, STD, pictures

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
SIZES = [(96, 96), (61, 90), (90, 61), (20, 33), (224, 40)]
# The files of facebook/dinov2-base, openai/clip-vit-*, facebook/dino-vits16, a quarter as large.
FILES = {
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 56, "width": 56},
        "do_rescale": True,
        "rescale_factor": 0.00392156862745098,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    },
    "clip": {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True,
        "size": 56,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": 56,
        "do_normalize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "dino": {
        "feature_extractor_type": "ViTFeatureExtractor",
        "do_resize": True,
        "size": 56,
        "resample": 2,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    },
    "plain": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_rescale": False,
        "do_normalize": False,
    },
}


def reference(name):
    """transformers' Pillow processor with the same settings."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    classes = {"dinov2": BitImageProcessorPil, "clip": CLIPImageProcessorPil}
    settings = {k: v for k, v in FILES[name].items() if not k.endswith("_type")}
    return classes.get(name, ViTImageProcessorPil)(**settings)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_every_number_is_that_of_transformers(name, size):
    batch = pictures(2, *size)
    ours = processor_from_json(FILES[name])(batch)
    theirs = reference(name)([Image.fromarray(i) for i in batch], return_tensors="np")
    expected = np.stack(theirs["pixel_values"]).astype(np.float32)
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    assert np.array_equal(ours, expected)


def test_the_settings_are_read_from_the_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json: missing"):
        read_processor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json: not JSON"):
        read_processor(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_extractor_type": "Odd"}, r"image_processor_type = 'Odd' \(supported: Bit"),
        ({"size": {"longest_edge": 3}}, r"size = \{'longest_edge': 3\} must be a number"),
        ({"size": 0}, "size = 0 must be a number"),
        ({"crop_size": {"height": 5}}, "crop_size = "),
        ({"crop_size": {"shortest_edge": 5}}, "crop_size must be a number or have a height"),
        ({"resample": 9}, "resample = 9 must be one of Pillow's, 0 to 5"),
        ({"image_mean": [0.5]}, r"image_mean = \[0\.5\] must be three numbers"),
        ({"image_std": [1, 0, 1]}, r"image_std = \[1, 0, 1\] must be three numbers above 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ConfigError, match="preprocessor_config.json: " + message):
        processor_from_json({**FILES["clip"], **change})


def test_arrays_of_another_kind_and_pictures_too_small_are_refused():
    processor = processor_from_json({**FILES["clip"], "do_resize": False})
    with pytest.raises(ValueError, match=r"uint8 \(B, H, W, 3\), got float32 \(1, 60, 60, 3\)"):
        processor(np.zeros((1, 60, 60, 3), np.float32))
    with pytest.raises(ValueError, match="37 x 30 is too small to crop"):
        processor(pictures(1))
