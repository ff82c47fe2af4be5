"""The numbers of a Stable Diffusion 1.x / 2.x model, and how to read them from its JSON files.

Field names are the keys of the files that diffusers and transformers write, and a key that is
missing from a file takes the default those libraries give it. What the code does not implement is
refused by name when the file is read: a reader that skips `prediction_type` loads happily and
paints noise. Tables follow diffusers 0.42 (UNet2DConditionModel, AutoencoderKL, DDIMScheduler) and
transformers 5 (CLIPTextConfig).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from .config_json import (
    JSONConfig,
    blocks,
    channels,
    flags,
    one_of,
    positive,
    refuse,
    square,
    whole,
)

log = logging.getLogger("jstyle")


@dataclass(frozen=True)
class UNetConfig(JSONConfig):
    """UNet2DConditionModel. Widths and depths run from the outermost level inwards."""

    sample_size: int = 64  # latent pixels; the size pictures are made at when none is asked for
    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention_dim: int = 1280
    num_heads: tuple = (8, 8, 8, 8)  # JSON key "attention_head_dim", which holds head *counts*
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    act_fn: str = "silu"
    upcast_attention: bool = False  # nothing to switch: the soft-max always runs in float32

    CLASS_NAMES: ClassVar = ("UNet2DConditionModel",)
    FIXED: ClassVar = {
        "center_input_sample": (False,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "only_cross_attention": (False,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "dropout": (0,),
        "transformer_layers_per_block": (1,),
        "reverse_transformer_layers_per_block": (None,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "dual_cross_attention": (False,),
        "class_embed_type": (None,),
        "addition_embed_type": (None,),
        "addition_time_embed_dim": (None,),
        "num_class_embeds": (None,),
        "resnet_time_scale_shift": ("default",),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1,),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "projection_class_embeddings_input_dim": (None,),
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "mid_block_only_cross_attention": (None, False),
        "cross_attention_norm": (None,),
    }
    IGNORED: ClassVar = frozenset(
        {"addition_embed_type_num_heads"}  # read only with addition_*
        # what diffusers' EMAModel notes in the configuration of the weights it saves
        | {"decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup"}
        | {"inv_gamma", "power"}
    )

    @classmethod
    def _rename(cls, values: dict) -> dict:
        head_dim = values.pop("attention_head_dim", 8)
        heads = values.pop("num_attention_heads", None)
        key = "attention_head_dim" if heads is None else "num_attention_heads"
        heads = head_dim if heads is None else heads
        levels = values.get("block_out_channels", cls.block_out_channels)
        if isinstance(heads, int) and isinstance(levels, (list, tuple)):
            heads = [heads] * len(levels)
        if not isinstance(heads, (list, tuple)):
            refuse(key, heads, "a head count, or a list of one per level")
        values["num_heads"] = heads
        values["sample_size"] = square(values.get("sample_size"), cls.sample_size)
        flags = values.get("only_cross_attention")
        if isinstance(flags, list) and not any(flags):
            values["only_cross_attention"] = False
        return values

    def _check(self) -> None:
        whole(self, "sample_size", "in_channels", "out_channels", "layers_per_block")
        whole(self, "cross_attention_dim")
        whole(self, "freq_shift", least=0)
        positive(self, "norm_eps")
        flags(self, "use_linear_projection", "flip_sin_to_cos", "upcast_attention")
        one_of("act_fn", self.act_fn, ("silu",))
        channels(self)
        blocks(self, "down_block_types", ("DownBlock2D", "CrossAttnDownBlock2D"))
        blocks(self, "up_block_types", ("UpBlock2D", "CrossAttnUpBlock2D"))
        self._check_heads()

    def _check_heads(self) -> None:
        heads, widths = self.num_heads, self.block_out_channels
        if not isinstance(heads, tuple) or len(heads) != len(widths):
            refuse("attention_head_dim", heads, f"a head count, or a list of {len(widths)}")
        innermost = len(widths) - 1  # the middle block attends with the innermost level's heads
        for i, (count, width) in enumerate(zip(heads, widths, strict=True)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                refuse("attention_head_dim", list(heads), "whole numbers, at least 1")
            blocks = self.down_block_types[i] + self.up_block_types[innermost - i]
            if ("CrossAttn" in blocks or i == innermost) and width % count:
                refuse("attention_head_dim", list(heads), f"head counts that divide {width}")

    def to_json(self) -> dict:
        result = super().to_json()
        result["attention_head_dim"] = result.pop("num_heads")
        return result


@dataclass(frozen=True)
class VAEConfig(JSONConfig):
    """AutoencoderKL. The encoder halves the image len(block_out_channels) - 1 times."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple = ("DownEncoderBlock2D",)
    up_block_types: tuple = ("UpDecoderBlock2D",)
    block_out_channels: tuple = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215  # files older than the key belong to models with this value

    CLASS_NAMES: ClassVar = ("AutoencoderKL",)
    FIXED: ClassVar = {
        "shift_factor": (None,),
        "latents_mean": (None,),
        "latents_std": (None,),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
        "mid_block_add_attention": (True,),
    }
    IGNORED: ClassVar = frozenset({"force_upcast"})  # the VAE always runs in float32

    @classmethod
    def _rename(cls, values: dict) -> dict:
        values["sample_size"] = square(values.get("sample_size"), cls.sample_size)
        return values

    def _check(self) -> None:
        whole(self, "in_channels", "out_channels", "layers_per_block", "latent_channels")
        whole(self, "sample_size")
        positive(self, "scaling_factor")
        one_of("act_fn", self.act_fn, ("silu",))
        channels(self)
        blocks(self, "down_block_types", ("DownEncoderBlock2D",))
        blocks(self, "up_block_types", ("UpDecoderBlock2D",))


