"""TrainConfig: the options of one training run, checked when they are given.

Loads no backbone, so a command line can show its help without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from jstyle.sd import limits
from jstyle.sd.hub import PREDICTIONS, Source
from jstyle.sd.prompts.parse import (
    PLAIN,
    SYNTAXES,
    WEBUI,
    PromptError,
    parse,
    parse_caption,
)
from jstyle.sd.rng import NUMPY, RNGS
from jstyle.sd.samplers import check_sampler
from jstyle.sd.samplers.options import FIELDS, check_steps, without_usual

from .recipe import Recipe
from .trainables import TRAINABLES, WITH_TEXT_ENCODER

TARGETS = ("attention", "feed-forward", "convolutions")
SCHEDULES = ("constant", "linear", "cosine")
CASES = ("keep", "lower")
TEMPLATE, SIDECAR, METADATA, AUTO = CAPTION_SOURCES = ("template", "sidecar", "metadata", "auto")
PRECISIONS = ("float32", "float16")
DEVICES = ("auto", "cpu", "cuda")
OF_ONE_FILE = ("prediction", "tokenizer")  # of models in one file; others are silent about them
OF_THE_CALL = frozenset(("out", "resume"))  # where a run is, and how it was started
PLACES = frozenset(("instance_dir", "captions", "class_dir"))  # what is there counts, not where
# What moves no trained number: none of it is in what a run saves.
NOT_SHAPING = frozenset(
    ("device", "save_at", "checkpoint_every", "keep_checkpoints")
    + ("sample_every", "sample_prompts", "sample_steps", "sample_guidance")
    + (*OF_THE_CALL, *PLACES)
)
# What may differ between a run and its continuation. What is in the places is compared itself, and
# so are the class pictures, all that the last ones could change.
FREE_ON_RESUME = NOT_SHAPING | {"rng", "sampler", "sigmas", "eta", "rescale"}


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run. Defaults: a style LoRA as contestants train it.

    Args:
        instance_dir: Folder with the pictures to learn; or a folder of folders like "10_sks fox",
            whose pictures are drawn ten times where those of "1_..." are drawn once.
        out: Folder of the run; everything is written there.
        model: "tiny" (shipped), a folder in diffusers format, a .safetensors or .ckpt file of
            Stable Diffusion 1.x or 2.x, "sd21", or a hub id "owner/name".
        variant: Of the weight files, such as fp16.
        prediction: Of a model in one file that does not say: "v" or "epsilon".
        tokenizer: For a model in one file: a folder with vocab.json and merges.txt, or a hub id.
        device: "cpu", "cuda", or "auto": cuda where Jittor can use it.
        instance_prompt: The caption of every picture. "{stem}" stands for the file's name without
            suffix, underscores as spaces and trailing ones dropped: "{stem} in style_05".
        captions: Where captions are from. "template": the instance prompt, which is also the
            default. "sidecar": NAME.txt beside NAME.png. "metadata": metadata.jsonl in the folder
            (a {"file_name", "text"} object per line). "auto": for each picture the first of these
            that there is: metadata, sidecar, the instance prompt, the words of a folder called
            "10_words". Else a file with them all: captions.jsonl (a {"file", "caption"} object per
            line) or captions.txt (a file name, a tab and the caption per line).
        caption_case: "keep" or "lower" the letters of the captions.
        size_px: Side of the training pictures. Not given means the size the model was trained on.
        random_crops: Encode that many random crops of each picture, 8/9 of its shorter side
            wide, instead of the centre crop (0).
        random_flip: Also train on the mirrored pictures, half of the time.
        skip_bad_images: Leave out files that are no pictures, with a warning, instead of stopping.
        train: What is trained: "lora", "full" (the UNet), "kv" (keys and values of its
            cross-attention), or its "up" or "down" blocks.
        train_text_encoder: Train the text encoder in the same way, for "lora" and "full".
        rank: Rank of the LoRA.
        alpha: The LoRA is scaled by alpha / rank. Not given means the rank.
        targets: Layers that get a LoRA: "attention", "feed-forward" (and attention), or
            "convolutions" (and all of these).
        prior_weight: Weight of the loss on pictures of the class, above 0 for prior preservation.
        class_prompt: What pictures of the class show: one text, or a list of them.
        class_dir: Folder of the class pictures; missing ones are generated there. Not given
            means the folder "class" of the run.
        num_class_images: How many class pictures there should be.
        class_steps: Sampling steps of generated class pictures.
        class_guidance: Guidance of generated class pictures.
        min_snr_gamma: Weigh the loss by min(SNR, gamma), 5 in arXiv:2303.09556. Not given: off.
        offset_noise: Amount of noise that is the same over a whole channel, 0.1 for example.
        caption_dropout: Chance that a picture is shown with the empty caption.
        steps: Optimiser steps.
        save_at: Steps at which a usable result is written, "250,500,1000"; the last step always.
        batch: Pictures per forward pass (as many again of the class), of every process if mpirun
            starts several.
        accumulation: Forward passes per optimiser step.
        learning_rate: Peak rate of AdamW.
        text_learning_rate: The text encoder's rate. Not given means the same.
        lr_schedule: "constant", or after the warm-up down to 0: "linear" or "cosine".
        warmup_steps: Steps over which the rate rises to its peak.
        weight_decay: Decoupled weight decay of AdamW.
        max_grad_norm: Gradients are scaled down to this joint norm. 0 switches it off.
        ema_decay: Keep a moving average of what is trained and save that, 0.999 for example.
        gradient_checkpointing: Recompute blocks in the backward pass: slower, less memory.
        precision: What the UNet computes in while it is trained: "float32", or "float16" on CUDA.
            What is trained stays float32.
        seed: Of the noise, timesteps, order of the pictures and the LoRA.
        rng: Whose noise a seed gives where pictures are painted (samples, class pictures):
            "numpy", "torch-cpu" or "torch-cuda". Training's own noise is NumPy's.
        sampler: With which samples and class pictures are painted, see `jstyle generate --help`.
            Not given means the model's own.
        sigmas: Their noise levels, "karras" or "exponential", where the sampler admits them.
        eta: Their fresh noise per step, 0 to 1, where the sampler has that freedom.
        rescale: Their rescaled guidance, 0 (off) to 1.
        syntax: How all prompts and captions are read, "plain" or "webui", see `jstyle generate
            --help`. Captions, the class prompt's too, can have (weights:1.3) and BREAK.
        clip_skip: Which layer of the text encoder is read, in training and for pictures, counted
            from the end: 1 is the last.
        sample_every: Draw the sample prompts before the first step and every so many steps. Not
            given: never.
        sample_prompts: Prompts of the samples, one text or a list. Not given: the first captions.
        sample_steps: Sampling steps of the samples.
        sample_guidance: Guidance of the samples.
        checkpoint_every: Write a state to resume from every so many steps. 0: only at the end.
        keep_checkpoints: How many of them are kept.
        resume: "auto" goes on from the newest whole checkpoint of the run, if there is one; or
            the folder of a checkpoint.

    Raises ValueError naming the option, its value and what is allowed.
    """

    instance_dir: str
    out: str
    model: str = "tiny"
    variant: str | None = None
    prediction: str | None = None
    tokenizer: str | None = None
    device: str = "auto"
    instance_prompt: str | None = None
    captions: str | None = None
    caption_case: str = "keep"
    size_px: int | None = None
    random_crops: int = 0
    random_flip: bool = False
    skip_bad_images: bool = False
    train: str = "lora"
    train_text_encoder: bool = False
    rank: int = 16
    alpha: float | None = None
    targets: str = "attention"
    prior_weight: float = 0.0
    class_prompt: str | list[str] | None = None
    class_dir: str | None = None
    num_class_images: int = 100
    class_steps: int = 50
    class_guidance: float = 7.5
    min_snr_gamma: float | None = None
    offset_noise: float = 0.0
    caption_dropout: float = 0.0
    steps: int = 500
    save_at: str | list[int] | None = None
    batch: int = 1
    accumulation: int = 1
    learning_rate: float = 1e-4
    text_learning_rate: float | None = None
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    gradient_checkpointing: bool = False
    precision: str = "float32"
    seed: int = 0
    rng: str = NUMPY
    sampler: str | None = None
    sigmas: str | None = None
    eta: float = 0.0
    rescale: float = 0.0
    syntax: str = PLAIN
    clip_skip: int = 1
    sample_every: int | None = None
    sample_prompts: str | list[str] | None = None
    sample_steps: int = 25
    sample_guidance: float = 7.5
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    resume: str | None = None

    def __post_init__(self):
        for name in ("class_prompt", "sample_prompts"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for field in fields(self):
            check = _CHECKS.get(field.name)
            value = getattr(self, field.name)
            if check is not None and not (value is None and field.default is None):
                if not check.holds(value):
                    raise ValueError(
                        f"{field.name} must be {check.told}, got {limits.shown(value)}"
                    )
        object.__setattr__(self, "save_at", _counts(self.save_at, self.steps))
        self._check_together()

    @property
    def save_steps(self) -> list[int]:
        """save_at as it is after the checks: numbers, ascending."""
        return self.save_at  # type: ignore[return-value]

    def recipe(self, steps: int, guidance: float) -> Recipe:
        """How samples or class pictures are painted."""
        how = {name: getattr(self, name) for name in FIELDS if name not in ("steps", "guidance")}
        return Recipe(seed=self.seed, steps=steps, guidance=guidance, **how)

    def _check_together(self) -> None:
        check_sampler(self.sampler, self.sigmas, self.eta)
        if self.sample_every is not None:
            check_steps("sample_steps", self.sample_steps, self.sampler)
        if self.prior_weight > 0:
            check_steps("class_steps", self.class_steps, self.sampler)
        self._check_captions()
        if self.syntax == WEBUI:
            self._check_prompts()
        if self.prior_weight > 0 and not self.class_prompt:
            raise ValueError(f"prior_weight = {self.prior_weight} needs a class_prompt")
        if self.train_text_encoder and self.train not in WITH_TEXT_ENCODER:
            allowed = " or ".join(WITH_TEXT_ENCODER)
            raise ValueError(f"train_text_encoder needs train = {allowed}, got {self.train!r}")
        if self.text_learning_rate is not None and not self.train_text_encoder:
            raise ValueError("text_learning_rate needs train_text_encoder")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be below steps = {self.steps}, got {self.warmup_steps}"
            )

    def _check_captions(self) -> None:
        by_prompt = self.captions in (None, TEMPLATE)
        if by_prompt and self.instance_prompt is None:
            raise ValueError("give either instance_prompt or captions")
        if not by_prompt and self.captions != AUTO and self.instance_prompt is not None:
            raise ValueError(
                f"captions = {self.captions!r} and instance_prompt: give only one of them, or "
                f"captions = {AUTO!r}, which takes the prompt where a picture has no caption"
            )

    def _check_prompts(self) -> None:
        own = [] if self.instance_prompt is None else [self.instance_prompt]
        captions = {"instance_prompt": own, "class_prompt": self.class_prompt or ()}
        given = [(name, text) for name, texts in captions.items() for text in texts]
        for name, text in [*given, *(("sample_prompts", p) for p in self.sample_prompts or ())]:
            try:
                parse_caption(text) if name in captions else parse(text)
            except PromptError as error:
                raise PromptError(f"{name}: {error}") from None

    def to_json(self) -> dict:
        """Every option by name; `TrainConfig(**json)` gives the same configuration back."""
        found = without_usual(asdict(self))
        return {n: v for n, v in found.items() if not (n in OF_ONE_FILE and v is None)}

    @property
    def source(self) -> Source:
        """The model that is trained."""
        return Source(self.model, self.variant, self.prediction, self.tokenizer)

    def of_run(self) -> dict:
        """The options that stay the same if the run is moved, stopped and continued."""
        return {name: v for name, v in self.to_json().items() if name not in OF_THE_CALL}

    def shaping(self) -> dict:
        """The options that the trained numbers depend on."""
        return {name: v for name, v in self.to_json().items() if name not in NOT_SHAPING}

    def differences(self, saved: dict) -> list[str]:
        """Options that differ from those of a saved run and may not, as "name: old -> new"."""
        free = FREE_ON_RESUME | ({"steps"} if self.lr_schedule == "constant" else set())
        mine = self.to_json()
        return [
            f"{name}: {saved.get(name)!r} -> {mine.get(name)!r}"
            for name in sorted(mine.keys() | saved.keys())
            if name not in free and saved.get(name) != mine.get(name)
        ]


