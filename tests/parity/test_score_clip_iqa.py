"""CLIP-IQA against torchmetrics' own steps, run on CLIP in PyTorch with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.score.metrics.clip_iqa import PROMPTS, ClipIqa
from tests.tolerances import assert_close

SIZES = (8, (1, 2, 1, 1), 7, 96, 128, 2)  # width, blocks, grid, out, text width, text layers


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(CLIP in PyTorch, the path to its weights)"""
    import torch

    from tests.parity import torch_networks

    network = torch_networks.fill(torch_networks.ClipResNet(*SIZES))
    path = tmp_path_factory.mktemp("clip") / "RN50.pt"
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state = network.state_dict() | {name: torch.tensor(n) for name, n in numbers.items()}
    torch.save(state, path)
    return network, path


class Processor:
    """What torchmetrics asks of transformers' CLIPProcessor."""

    class tokenizer:
        model_max_length = 77

    def __call__(self, text):
        words = {"Good photo.": PROMPTS[0], "Bad photo.": PROMPTS[1]}
        return {"input_ids": [words[one].tolist() for one in text]}


@pytest.mark.parametrize("corrected", [False, True])
def test_features_and_qualities_agree_with_torchmetrics(both, corrected):
    import torch
    import torchmetrics.functional.multimodal.clip_iqa as reference

    theirs, path = both
    batch = np.random.default_rng(0).integers(0, 256, (2, 97, 70, 3), dtype=np.uint8)
    images = torch.from_numpy(batch.transpose(0, 3, 1, 2).astype(np.float32))
    data_range = 255.0 if corrected else 1.0
    with torch.no_grad():
        names = reference._clip_iqa_format_prompts(("quality",))
        arguments = "clip_iqa", theirs, Processor(), names[0], "cpu"
        anchors = reference._clip_iqa_get_anchor_vectors(*arguments)
        arguments = "clip_iqa", images, theirs, None, data_range, "cpu"
        expected = reference._clip_iqa_update(*arguments)
        qualities = reference._clip_iqa_compute(expected, anchors, names[1])
    ours = ClipIqa(path, corrected)
    found = ours.features(batch)
    for mine, reference_unit in ((found, expected), (ours.anchors, anchors)):
        mine = mine / np.linalg.norm(mine, axis=1, keepdims=True)
        assert_close("score.clip_rn50", mine, reference_unit.numpy())
    assert_close("score.clip_iqa", ours.quality(found), qualities.numpy())