@dataclass(frozen=True)
class CLIPTextConfig(JSONConfig):
    """CLIPTextModel. SD 2.x files ship 23 of 24 layers: the last one here is the penultimate."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int | None = 512
    # Token ids matter to pooled outputs only, which nothing here uses; kept for writing back.
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int | None = 49407

    FIXED: ClassVar = {"model_type": ("clip_text_model", "clip", None)}
    ALLOW_UNKNOWN: ClassVar = True  # transformers writes many keys that are not architecture

    @classmethod
    def _rename(cls, values: dict) -> dict:
        nested = values.get("text_config")  # the file of a whole CLIP model
        if isinstance(nested, dict):
            values = {"model_type": values.get("model_type"), **nested}
        if isinstance(values.get("eos_token_id"), list) and values["eos_token_id"]:
            values["eos_token_id"] = values["eos_token_id"][0]
        return values

    def _check(self) -> None:
        whole(self, "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        whole(self, "num_attention_heads", "max_position_embeddings")
        positive(self, "layer_norm_eps")
        one_of("hidden_act", self.hidden_act, ("quick_gelu", "gelu"))
        if self.hidden_size % self.num_attention_heads:
            supported = f"head counts that divide hidden_size = {self.hidden_size}"
            refuse("num_attention_heads", self.num_attention_heads, supported)

    def to_json(self) -> dict:
        return {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            **super().to_json(),
        }


@cache
def _tell_once(line: str) -> None:
    """Files are looked at before a model is loaded, and when it is."""
    log.warning("%s", line)


@dataclass(frozen=True)
class ScheduleConfig(JSONConfig):
    """The noise schedule in scheduler_config.json, whichever sampler that file names.

    Keys that shape a sampler are ignored here (samplers/own.py reads them), and missing keys take
    DDIMScheduler's defaults. The exceptions are those of diffusers' own pipeline, for files of
    2022: `steps_offset` is 1 and `clip_sample` false, whatever a file says (`from_json` tells).
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False  # arXiv:2305.08891

    CLASS_NAMES: ClassVar = (
        "DDIMScheduler",
        "PNDMScheduler",
        "DDPMScheduler",
        "DDIMInverseScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
        "UniPCMultistepScheduler",
        "LCMScheduler",
        "DPMSolverSDEScheduler",
    )
    FIXED: ClassVar = {
        "clip_sample": (False,),
        "trained_betas": (None,),
        "thresholding": (False,),
        "timestep_type": ("discrete",),
        "use_flow_sigmas": (False, None),
        "use_dynamic_shifting": (False,),
    }
    IGNORED: ClassVar = frozenset(
        "clip_sample_range dynamic_thresholding_ratio sample_max_value skip_prk_steps "
        "variance_type interpolation_type use_karras_sigmas use_exponential_sigmas "
        "use_beta_sigmas use_lu_lambdas sigma_min sigma_max final_sigmas_type solver_order "
        "solver_type solver_p algorithm_type lower_order_final euler_at_final lambda_min_clipped "
        "flow_shift time_shift_type predict_x0 disable_corrector shift_terminal "
        "original_inference_steps timestep_scaling noise_sampler_seed".split()
    )

    @classmethod
    def from_json(cls, values: dict, where: object = "config") -> ScheduleConfig:
        """See JSONConfig; old files are put right as diffusers' StableDiffusionPipeline does."""
        if isinstance(values, dict):
            changed = {"steps_offset": 1}
            if values.get("clip_sample") is True:
                changed["clip_sample"] = False
            changes = [
                f"{key} = {values[key]} is read as {value}"
                if key in values
                else f"without {key}, {value} is taken"
                for key, value in changed.items()
                if values.get(key) != value
            ]
            if changes:
                _tell_once(f"{where}: an old file; {', '.join(changes)}, as diffusers does")
            values = {**values, **changed}
        return super().from_json(values, where)

    def to_json(self) -> dict:
        result = super().to_json()
        if not self.rescale_betas_zero_snr:  # files of plain schedules stay as they were
            del result["rescale_betas_zero_snr"]
        return result

    def _check(self) -> None:
        whole(self, "num_train_timesteps", least=2 if self.rescale_betas_zero_snr is True else 1)
        whole(self, "steps_offset", least=0)
        positive(self, "beta_start", "beta_end")
        flags(self, "set_alpha_to_one", "rescale_betas_zero_snr")
        one_of("beta_schedule", self.beta_schedule, ("scaled_linear", "linear"))
        one_of("prediction_type", self.prediction_type, ("epsilon", "v_prediction", "sample"))
        one_of("timestep_spacing", self.timestep_spacing, ("leading", "trailing", "linspace"))
        if not self.beta_start <= self.beta_end < 1:
            supported = f"from beta_start = {self.beta_start} to below 1"
            refuse("beta_end", self.beta_end, supported)


def check_together(unet: UNetConfig, vae: VAEConfig, text: CLIPTextConfig) -> None:
    """Raise ConfigError unless the three parts fit into one text-to-image model.

    Inpainting, depth and upscaling checkpoints fail here: their UNet reads extra channels.
    """
    latent = vae.latent_channels
    for key in ("in_channels", "out_channels"):
        if getattr(unet, key) != latent:
            supported = f"{latent}, the latent_channels of the VAE"
            refuse(f"unet: {key}", getattr(unet, key), supported)
    if unet.cross_attention_dim != text.hidden_size:
        supported = f"{text.hidden_size}, the hidden_size of the text encoder"
        refuse("unet: cross_attention_dim", unet.cross_attention_dim, supported)