@dataclass(frozen=True)
class _Check:
    told: str
    holds: Callable[[Any], bool]


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)


def _whole(least: int, most: int) -> _Check:
    told = f"an integer {limits.told(least, most)}"
    return _Check(told, lambda v: limits.is_whole(v, least, most))


def _one_of(names: Iterable[str]) -> _Check:
    return _Check(f"one of {', '.join(names)}", lambda v: v in names)


_TEXT = _Check("text that is not empty", lambda v: isinstance(v, str) and v.strip() != "")
_SWITCH = _Check("true or false", lambda v: isinstance(v, bool))
_NUMBER = _Check("a finite number", _is_number)
_ABOVE_0 = _Check("a finite number above 0", lambda v: _is_number(v) and v > 0)
_AT_LEAST_0 = _Check("a finite number, at least 0", lambda v: _is_number(v) and v >= 0)
_BELOW_1 = _Check("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1)
_SHARE = _Check("a number in [0, 1]", lambda v: _is_number(v) and 0 <= v <= 1)
_CHECKS = {
    **dict.fromkeys(("instance_dir", "out", "model", "variant"), _TEXT),
    **dict.fromkeys(("instance_prompt", "captions", "class_dir", "resume"), _TEXT),
    **dict.fromkeys(("random_flip", "skip_bad_images", "train_text_encoder"), _SWITCH),
    "gradient_checkpointing": _SWITCH,
    "prediction": _one_of(PREDICTIONS),
    "tokenizer": _TEXT,
    "device": _one_of(DEVICES),
    "precision": _one_of(PRECISIONS),
    "rng": _one_of(RNGS),
    "caption_case": _one_of(CASES),
    "syntax": _one_of(SYNTAXES),
    "clip_skip": _whole(1, limits.TEXT_LAYERS),
    "train": _one_of(TRAINABLES),
    "targets": _one_of(TARGETS),
    "lr_schedule": _one_of(SCHEDULES),
    "size_px": _whole(8, limits.SIDE_PX),
    "rank": _whole(1, limits.RANK),
    "num_class_images": _whole(1, limits.PICTURES),
    "random_crops": _whole(0, limits.PER_PICTURE),
    "seed": _whole(0, limits.SEED),
    **dict.fromkeys(("class_steps", "sample_steps"), _whole(1, limits.SAMPLING_STEPS)),
    **dict.fromkeys(("batch", "accumulation"), _whole(1, limits.TOGETHER)),
    **dict.fromkeys(("steps", "sample_every"), _whole(1, limits.TRAINING_STEPS)),
    **dict.fromkeys(("warmup_steps", "checkpoint_every"), _whole(0, limits.TRAINING_STEPS)),
    "keep_checkpoints": _whole(1, limits.TRAINING_STEPS),
    **dict.fromkeys(("alpha", "min_snr_gamma", "learning_rate"), _ABOVE_0),
    "text_learning_rate": _ABOVE_0,
    **dict.fromkeys(("prior_weight", "offset_noise"), _AT_LEAST_0),
    **dict.fromkeys(("weight_decay", "max_grad_norm"), _AT_LEAST_0),
    **dict.fromkeys(("class_guidance", "sample_guidance"), _NUMBER),
    **dict.fromkeys(("eta", "rescale"), _SHARE),
    "ema_decay": _BELOW_1,
    "caption_dropout": _SHARE,
}


def _texts(name: str, value) -> list[str] | None:
    """One text or a list of them -> a list; None stays."""
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else list(value)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be text or a list of texts, got {value!r}")
    return texts


def _counts(value, steps: int) -> list[int]:
    """Steps at which results are written, ascending, the last step included."""
    try:
        if value is None:
            counts = []
        else:
            parts = value.split(",") if isinstance(value, str) else value
            counts = [int(part) for part in parts]
    except (TypeError, ValueError):
        raise ValueError(f'save_at must be like "250,500,1000", got {value!r}') from None
    wrong = [count for count in counts if not 1 <= count <= steps]
    if wrong:
        raise ValueError(f"save_at must be in 1..{steps} (steps), got {wrong[0]}")
    return sorted({*counts, steps})
