"""Ten training steps here and with PyTorch, diffusers and peft, on the same data and noise."""

from __future__ import annotations

import numpy as np
import pytest

from jdreambooth.train import Run
from jdreambooth.trainables.base import values_of
from tests import tiny
from tests.tolerances import TOLERANCES, rel_l2
from tests.train.conftest import config, pictures  # noqa: F401 (fixtures)

STEPS, LR = 10, 1e-3
SIZES = {"sd1": 128, "sd2": 64}  # latents of 16 x 16: attention sees four tokens at the least
PRIOR = {"prior_weight": 0.7, "class_prompt": ["a picture", "a photo"], "num_class_images": 2}
CASES = {
    "lora-sd1": ("sd1", {"train": "lora", "batch": 2}),
    "lora-sd2": ("sd2", {"train": "lora", "alpha": 3.0, "targets": "convolutions"}),
    "lora-prior": ("sd2", {"train": "lora", **PRIOR}),
    "lora-text": ("sd2", {"train": "lora", "train_text_encoder": True}),
    "full-sd1": ("sd1", {"train": "full"}),
    "full-sd2": ("sd2", {"train": "full", "batch": 2}),
    "full-prior": ("sd1", {"train": "full", **PRIOR}),
    "kv-sd1": ("sd1", {"train": "kv"}),
    "kv-prior": ("sd2", {"train": "kv", **PRIOR}),
}


@pytest.fixture(autouse=True)
def one_order_of_sums():
    """PyTorch's rounding depends on how many threads share a sum, and Adam follows the sign of a
    gradient however small: the worst tensor was off by 1.9e-4 with two threads, 6.8e-5 with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Theirs:
    """The same training in PyTorch, as diffusers' DreamBooth scripts do it."""

    def __init__(self, kind, cfg, ours: dict[str, np.ndarray]):
        import diffusers
        import torch

        pipeline = tiny.make_theirs(kind)
        self.unet, self.text = pipeline.unet, pipeline.text_encoder
        self.scheduler = diffusers.DDPMScheduler.from_config(tiny.config(kind, "scheduler"))
        modules = {"unet": self.unet, "text_encoder": self.text}
        for module in modules.values():
            module.requires_grad_(False)
        if cfg.train == "lora":
            self._add_lora(cfg, modules, ours)
        named = {
            f"{part}.{our_name(part, name)}": p
            for part, module in modules.items()
            for name, p in module.named_parameters()
        }
        self.trained = {name: named[name] for name in ours}
        with torch.no_grad():
            for name, p in self.trained.items():
                p.requires_grad_(True)
                p.copy_(torch.from_numpy(ours[name]))
        self.cfg = cfg
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay
        )

    def _add_lora(self, cfg, modules, ours):
        from peft import LoraConfig

        alpha = cfg.rank if cfg.alpha is None else cfg.alpha
        for part, module in modules.items():
            layers = [n for n in ours if n.startswith(f"{part}.") and n.endswith(".lora_A")]
            targets = [their_name(n.removeprefix(f"{part}.")).removesuffix(".lora_A")
                       for n in layers]  # fmt: skip
            if targets:
                lora = LoraConfig(r=cfg.rank, lora_alpha=alpha, target_modules=targets)
                module.add_adapter(lora)

    def step(self, batch, contexts) -> tuple[float, float]:
        """(loss, gradient norm before clipping)."""
        import torch
        import torch.nn.functional as F

        z, noise = torch.from_numpy(batch.z), torch.from_numpy(batch.noise)
        t = torch.from_numpy(batch.t)
        rows = torch.from_numpy(np.stack([contexts[c] for c in batch.captions]))
        context = self.text(rows)[0] if self.cfg.train_text_encoder else rows
        noised = self.scheduler.add_noise(z, noise, t)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(z, noise, t)
        out = self.unet(noised, t, context).sample
        n = batch.instances
        loss = F.mse_loss(out[:n], target[:n])
        if len(z) > n:
            loss = loss + self.cfg.prior_weight * F.mse_loss(out[n:], target[n:])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.cfg.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()


def their_name(name: str) -> str:
    return name.removeprefix("text_model.")  # transformers 5 has no such prefix


def our_name(part: str, name: str) -> str:
    name = name.replace(".default.weight", "").replace(".base_layer", "")
    return f"text_model.{name}" if part == "text_encoder" else name


@pytest.mark.parametrize("case", CASES)
def test_ten_steps_give_the_same_losses_and_tensors(case, config):  # noqa: F811
    kind, options = CASES[case]
    cfg = config(steps=STEPS, learning_rate=LR, size_px=SIZES[kind], **options)
    run = Run(cfg, None, None, tiny.make_ours(kind))
    theirs = Theirs(kind, cfg, values_of(run.trained.parameters))
    ids = {caption: rows.ids[0] for caption, rows in run.trained.rows.items()}
    known = ids if cfg.train_text_encoder else run.trained.contexts
    losses, norms = np.zeros((2, STEPS)), np.zeros((2, STEPS))
    for step in range(STEPS):
        ours = run.step(step)
        losses[0, step], norms[0, step] = ours["loss"], ours["grad_norm"]
        losses[1, step], norms[1, step] = theirs.step(run.data.batch(step, 0), known)
    loss_error = np.abs(losses[0] / losses[1] - 1).max()
    norm_error = np.abs(norms[0] / norms[1] - 1).max()
    got = values_of(run.trained.parameters)
    want = {name: p.detach().numpy() for name, p in theirs.trained.items()}
    error = {name: rel_l2(got[name], want[name]) for name in want}
    worst = max(error, key=error.get)
    print(f"{case}: loss {loss_error:.1e}, norm {norm_error:.1e}, {worst} {error[worst]:.1e}")
    for measured, name, most in (
        (loss_error, "train.loss", 1e-5),
        (norm_error, "train.gradient_norm", 1e-4),
        (error[worst], "train.tensors", 1e-4),
    ):
        assert measured <= min(TOLERANCES[name].limit, most), name
