"""StableDiffusion: the four parts of a model together, and what they do together.

Text to context, pixels to latents and back, and the DDIM loop with classifier-free guidance
(arXiv:2207.12598). Latents are always scaled by the VAE's scaling_factor. Layout NCHW, float32.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import hub, weights
from .clip import CLIPTextModel
from .config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig, check_together
from .files import atomic_write, write_json
from .noise import gaussian
from .rng import NUMPY
from .schedule import Schedule
from .sizes import require_sizes
from .startup import jt
from .tokenizer import Tokenizer
from .unet import UNet2DConditionModel
from .vae import AutoencoderKL

log = logging.getLogger("jstyle")

PARTS = {  # component -> how to read its configuration, the module it describes
    "unet": (UNetConfig, UNet2DConditionModel),
    "vae": (VAEConfig, AutoencoderKL),
    "text_encoder": (CLIPTextConfig, CLIPTextModel),
}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class StableDiffusion:
    """A text-to-image model. `sd.unet(z, t, context)` is the network itself."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Tokenizer,
        schedule: Schedule,
        name: str = "model",
        tokenizer_folder: Path | None = None,
    ):
        """tokenizer_folder: where `save_pretrained` copies the tokenizer's files from.

        Raises ConfigError if the parts do not fit together.
        """
        check_together(unet.config, vae.config, text_encoder.config)
        if len(tokenizer) > text_encoder.config.vocab_size:
            raise ValueError(
                f"{name}: the tokenizer has {len(tokenizer)} tokens, the text encoder "
                f"{text_encoder.config.vocab_size}"
            )
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer, self.schedule, self.name = tokenizer, schedule, name
        self.tokenizer_folder = tokenizer_folder

    @classmethod
    def from_pretrained(
        cls, source: str | Path, variant: str | None = None, progress: bool = False
    ) -> StableDiffusion:
        """Load a model: "tiny", a folder in diffusers format, "sd21", or a hub id "owner/name".

        variant: such as "fp16", for weight files named so. progress: show a bar over the parts.
        Half-precision files are widened to float32.
        Raises HubError, ConfigError or WeightsError (all ValueErrors) in one line.
        """
        folder = hub.resolve(source, variant)
        configs = {
            part: config.from_json(hub.read_config(folder, part), hub.config_file(folder, part))
            for part, (config, _) in PARTS.items()
        }
        scheduler = hub.config_file(folder, "scheduler")
        schedule = Schedule(
            ScheduleConfig.from_json(hub.read_config(folder, "scheduler"), scheduler)
        )
        check_together(*configs.values())
        stored = {part: _stored(folder, part, variant, configs[part]) for part in PARTS}
        tokenizer = Tokenizer.from_folder(folder / "tokenizer")
        modules = {}
        for part in tqdm(PARTS, "loading", unit="part", disable=not progress):
            modules[part] = PARTS[part][1](configs[part])
            path, tensors = stored[part]
            report = weights.load_strict(modules[part], tensors, where=path)
            modules[part].eval()
            log.info(
                "%s: %d tensors, %.1f MB, %s", path, report.count, report.bytes / 1e6, report.dtype
            )
        return cls(
            **modules,
            tokenizer=tokenizer,
            schedule=schedule,
            name=str(source),
            tokenizer_folder=folder / "tokenizer",
        )

    def save_pretrained(self, folder: str | Path, dtype: str = "float16") -> None:
        """Write a folder in diffusers format; model_index.json comes last. dtype: float16, float32.

        Raises ValueError for another dtype, a value beyond float16, or an unknown tokenizer folder.
        """
        weights.require_saved_dtype(dtype)
        if self.tokenizer_folder is None:
            raise ValueError(
                f"{self.name}: tokenizer_folder is not set, its files cannot be copied"
            )
        folder = Path(folder)
        for part in hub.STEMS:
            (folder / part).mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            module, stem = getattr(self, part), hub.STEMS[part]
            write_json(folder / part / "config.json", module.config.to_json())
            weights.save(module, folder / part / f"{stem}.safetensors", dtype)
        schedule = {**self.schedule.config.to_json(), "clip_sample": False}
        write_json(folder / "scheduler" / hub.CONFIGS["scheduler"], schedule)
        for source in sorted(self.tokenizer_folder.iterdir()):
            if source.suffix in (".json", ".txt"):
                _copy(source, folder / "tokenizer" / source.name)
        write_json(folder / "model_index.json", MODEL_INDEX)

    @property
    def vae_scale(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Heights and widths of images must be multiples of this: every level halves evenly."""
        return self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def encode_text(self, prompts: list[str]) -> jt.Var:
        """Prompts -> context (B, tokens, D) for the UNet; longer prompts are cut with a warning."""
        with jt.no_grad():
            return self.text_encoder(self.tokenizer(prompts))

    def encode_image(self, x: jt.Var) -> jt.Var:
        """x (B, 3, H, W) in [-1, 1] -> latents (B, 4, h, w): posterior mean times scaling_factor.

        Raises ValueError unless H and W are multiples of size_multiple.
        """
        if len(x.shape) != 4 or x.shape[1] != self.vae.config.in_channels:
            raise ValueError(
                f"images must have shape (B, {self.vae.config.in_channels}, H, W), "
                f"got {tuple(x.shape)}"
            )
        self.check_size(*x.shape[2:])
        with jt.no_grad():
            mean = self.vae.encode(x)[:, : self.vae.config.latent_channels]
            return mean * self.vae.config.scaling_factor

    def decode(self, z: jt.Var) -> jt.Var:
        """Latents (B, 4, h, w) -> images (B, 3, H, W), clipped to [-1, 1]."""
        with jt.no_grad():
            return self.vae.decode(z / self.vae.config.scaling_factor).clamp(-1.0, 1.0)

    def denoise(
        self,
        z: jt.Var,
        context: jt.Var,
        num_steps: int,
        guidance: float = 1.0,
        negative_context: jt.Var | None = None,
        before_step: Callable[[int], None] | None = None,
        start: int = 0,
    ) -> Iterator[tuple[int, jt.Var]]:
        """DDIM sampling (eta 0): yield (t, z) after each step, z one level below t. Waits per step.

        z: (B, 4, h, w) noise, or latents at the level of timesteps(num_steps)[start].
        context, negative_context: (B, tokens, D), or one row for all. Guidance needs a negative
        context; with guidance 1 or without one, the UNet runs once per latent.
        before_step(t) is called before the UNet sees timestep t.
        """
        timesteps = self.schedule.timesteps(num_steps)
        if not 0 <= start <= len(timesteps):
            raise ValueError(f"start must be in 0..{len(timesteps)}, got {start}")
        guided = guidance != 1.0 and negative_context is not None
        contexts = [negative_context, context] if guided else [context]
        context = jt.concat([_rows(c, z.shape[0]) for c in contexts])
        for t in map(int, timesteps[start:]):
            if before_step is not None:
                before_step(t)
            with jt.no_grad():  # not around the yield: the caller's code is not ours to switch
                z = self._step(z, t, context, num_steps, guidance if guided else None)
                z.sync()
            yield t, z

    def _step(self, z, t: int, context, num_steps: int, guidance: float | None):
        if guidance is None:
            out = self.unet(z, t, context)
        else:
            without, out = self.unet(jt.concat([z, z]), t, context).chunk(2)
            out = without + guidance * (out - without)
        return self.schedule.step(out, z, t, num_steps)

    def generate(
        self,
        prompt: str | list[str],
        seed: int = 0,
        num_steps: int = 50,
        guidance: float = 7.5,
        negative: str = "",
        height: int | None = None,
        width: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        rng: str = NUMPY,
    ) -> jt.Var:
        """Images (B, 3, H, W) in [-1, 1] for one prompt or several; image i has the seed seed + i.

        rng: where the noise of a seed comes from, see jstyle/sd/rng. With "torch-cpu" diffusers,
        given a list of CPU generators with these seeds, starts from the same.
        height, width: default to the size the model was trained at. guidance 1 switches guidance
        (and with it `negative`) off. progress(done, num_steps) is called after every step.
        Raises ValueError for a size, prompt, seed, step count or guidance that cannot be.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts or not all(isinstance(p, str) for p in (*prompts, negative)):
            raise ValueError(f"prompt must be text or a list of texts, got {prompt!r}")
        steps = self.schedule.config.num_train_timesteps
        if not 1 <= num_steps <= steps:
            raise ValueError(f"num_steps must be in 1..{steps}, got {num_steps}")
        if not (np.isfinite(guidance) and guidance >= 0):
            raise ValueError(f"guidance must be a number, at least 0, got {guidance}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        z = self.noise(len(prompts), seed, height, width, rng)
        context = self.encode_text(prompts)
        negative_context = None if guidance == 1.0 else self.encode_text([negative])
        loop = self.denoise(z, context, num_steps, guidance, negative_context)
        for i, (_, step) in enumerate(loop, 1):
            z = step
            if progress is not None:
                progress(i, num_steps)
        return self.decode(z)

    def noise(
        self,
        count: int,
        seed: int,
        height: int | None = None,
        width: int | None = None,
        rng: str = NUMPY,
    ) -> jt.Var:
        """Start latents (count, 4, h, w) for images of height x width pixels, each of its seed."""
        default = self.unet.config.sample_size * self.vae_scale
        height, width = (default if size is None else size for size in (height, width))
        self.check_size(height, width)
        shape = (self.unet.config.in_channels, height // self.vae_scale, width // self.vae_scale)
        return jt.array(np.stack([gaussian(shape, seed + i, rng) for i in range(count)]))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless images of height x width pixels fit the model."""
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % self.size_multiple:
                raise ValueError(f"{name} must be a multiple of {self.size_multiple}, got {size}")


def _stored(folder: Path, part: str, variant: str | None, config) -> tuple[Path, dict]:
    """The weights file of a part and its tensors, unread, whose sizes are the configuration's."""
    path = hub.weight_file(folder, part, variant)
    tensors = weights.read_weights(path)
    require_sizes(part, config, tensors, path)
    return path, tensors


def _rows(context: jt.Var, batch: int) -> jt.Var:
    if context.shape[0] not in (1, batch):
        raise ValueError(f"{context.shape[0]} contexts for {batch} latents; give 1 or {batch}")
    return context if context.shape[0] == batch else context.repeat(batch, 1, 1)


def _copy(source: Path, target: Path) -> None:
    if not (target.exists() and target.samefile(source)):
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
