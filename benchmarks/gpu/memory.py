"""Memory of the GPU: what the package's own plan expects, to stand beside what was allocated."""

from __future__ import annotations

import importlib
from dataclasses import asdict

from benchmarks.works import LORA_RANK, Setting

PLAN = "jstyle.memory"  # absent in a version without a plan: then nothing is compared
FEATURE_WORKS = ("style", "style_nth")


def expected_mib(work: str, setting: Setting) -> float | None:
    """The peak of this package on the GPU by its plan, or None where none is made for the work.

    A work holds only the networks that it uses, so the plan's parts are added up here.
    """
    try:
        planner = importlib.import_module(f"{PLAN}.plan")
        count = importlib.import_module(f"{PLAN}.parameters").count_parameters
    except ModuleNotFoundError:
        return None
    configs = {part: setting.config(part) for part in ("unet", "vae", "text_encoder")}
    item = 4 if setting.dtype == "float32" else 2

    def weights(*parts: str) -> int:
        return item * sum(count(configs[part]).all for part in parts)

    def runs(task: str, **options) -> dict:
        size = (setting.size_px, setting.size_px)
        asked = planner.Asked(task, size, cuda=True, dtype=setting.dtype, **options)
        return asdict(planner.plan(configs, asked))

    if work in ("unet", "unet_batch2"):
        found = runs("generate", guided=False, together=2 if work == "unet_batch2" else 1)
        total = weights("unet") + found["runs"]["UNet"]
    elif work == "text":
        total = weights("text_encoder") + runs("generate", guided=False)["runs"]["text encoder"]
    elif work == "vae":
        found = runs("stylize")["runs"]
        total = weights("vae") + max(found["VAE's encoder"], found["VAE's decoder"])
    elif work in FEATURE_WORKS:
        found = runs("stylize", features=_features(setting))
        total = sum(found["held"].values()) + found["runs"]["UNet"]
    elif work in ("lora", "lora_checkpointed"):
        options = {"rank": LORA_RANK, "checkpointing": work != "lora", "half": item == 2}
        found = runs("train", **options)
        held = sum(value for name, value in found["held"].items() if name != "weights")
        total = 4 * count(configs["unet"]).all + held + found["runs"]["UNet with gradients"]
    else:
        return None
    return total / 2**20


def _features(setting: Setting) -> int:
    """Bytes that the two inversions of the pair record: q of one, k and v of the other, float32, at
    the three attentions of each of the last two up blocks, which are the work's sites."""
    unet, side = setting.config("unet"), setting.latent
    per_block = unet.layers_per_block + 1
    numbers = unet.block_out_channels[1] * (side // 2) ** 2 + unet.block_out_channels[0] * side**2
    return 4 * 3 * per_block * numbers * setting.steps
