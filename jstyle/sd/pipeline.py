"""StableDiffusion: the four parts of a model together, and what they do together.

Text to context, pixels to latents and back, and walks over noise levels, of which denoiser.py has
the guidance, samplers/ the steps and sampling.py the loops. Latents are always scaled by the VAE's
scaling_factor. Layout NCHW, float32.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import half, hub, image, model_folder, runtime, samplers, sampling, single_file, weights
from .clip import CLIPTextModel
from .config import CLIPTextConfig, UNetConfig, VAEConfig, check_together
from .denoiser import Condition, Denoiser
from .files import atomic_write, write_json
from .image import require_finite
from .noise import InjectedNoise, gaussian
from .number_types import FLOAT32, resolved_dtype
from .prompts import PLAIN, conditioning
from .prompts.captions import caption_rows, encode_captions
from .prompts.conditioning import Conditioning
from .rng import NUMPY
from .samplers.options import Sampling
from .samplers.own import Own, own
from .schedule import Schedule
from .sizes import require_sizes
from .startup import jt
from .tokenizer import Tokenizer
from .unet import UNet2DConditionModel
from .vae import AutoencoderKL

log = logging.getLogger("jstyle")

PARTS: dict[
    str, tuple[Any, Any]
] = {  # component -> how to read its configuration, the module it describes
    "unet": (UNetConfig, UNet2DConditionModel),
    "vae": (VAEConfig, AutoencoderKL),
    "text_encoder": (CLIPTextConfig, CLIPTextModel),
}
HALF_ON_CUDA = ("unet", "text_encoder")  # compute in half precision there, with --dtype float16
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
        own_sampler: Own | None = None,
    ):
        """tokenizer_folder: where `save_pretrained` copies the tokenizer's files from.
        own_sampler: what the model's scheduler file asks for; None: DDIM.

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
        self.own_sampler = own_sampler or own(schedule.config.to_json())

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | hub.Source,
        variant: str | None = None,
        progress: bool = False,
        dtype: str = FLOAT32,
    ) -> StableDiffusion:
        """Load a model: "tiny", a folder in diffusers format, "sd21", a hub id "owner/name", or a
        hub.Source that names a single file and its tokenizer.

        variant: such as "fp16", for weight files named so. progress: show a bar over the parts.
        dtype: in which weights are kept, of number_types.py: of which half.py tells what it means.
        Raises HubError, ConfigError or WeightsError (all ValueErrors) in one line.
        """
        source, dtype = hub.as_source(source, variant), resolved_dtype(dtype, runtime.device())
        found = (single_file if source.is_file else model_folder).find(source)
        configs = found.configs
        schedule = Schedule(configs["scheduler"])
        check_together(*(configs[part] for part in PARTS))
        for part in PARTS:
            require_sizes(part, configs[part], *found.weights[part])
        longest = configs["text_encoder"].max_position_embeddings
        tokenizer = Tokenizer.from_folder(found.tokenizer, longest, found.pad_token)
        _require_tokens(tokenizer, found)
        modules = {}
        for line in found.notes:
            log.warning("%s: %s", source, line)
        for part in tqdm(PARTS, "loading", unit="part", disable=not progress):
            modules[part] = PARTS[part][1](configs[part])
            tensors, path = found.weights[part]
            with half.kept_in(dtype, used=bool(jt.flags.use_cuda) and part in HALF_ON_CUDA):
                report = weights.load_strict(modules[part], tensors, where=path)
            modules[part].eval()
            log.info("%s: %s", path, report)
        return cls(
            **modules,
            tokenizer=tokenizer,
            schedule=schedule,
            name=str(source),
            tokenizer_folder=found.tokenizer,
            own_sampler=None if found.scheduler is None else own(found.scheduler),
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
        if self.tokenizer.own_pad:
            for source in sorted(self.tokenizer_folder.iterdir()):
                if source.suffix in (".json", ".txt"):
                    _copy(source, folder / "tokenizer" / source.name)
        else:
            self.tokenizer.save(folder / "tokenizer")
        write_json(folder / "model_index.json", MODEL_INDEX)

    @property
    def vae_scale(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def picture_size(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return self.unet.config.sample_size * self.vae_scale

    @property
    def size_multiple(self) -> int:
        """Heights and widths of images must be multiples of this: every level halves evenly."""
        return self.vae_scale * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def load_image(self, path: str | PathLike, size_px: int | None = None) -> np.ndarray:
        """Read an image file, (1, 3, S, S) in [-1, 1] with S = size_px or the model's own."""
        size_px = self.picture_size if size_px is None else size_px
        self.check_size(size_px, size_px)
        return image.load(path, size_px=size_px)

    def encode_text(self, prompts: list[str], clip_skip: int = 1) -> jt.Var:
        """Prompts -> context (B, tokens, D) for the UNet; longer prompts are cut with a warning.

        clip_skip: which layer of the text encoder is read, counted from the end.
        """
        with jt.no_grad():
            return self.text_encoder(self.tokenizer(prompts), clip_skip)

    def encode_captions(self, captions: Sequence[str], how: Sampling) -> jt.Var:
        """What pictures show -> context (captions, tokens, D): the same for all steps.

        how: its syntax and clip_skip count here. Raises PromptError for a text that changes with
        the steps, or has several parts.
        """
        rows = [caption_rows(text, self.tokenizer, how.syntax) for text in captions]
        with jt.no_grad():
            return encode_captions(self.text_encoder, rows, how.clip_skip or 1)

    def condition(
        self,
        prompts: Sequence[str],
        negative: str,
        how: Sampling,
        plan: samplers.Plan,
        start: int = 0,
    ) -> tuple[jt.Var | Conditioning, jt.Var | Conditioning | None]:
        """context and negative_context for `sample`: of these prompts, and of what guidance leads
        away from, None where it is off. how: its guidance, syntax and clip_skip count here.

        plan: of the walk, from step `start` on: the steps that brackets count.
        Raises PromptError for a prompt that cannot be read, ValueError for one that changes with
        the steps of a sampler that chooses their number.
        """
        skip = how.clip_skip or 1
        if how.syntax in (None, PLAIN):
            context = self.encode_text(list(prompts), skip)
            return context, None if how.guidance == 1.0 else self.encode_text([negative], skip)
        steps = max(1, len(plan.levels.steps) - start)
        made = conditioning.condition(self, prompts, steps, skip)
        against = None
        if how.guidance != 1.0 or made.composed:
            against = conditioning.condition(self, [negative], steps, skip, negative=True)
        if plan.evaluations is None and any(c is not None and c.changes for c in (made, against)):
            raise ValueError(
                f"sampler {plan.name} chooses its steps itself, so a prompt cannot change with "
                "them; take another sampler"
            )
        return made, against

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
        """Latents (B, 4, h, w) -> images (B, 3, H, W), clipped to [-1, 1].

        Raises ValueError for latents, or an output of the autoencoder, that are not finite:
        clipping would make a colour of NaN.
        """
        if not np.isfinite(z.numpy()).all():
            raise ValueError("the latents hold values that are not finite (NaN or infinity)")
        with jt.no_grad():
            decoded = self.vae.decode(z / self.vae.config.scaling_factor)
            require_finite(decoded.numpy())
            return decoded.clamp(-1.0, 1.0)

    def plan(
        self,
        num_steps: int,
        sampler: str | None = None,
        sigmas: str | None = None,
        eta: float = 0.0,
    ) -> samplers.Plan:
        """The noise levels and steps of a sampler; None: the model's own, from its scheduler file.

        Raises ValueError for what the sampler or the schedule does not admit.
        """
        schedule, spacing = self.schedule, None
        if sampler is None:
            sampler, own_sigmas, spacing, _, silent = self.own_sampler
            sigmas = own_sigmas if sigmas is None else sigmas
            if silent:
                schedule = Schedule(replace(schedule.config, **silent))
        return samplers.plan(schedule, sampler, num_steps, sigmas, eta, spacing)

    def resolved(self, how: Sampling) -> Sampling:
        """`how` with the sampler named, where it left that to the model: for records."""
        if how.sampler is not None:
            return how
        return replace(
            how, sampler=self.own_sampler.sampler, sigmas=how.sigmas or self.own_sampler.sigmas
        )

    def sample(
        self,
        z: jt.Var,
        context: jt.Var | Conditioning,
        num_steps: int,
        *,
        sampler: str | None = "ddim",
        sigmas: str | None = None,
        eta: float = 0.0,
        guidance: float = 1.0,
        negative_context: jt.Var | Conditioning | None = None,
        rescale: float = 0.0,
        noise: Callable | None = None,
        start: int = 0,
        beside: Callable | None = None,
        conditions: Sequence[Condition] = (),
        evaluated: Callable[[], object] = lambda: None,
    ) -> Iterator[tuple[float, jt.Var]]:
        """Sampling: yield (t, z) after each step, z one level below t. Waits per step.

        z: (B, 4, h, w) standard normal, or latents at the level of step `start`. sampler, sigmas,
        eta: see `plan`. noise(i, shape): the i-th noise that a stochastic sampler injects; None:
        that of the seeds 0, 1, ... evaluated(): called for every evaluation of the network that a
        step took. context, guidance, negative_context, rescale, beside, conditions: see
        Denoiser.
        """
        plan = self.plan(num_steps, sampler, sigmas, eta)
        denoiser = Denoiser(self, context, guidance, negative_context, rescale, beside, conditions)
        drawn = InjectedNoise(range(z.shape[0])) if noise is None else noise
        injected = lambda i, shape: jt.array(drawn(i, shape))  # noqa: E731
        return sampling.sample(denoiser, plan, z, injected, start, evaluated)

    def invert(
        self, z: jt.Var, context: jt.Var, num_steps: int, sampler: str = "ddim"
    ) -> Iterator[tuple[float, jt.Var]]:
        """Inversion of z (B, 4, h, w), a clean scaled latent: yield (t, z at level t) per step,
        from the clean end. context: (B, tokens, D), usually of the empty prompt.

        Raises ValueError for a sampler that cannot be inverted.
        """
        return sampling.invert(Denoiser(self, context), self.plan(num_steps, sampler), z)

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
        sampler: str | None = None,
        sigmas: str | None = None,
        eta: float = 0.0,
        rescale: float = 0.0,
        syntax: str | None = None,
        clip_skip: int | None = None,
    ) -> jt.Var:
        """Images (B, 3, H, W) in [-1, 1] for one prompt or several; image i has the seed seed + i.

        rng: where the noise of a seed comes from, see jstyle/sd/rng. With "torch-cpu" diffusers,
        given a list of CPU generators with these seeds, starts from the same.
        height, width: default to the size the model was trained at. guidance 1 switches guidance
        (and with it `negative`) off, but for prompts with AND. syntax, clip_skip: see `condition`.
        progress(done, all) counts evaluations of the network, of
        which a step may take several; all is None where the sampler chooses its steps.
        sampler, sigmas, eta: see `plan`. rescale: see Denoiser.
        Raises ValueError for a size, prompt, seed, step count or guidance that cannot be.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts or not all(isinstance(p, str) for p in (*prompts, negative)):
            raise ValueError(f"prompt must be text or a list of texts, got {prompt!r}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        how = Sampling(num_steps, guidance, sampler, sigmas, eta, rescale, rng, syntax, clip_skip)
        z = self.noise(len(prompts), seed, height, width, rng)
        plan = self.plan(num_steps, sampler, sigmas, eta)
        context, negative_context = self.condition(prompts, negative, how, plan)
        noise = InjectedNoise(range(seed, seed + len(prompts)), rng)
        options = {**how.walk(), "negative_context": negative_context, "noise": noise}
        done, total = count(1), plan.evaluations
        if progress is not None:
            options["evaluated"] = lambda: progress(next(done), total)
        return self.decode(sampling.last(self.sample(z, context, num_steps, **options), z))

    def noise(
        self,
        count: int,
        seed: int,
        height: int | None = None,
        width: int | None = None,
        rng: str = NUMPY,
    ) -> jt.Var:
        """Start latents (count, 4, h, w) for images of height x width pixels, each of its seed."""
        height, width = (self.picture_size if size is None else size for size in (height, width))
        self.check_size(height, width)
        shape = (self.unet.config.in_channels, height // self.vae_scale, width // self.vae_scale)
        return jt.array(np.stack([gaussian(shape, seed + i, rng) for i in range(count)]))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless images of height x width pixels fit the model."""
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % self.size_multiple:
                raise ValueError(f"{name} must be a multiple of {self.size_multiple}, got {size}")


def _require_tokens(tokenizer: Tokenizer, found: model_folder.Found) -> None:
    """A tokenizer that was given beside a model must be its own."""
    there, wanted = len(tokenizer), found.configs["text_encoder"].vocab_size
    if found.pad_token is not None and there != wanted:
        raise hub.HubError(
            f"{found.tokenizer}: a tokenizer of {there} tokens, and the model has {wanted}; "
            "give --tokenizer with its own"
        )


def _copy(source: Path, target: Path) -> None:
    if not (target.exists() and target.samefile(source)):
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
