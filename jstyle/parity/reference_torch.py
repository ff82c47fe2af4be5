"""The side of diffusers on PyTorch: `python -m jstyle.parity.reference_torch FOLDER --model M`.

A process of its own, so that two frameworks share neither threads nor memory, and the only file of
the package that imports PyTorch. It answers a task with a recording, on the CPU in float32, and
prints a line per unit of work. Networks, schedulers and optimiser are diffusers', transformers',
peft's and PyTorch's; StyleID is written out here once more, from the paper's formulas.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .recording import Recorder
from .task import (
    DECAY,
    GAMMA,
    RANK,
    RATE,
    TAU,
    Task,
    is_before_silu,
    is_watched,
    lora_values,
    read_task,
)

try:
    import diffusers
    import peft
    import torch
    import torch.nn.functional as F
    import transformers
    from diffusers import (
        AutoencoderKL,
        DDIMInverseScheduler,
        DDIMScheduler,
        DDPMScheduler,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel
except ImportError as error:
    raise SystemExit(
        f"the PyTorch reference cannot start ({error}); pip install 'jstyle[parity]'"
    ) from None

INJECTED = re.compile(r"up_blocks\.[23]\..*\.attn1")
UNIQUE = re.compile(r".*\b(time_proj|position_embedding|activation_fn)")  # no modules in ours
QUIET = (torch.nn.SiLU, torch.nn.Dropout, torch.nn.Identity, torch.nn.ModuleList)


class Torch:
    """The stages of a task, as `ours.Ours` has them."""

    def __init__(self, folder: Path, variant: str | None, task: Task, inputs: dict, sink):
        self.task, self.sink = task, sink
        self.inputs = {name: torch.from_numpy(values) for name, values in inputs.items()}
        options = {"variant": variant, "local_files_only": True}
        self.text = CLIPTextModel.from_pretrained(
            folder / "text_encoder", dtype=torch.float32, **options
        ).eval()
        options |= {"torch_dtype": torch.float32, "use_safetensors": True}
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", **options).eval()
        self.unet_ = UNet2DConditionModel.from_pretrained(folder / "unet", **options).eval()
        self.scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for module in (self.text, self.vae, self.unet_):
            module.requires_grad_(False)

    def run(self) -> None:
        for stage in self.task.stages:
            with self.sink.stage(stage), torch.set_grad_enabled(stage == "training"):
                getattr(self, stage)()

    def text_encoder(self) -> None:
        with self._watched("text_encoder", self.text):
            out = self.text(self.inputs["ids"]).last_hidden_state
        self._done("out", out)

    def vae_encode(self) -> None:
        with self._watched("vae_encode", self.vae):
            out = self.vae.encode(self.inputs["content"]).latent_dist.parameters
        self._done("out", out)

    def vae_decode(self) -> None:
        with self._watched("vae_decode", self.vae):
            out = self.vae.decode(self.inputs["latent"]).sample
        self._done("out", out)

    def unet(self) -> None:
        with self._watched("unet", self.unet_):
            out = self._predict(self.inputs["latent"], self.task.timestep, self.inputs["context"])
        self._done("out", out)

    def step(self) -> None:
        scheduler, z = self._scheduler(DDIMScheduler), self.inputs["latent"]
        t = scheduler.timesteps[0]
        out = self._predict(z, t, self._context("ids"))
        self.sink.put("prediction", out.numpy())
        self._done("latent", scheduler.step(out, t, z).prev_sample)

    def inversion(self) -> None:
        self._trail(DDIMInverseScheduler, self._encode("content"), "empty_ids")

    def sampling(self) -> None:
        self._trail(DDIMScheduler, self.inputs["latent"], "ids")

    def styleid(self) -> None:
        """Chung et al., arXiv:2312.09008, section 4."""
        features, context = Features(), self._context("empty_ids")
        before = self.unet_.attn_processors
        for name, module in self.unet_.named_modules():
            if INJECTED.fullmatch(name):
                module.set_processor(Injected(name, features))
        ends = {}
        for role in ("content", "style"):
            features.role = role
            for z in self._walk(DDIMInverseScheduler, self._encode(role), context, features):
                ends[role] = z
                tick()
            self.sink.put(role, z.numpy())
        features.role = "result"
        start = with_statistics(ends["content"], ends["style"])
        for i, z in enumerate(self._walk(DDIMScheduler, start, context, features)):
            self._done(f"{i:04d}", z)
        self.unet_.set_attn_processor(before)
        image = self.vae.decode(z / self.vae.config.scaling_factor).sample
        self.sink.put("image", image.clamp(-1, 1).numpy())

    def training(self) -> None:
        factors = self._add_lora()
        scheduler = DDPMScheduler.from_config(self.scheduler, clip_sample=False)
        z, noise = self.inputs["latent"], self.inputs["noise"]
        t = torch.tensor([self.task.timestep])
        kind = scheduler.config.prediction_type
        target = {"epsilon": noise, "sample": z}.get(kind)
        if target is None:
            target = scheduler.get_velocity(z, noise, t)
        self.unet_.enable_gradient_checkpointing()
        self.unet_.train()
        out = self._predict(scheduler.add_noise(z, noise, t), t, self.inputs["context"])
        loss = F.mse_loss(out, target)
        loss.backward()
        self.unet_.eval()
        self.sink.put("loss", loss.detach().reshape(1).numpy())
        for name, factor in factors.items():
            self.sink.put(f"gradient/{name}", factor.grad.numpy())
        torch.optim.AdamW(factors.values(), lr=RATE, weight_decay=DECAY).step()
        for name, factor in factors.items():
            self.sink.put(f"update/{name}", factor.detach().numpy())
        tick()

    def _add_lora(self) -> dict[str, torch.nn.Parameter]:
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets)
        self.unet_.add_adapter(config)
        factors = {
            name.replace(".default.weight", ""): factor
            for name, factor in self.unet_.named_parameters()
            if ".lora_" in name
        }
        with torch.no_grad():
            for name, factor in factors.items():
                values = lora_values(name, factor.shape, self.task.seed)
                factor.copy_(torch.from_numpy(values))
        return factors

    def _context(self, name: str) -> torch.Tensor:
        return self.text(self.inputs[name]).last_hidden_state

    def _encode(self, name: str) -> torch.Tensor:
        mean = self.vae.encode(self.inputs[name]).latent_dist.mean
        return mean * self.vae.config.scaling_factor

    def _predict(self, z, t, context) -> torch.Tensor:
        return self.unet_(z, t, encoder_hidden_states=context).sample

    def _scheduler(self, kind):
        scheduler = kind.from_config(self.scheduler, clip_sample=False)
        scheduler.set_timesteps(self.task.steps)
        return scheduler

    def _walk(self, kind: type, z, context, features=None) -> Iterator[torch.Tensor]:
        scheduler = self._scheduler(kind)
        for t in scheduler.timesteps:
            if features is not None:
                features.t = int(t)
            z = scheduler.step(self._predict(z, t, context), t, z).prev_sample
            yield z

    def _trail(self, kind: type, z, ids: str) -> None:
        for i, latent in enumerate(self._walk(kind, z, self._context(ids))):
            self._done(f"{i:04d}", latent)

    def _done(self, name: str, tensor: torch.Tensor) -> None:
        self.sink.put(name, tensor.numpy())
        tick()

    @contextmanager
    def _watched(self, stage: str, module) -> Iterator[None]:
        """Put the first tensor argument and the first result of every module in the block."""
        handles = []
        for name, child in module.named_modules():
            own = _own_name(stage, name)
            silent = isinstance(child, QUIET) or UNIQUE.fullmatch(name)
            if is_watched(stage, own) and not silent:
                hook = self._hook(own)
                handles.append(child.register_forward_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str):
        def put(module, args, options, out):
            given = [v for v in (*args, *options.values()) if torch.is_tensor(v)]
            if given and given[0].is_floating_point():
                self.sink.put(f"{name}.in", given[0].numpy())
            out = out if torch.is_tensor(out) else out[0]
            self.sink.put(f"{name}.out", (F.silu(out) if is_before_silu(name) else out).numpy())

        return put


def _own_name(stage: str, name: str) -> str:
    """transformers 5 calls the text encoder's modules without the prefix of its files."""
    if stage != "text_encoder" or not name or name.startswith("text_model"):
        return name
    return f"text_model.{name}"


