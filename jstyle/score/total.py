"""The contest's six metrics and their total; the names of the other protocols' metrics."""

from __future__ import annotations

from collections.abc import Mapping

METRICS = ("dino", "hist", "lpips", "fid", "clip_r", "clip_iqa")
METRICS_OF_STYLE = ("dino", "hist", "lpips")  # in the order of style_part
METRICS_OF_CONTENT = ("clip_r", "fid", "clip_iqa")  # in the order of content_part
PROTOCOLS = {"contest": METRICS, "dreambooth": ("dino_vits16", "clip_i", "clip_t")}
ARTFID = "artfid"  # the third protocol, of stylisations instead of a contest
WORST_FID = 20.0  # from here on FID counts nothing


def style_part(dino: float, hist: float, lpips: float) -> float:
    """How much the pictures look like the references, at most 1."""
    return 0.2 * dino + 0.4 * hist + 0.4 * (1 - lpips)


def content_part(clip_r: float, fid: float, clip_iqa: float) -> float:
    """Whether they show what was asked for, and how good they are, at most 1."""
    quality = (WORST_FID - min(fid, WORST_FID)) / WORST_FID
    return 0.5 * clip_r + 0.4 * quality + 0.1 * clip_iqa


def total(values: Mapping[str, float | None]) -> float | None:
    """The score from the values of METRICS; None if one of them is missing."""
    if any(values.get(name) is None for name in METRICS):
        return None
    style = style_part(values["dino"], values["hist"], values["lpips"])
    return style * content_part(values["clip_r"], values["fid"], values["clip_iqa"])


def bought(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each metric adds to total(after) - total(before); they sum to it exactly.

    The total is a product of two sums. A metric's share is what its change adds to its own sum,
    times the mean of the other sum before and after. Both need values of all METRICS.
    """
    styles, contents = (
        [part(*(values[name] for name in names)) for values in (before, after)]
        for part, names in ((style_part, METRICS_OF_STYLE), (content_part, METRICS_OF_CONTENT))
    )
    shares = {}
    for part, names, other in (
        (style_part, METRICS_OF_STYLE, contents),
        (content_part, METRICS_OF_CONTENT, styles),
    ):
        start = part(*(before[name] for name in names))
        for name in names:
            changed = part(*((after if n == name else before)[n] for n in names))
            shares[name] = (changed - start) * (other[0] + other[1]) / 2
    return {name: shares[name] for name in METRICS}
