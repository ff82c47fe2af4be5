"""Methods with a reference against PyTorch: whole runs of ten steps, from a content and from noise.

Both sides read the same weights, pictures and noise and share nothing else.
"""

from __future__ import annotations

import numpy as np
import pytest

from jstyle.injection import resolve_sites
from jstyle.methods import find_method
from jstyle.methods.base import NOISE, Noise
from jstyle.sd.noise import gaussian
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.startup import jt
from tests.pictures import picture
from tests.tiny import config, make_ours, make_theirs
from tests.tolerances import assert_close

STEPS = 10
SIZES = {"sd1": (64, 128), "sd2": (64, 96)}  # of one token, no deviation can be taken
PROMPTS, NEGATIVE, ABOUT = ("a star at night", "a red fox"), "dull", "an ink drawing"


@pytest.fixture(scope="module")
def ours():
    return {kind: make_ours(kind) for kind in SIZES}


def from_noise(sd, name, references, guidance, size, **options):
    """Ours: pictures (2, 3, H, W) of two prompts after references, and the noise."""
    method = find_method(name)
    cfg = method.Config(steps=STEPS, negative=NEGATIVE, invert_prompt=ABOUT, **options)
    painter = method(sd)
    start = Noise(sd.noise(2, 7, *size), PROMPTS, (7, 8), Sampling(STEPS, guidance, "ddim"))
    prepared = {NOISE: start}
    if references:
        each = [painter.prepare("style", pixels, cfg) for pixels in references]
        prepared["style"] = painter.pool(each)
    return painter.apply(prepared, cfg).numpy(), start.latent.numpy()


def options_of(sd, **options):
    """What the PyTorch side is given: sites by name."""
    names = sd.unet.attention_sites()
    return {"sites": resolve_sites(options.pop("sites", "all"), names), **options}


STYLE_ALIGNED = {
    "one reference": ("sd2", 1, 3.0, {}, {}),
    "led by the first": ("sd1", 0, 3.0, {}, {}),
    "two references, scores": (
        "sd1",
        2,
        3.0,
        {"sites": "decoder:3-11", "score_scale": 0.8, "score_shift": -0.7},
        {"sites": "decoder:3-11", "scale": 0.8, "shift": -0.7},
    ),
    "no guidance, no norms": (
        "sd2",
        1,
        1.0,
        {"adain": "qkv", "share_norms": False, "window": "0:500"},
        {"adain": "qkv", "norms": False, "window": (0, 500)},
    ),
}


@pytest.mark.parametrize("case", STYLE_ALIGNED)
def test_style_aligned_from_noise(ours, case):
    import torch

    from tests.parity.torch_style_aligned import TorchStyleAligned

    kind, count, guidance, given, theirs = STYLE_ALIGNED[case]
    sd, pictures = ours[kind], [picture(3 + i, *SIZES[kind]) for i in range(count)]
    image, start = from_noise(sd, "style-aligned", pictures, guidance, SIZES[kind], **given)
    schedule = config(kind, "scheduler")
    other = TorchStyleAligned(make_theirs(kind), schedule, STEPS, **options_of(sd, **theirs))
    with torch.no_grad():
        references = [other.invert(pixels, ABOUT) for pixels in pictures]
    z = torch.as_tensor(start).double()
    expected = other.paint(z, PROMPTS, NEGATIVE, guidance, references, ABOUT)
    assert_close("method from noise", image, expected)


def test_style_aligned_from_a_content(ours):
    import torch

    from tests.parity.torch_style_aligned import TorchStyleAligned

    method, sd = find_method("style-aligned"), ours["sd1"]
    cfg = method.Config(steps=STEPS, prompt=PROMPTS[0], negative=NEGATIVE, guidance=2.0)
    painter, content, style = method(sd), picture(1, *SIZES["sd1"]), picture(2, *SIZES["sd1"])
    prepared = {role: painter.prepare(role, x, cfg) for role, x in
                (("content", content), ("style", style))}  # fmt: skip
    image = painter.apply(prepared, cfg).numpy()
    schedule = config("sd1", "scheduler")
    other = TorchStyleAligned(make_theirs("sd1"), schedule, STEPS, **options_of(sd))
    with torch.no_grad():
        z, reference = other.invert(content)[other.ascending[-1]], other.invert(style)
    expected = other.paint(z, PROMPTS[:1], NEGATIVE, 2.0, [reference])
    assert_close("method from a content", image, expected)


REFERENCE_ONLY = {
    "attention": ("sd1", 1, 3.0, {"fidelity": 0.3}),
    "adain": ("sd2", 1, 3.0, {"mode": "adain"}),
    "both, two references": ("sd2", 2, 3.0, {"mode": "both", "sites": "decoder:3-11"}),
    "no guidance": ("sd1", 1, 1.0, {"mode": "both", "window": "200:999"}),
}


@pytest.mark.parametrize("case", REFERENCE_ONLY)
def test_reference_only_from_noise(ours, case):
    import torch

    from tests.parity.torch_reference_only import TorchReferenceOnly

    kind, count, guidance, given = REFERENCE_ONLY[case]
    sd, pictures = ours[kind], [picture(3 + i, *SIZES[kind]) for i in range(count)]
    image, start = from_noise(
        sd, "reference-only", pictures, guidance, SIZES[kind], noise_seed=4, **given
    )
    theirs = {**given}
    if "window" in theirs:
        theirs["window"] = tuple(map(int, theirs["window"].split(":")))
    schedule = config(kind, "scheduler")
    other = TorchReferenceOnly(make_theirs(kind), schedule, STEPS, **options_of(sd, **theirs))
    with torch.no_grad():
        references = [other.encode(pixels) for pixels in pictures]
    noise = torch.as_tensor(gaussian(start.shape[1:], 4))
    z = torch.as_tensor(start).double()
    expected = other.paint(z, PROMPTS, NEGATIVE, guidance, references, noise)
    assert_close("method from noise", image, expected)


def test_reference_only_from_a_content_joins_batches(ours):
    """Two contents in two styles share one batch; each looks at its own style."""
    method, sd = find_method("reference-only"), ours["sd2"]
    cfg = method.Config(steps=3, prompt=PROMPTS[0], guidance=2.0, mode="both")
    painter = method(sd)
    made = {
        role: [painter.prepare(role, picture(i, *SIZES["sd2"]), cfg) for i in seeds]
        for role, seeds in (("content", (1, 2)), ("style", (3, 4)))
    }
    joined = painter.apply({role: painter.join(both) for role, both in made.items()}, cfg).numpy()
    for i in (0, 1):
        alone = painter.apply({role: both[i] for role, both in made.items()}, cfg).numpy()
        assert_close("method in a batch", joined[i : i + 1], alone)
    swapped = painter.apply(
        {"content": painter.join(made["content"]), "style": painter.join(made["style"][::-1])}, cfg
    )
    assert np.abs(swapped.numpy() - joined).max() > 1e-2
    jt.sync_all()