class Features:
    """What is running (role, t) and the attention features kept from before."""

    def __init__(self):
        self.role, self.t, self.kept = "", 0, {}

    def exchange(self, site: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple:
        """(q, k, v, temperature) to go on with; (B, heads, tokens, head_dim)."""
        key = site, self.t
        if self.role == "content":
            self.kept[key, "q"] = q
        elif self.role == "style":
            self.kept[key, "kv"] = k, v
        else:
            mixed = GAMMA * self.kept[key, "q"] + (1 - GAMMA) * q
            return mixed, *self.kept[key, "kv"], TAU
        return q, k, v, 1.0


class Injected:
    """Self-attention for diffusers' `Attention` that exchanges its features."""

    def __init__(self, site: str, features: Features):
        self.site, self.features = site, features

    def __call__(self, attn, hidden_states, *args, **options):
        heads = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k, v, tau = self.features.exchange(self.site, *heads)
        out = F.scaled_dot_product_attention(q, k, v, scale=tau * q.shape[-1] ** -0.5)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def with_statistics(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The content's latent with the style's mean and (unbiased) deviation per channel."""
    mean, other = (z.mean((2, 3), keepdim=True) for z in (content, style))
    scale, wanted = (
        (z.var((2, 3), unbiased=True, keepdim=True) + 1e-5).sqrt() for z in (content, style)
    )
    return (content - mean) / scale * wanted + other


def tick() -> None:
    """Tell whoever started this process that another unit of work is done."""
    print("tick", flush=True)


def versions() -> dict[str, str]:
    modules = {"torch": torch, "diffusers": diffusers, "transformers": transformers, "peft": peft}
    return {name: module.__version__ for name, module in modules.items()} | {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m jstyle.parity.reference_torch")
    parser.add_argument("folder", type=Path, help="holds task.json and inputs.safetensors")
    parser.add_argument("--model", type=Path, required=True, help="a folder in diffusers format")
    parser.add_argument("--variant", help="of the weight files, such as fp16")
    args = parser.parse_args(argv)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        task, inputs = read_task(args.folder)
        sink = Recorder(args.folder)
        Torch(args.model, args.variant, task, inputs, sink).run()
        facts = {"side": "torch", "device": "cpu", "dtype": "float32", "versions": versions()}
        sink.finish(**facts)
    except (ValueError, OSError) as error:
        print(str(error).strip().splitlines()[0], file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
