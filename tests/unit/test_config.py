"""The JSON files of the published models are read; what is not implemented is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from jstyle.sd.config import (
    CLIPTextConfig,
    ScheduleConfig,
    UNetConfig,
    VAEConfig,
    check_together,
)
from jstyle.sd.config_json import ConfigError
from jstyle.sd.samplers.own import CLASSES, NEAREST

DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3

# The files of SD 1.4 and 1.5, as published with diffusers 0.2 .. 0.6: few keys.
UNET_1X = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": DOWN,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": UP,
}
VAE_1X = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_1X = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.21.0.dev0",
    "vocab_size": 49408,
}
SCHEDULE_1X = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

# SD 2.0-base (epsilon) and SD 2.1 at 768 (v).
UNET_20_BASE = {
    **UNET_1X,
    "_diffusers_version": "0.8.0",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "use_linear_projection": True,
}
UNET_21 = {
    **UNET_20_BASE,
    "_diffusers_version": "0.10.0.dev0",
    "num_class_embeds": None,
    "sample_size": 96,
    "upcast_attention": True,
}
TEXT_2X = {
    **TEXT_1X,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
    "transformers_version": "4.25.0.dev0",
}
SCHEDULE_20_BASE = {**SCHEDULE_1X, "_diffusers_version": "0.8.0", "prediction_type": "epsilon"}
SCHEDULE_21 = {
    **SCHEDULE_1X,
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "prediction_type": "v_prediction",
}

# The same model saved again by diffusers 0.42 and transformers 5: every key is written out.
UNET_NEW = {
    **UNET_21,
    "_diffusers_version": "0.42.0",
    "_name_or_path": "somewhere/unet",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
}
VAE_NEW = {
    **VAE_1X,
    "_diffusers_version": "0.42.0",
    "force_upcast": True,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
TEXT_NEW = {k: v for k, v in TEXT_2X.items() if k not in ("torch_dtype", "dropout")} | {
    "dtype": "float16",
    "transformers_version": "5.0.0",
}
SCHEDULE_NEW = {
    **SCHEDULE_21,
    "_diffusers_version": "0.42.0",
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "thresholding": False,
    "timestep_spacing": "leading",
}
ALL_FILES = {
    UNetConfig: (UNET_1X, UNET_20_BASE, UNET_21, UNET_NEW),
    VAEConfig: (VAE_1X, VAE_NEW),
    CLIPTextConfig: (TEXT_1X, TEXT_2X, TEXT_NEW),
    ScheduleConfig: (SCHEDULE_1X, SCHEDULE_20_BASE, SCHEDULE_21, SCHEDULE_NEW),
}
EVERY_FILE = [(cls, values) for cls, files in ALL_FILES.items() for values in files]


@pytest.mark.parametrize("cls, values", EVERY_FILE)
def test_published_files_are_read_and_their_numbers_kept(cls, values):
    config = cls.from_json(values)
    for field in dataclasses.fields(config):
        if field.name in values:
            written, read = values[field.name], getattr(config, field.name)
            assert read == (tuple(written) if isinstance(written, list) else written)


@pytest.mark.parametrize("cls, values", EVERY_FILE)
def test_a_written_config_is_read_back_equal(cls, values):
    config = cls.from_json(values)
    assert cls.from_json(config.to_json()) == config
    assert hash(config) == hash(cls.from_json(values))


def test_old_and_new_files_of_one_model_give_one_config():
    assert UNetConfig.from_json(UNET_NEW) == UNetConfig.from_json(UNET_21)
    assert ScheduleConfig.from_json(SCHEDULE_NEW) == ScheduleConfig.from_json(SCHEDULE_21)
    assert CLIPTextConfig.from_json(TEXT_NEW) == CLIPTextConfig.from_json(TEXT_2X)


def test_attention_head_dim_holds_head_counts():
    assert UNetConfig.from_json(UNET_1X).num_heads == (8, 8, 8, 8)
    assert UNetConfig.from_json(UNET_21).num_heads == (5, 10, 20, 20)
    assert UNetConfig.from_json(UNET_1X | {"num_attention_heads": 4}).num_heads == (4, 4, 4, 4)


def test_models_differ_where_their_files_do():
    assert not UNetConfig.from_json(UNET_1X).use_linear_projection
    assert UNetConfig.from_json(UNET_21).use_linear_projection
    assert ScheduleConfig.from_json(SCHEDULE_1X).prediction_type == "epsilon"
    assert ScheduleConfig.from_json(SCHEDULE_21).prediction_type == "v_prediction"
    assert ScheduleConfig.from_json(SCHEDULE_1X).set_alpha_to_one is False


def test_missing_keys_take_the_defaults_of_the_library():
    assert VAEConfig.from_json(VAE_1X).scaling_factor == 0.18215
    schedule = ScheduleConfig.from_json({"_class_name": "DDIMScheduler"})
    assert (schedule.beta_schedule, schedule.set_alpha_to_one) == ("linear", True)
    assert schedule.timestep_spacing == "leading"


@pytest.mark.parametrize(
    "old, told",
    [
        ({"steps_offset": 0}, "steps_offset = 0 is read as 1"),
        ({"clip_sample": True}, "clip_sample = True is read as False"),
        ({}, None),
    ],
)
def test_old_schedules_are_put_right_and_that_is_told_in_one_line(old, told, caplog):
    read = ScheduleConfig.from_json(SCHEDULE_21 | old, "scheduler_config.json")
    assert read == ScheduleConfig.from_json(SCHEDULE_21)
    assert len(caplog.messages) == (told is not None)
    if told:
        assert caplog.messages[0].startswith("scheduler_config.json: an old file; " + told)


@pytest.mark.parametrize(
    "name, extra",
    [
        *((name, {}) for name in [*CLASSES, *NEAREST]),
        ("LCMScheduler", {"original_inference_steps": 50, "timestep_scaling": 10.0}),
        ("DPMSolverSDEScheduler", {"noise_sampler_seed": None}),
    ],
)
def test_every_scheduler_that_has_a_sampler_is_read(name, extra):
    values = SCHEDULE_21 | extra | {"_class_name": name}
    assert ScheduleConfig.from_json(values) == ScheduleConfig.from_json(SCHEDULE_21)


def test_a_schedule_without_steps_offset_gets_1(caplog):
    values = {k: v for k, v in SCHEDULE_21.items() if k != "steps_offset"}
    assert ScheduleConfig.from_json(values, "without.json").steps_offset == 1
    assert "without steps_offset, 1 is taken" in caplog.text


def test_zero_terminal_snr_is_written_only_where_it_is_on():
    assert "rescale_betas_zero_snr" not in ScheduleConfig.from_json(SCHEDULE_21).to_json()
    rescaled = ScheduleConfig.from_json(SCHEDULE_21 | {"rescale_betas_zero_snr": True})
    assert ScheduleConfig.from_json(rescaled.to_json()) == rescaled
    assert rescaled.rescale_betas_zero_snr is True


def test_the_notes_of_a_moving_average_are_no_architecture():
    notes = {"decay": 0.9999, "optimization_step": 7, "inv_gamma": 1.0, "power": 0.75}
    assert UNetConfig.from_json(UNET_21 | notes) == UNetConfig.from_json(UNET_21)


def test_sizes_may_be_null_or_square_lists():
    assert UNetConfig.from_json(UNET_1X | {"sample_size": None}).sample_size == 64
    assert UNetConfig.from_json(UNET_1X | {"sample_size": [96, 96]}).sample_size == 96
    with pytest.raises(ConfigError, match="sample_size"):
        UNetConfig.from_json(UNET_1X | {"sample_size": [96, 64]})


def test_the_file_of_a_whole_clip_model_yields_its_text_part():
    whole = {"model_type": "clip", "text_config": TEXT_2X, "vision_config": {"hidden_size": 1}}
    assert CLIPTextConfig.from_json(whole) == CLIPTextConfig.from_json(TEXT_2X)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_keys_of_other_samplers_are_ignored(name):
    extra = {"_class_name": name, "use_karras_sigmas": True, "solver_order": 2}
    read = ScheduleConfig.from_json(SCHEDULE_21 | extra)
    assert read == ScheduleConfig.from_json(SCHEDULE_21)


REFUSED = [
    (UNetConfig, UNET_NEW, "act_fn", "mish", "silu"),
    (UNetConfig, UNET_NEW, "addition_embed_type", "text_time", "null"),
    (UNetConfig, UNET_NEW, "attention_type", "gated", "default"),
    (UNetConfig, UNET_NEW, "center_input_sample", True, "False"),
    (UNetConfig, UNET_NEW, "class_embed_type", "timestep", "null"),
    (UNetConfig, UNET_NEW, "conv_in_kernel", 1, "3"),
    (UNetConfig, UNET_NEW, "cross_attention_dim", [768, 768, 768, 768], "whole number"),
    (UNetConfig, UNET_NEW, "downsample_padding", 0, "1"),
    (UNetConfig, UNET_NEW, "dual_cross_attention", True, "False"),
    (UNetConfig, UNET_NEW, "encoder_hid_dim", 64, "null"),
    (UNetConfig, UNET_NEW, "layers_per_block", [2, 2, 2, 2], "whole number"),
    (UNetConfig, UNET_NEW, "mid_block_type", None, "UNetMidBlock2DCrossAttn"),
    (UNetConfig, UNET_NEW, "num_class_embeds", 1000, "null"),
    (UNetConfig, UNET_NEW, "only_cross_attention", [True, True, True, False], "False"),
    (UNetConfig, UNET_NEW, "resnet_time_scale_shift", "scale_shift", "default"),
    (UNetConfig, UNET_NEW, "time_cond_proj_dim", 256, "null"),
    (UNetConfig, UNET_NEW, "transformer_layers_per_block", [0, 2, 10], "1"),
    (UNetConfig, UNET_NEW, "up_block_types", UP[:3], "a list of 4 names"),
    (UNetConfig, UNET_NEW, "block_out_channels", [320, 640, 1280], "a list of 3 names"),
    (UNetConfig, UNET_NEW, "block_out_channels", [320, 650, 1280, 1280], "norm_num_groups = 32"),
    (UNetConfig, UNET_NEW, "attention_head_dim", [5, 10, 21, 20], "divide 1280"),
    (UNetConfig, UNET_NEW, "attention_head_dim", "eight", "a head count"),
    (UNetConfig, UNET_NEW, "use_linear_projection", 1, "True or False"),
    (UNetConfig, UNET_NEW, "norm_eps", 0, "a number above 0"),
    (UNetConfig, UNET_NEW, "in_channels", True, "whole number"),
    (UNetConfig, UNET_NEW, "a_key_of_tomorrow", 1, "unknown"),
    (UNetConfig, UNET_NEW, "_class_name", "UNet3DConditionModel", "UNet2DConditionModel"),
    (VAEConfig, VAE_NEW, "shift_factor", 0.1159, "null"),
    (VAEConfig, VAE_NEW, "latents_mean", [0.0] * 4, "null"),
    (VAEConfig, VAE_NEW, "use_quant_conv", False, "True"),
    (VAEConfig, VAE_NEW, "mid_block_add_attention", False, "True"),
    (VAEConfig, VAE_NEW, "scaling_factor", None, "a number above 0"),
    (VAEConfig, VAE_NEW, "down_block_types", ["DownBlock2D"] * 4, "DownEncoderBlock2D"),
    (VAEConfig, VAE_NEW, "_class_name", "VQModel", "AutoencoderKL"),
    (CLIPTextConfig, TEXT_NEW, "hidden_act", "relu", "quick_gelu or gelu"),
    (CLIPTextConfig, TEXT_NEW, "model_type", "t5", "clip_text_model"),
    (CLIPTextConfig, TEXT_NEW, "num_attention_heads", 15, "hidden_size = 1024"),
    (CLIPTextConfig, TEXT_NEW, "num_hidden_layers", 0, "at least 1"),
    (CLIPTextConfig, TEXT_NEW, "num_hidden_layers", 10**9, "at most 256"),
    (CLIPTextConfig, TEXT_NEW, "vocab_size", 10**12, "at most 2000000"),
    (UNetConfig, UNET_NEW, "layers_per_block", 10**6, "at most 32"),
    (UNetConfig, UNET_NEW, "block_out_channels", [32 * 10**6] * 4, "at most 65536"),
    (UNetConfig, UNET_NEW, "block_out_channels", [32] * 9, "a list of 1 to 8"),
    (UNetConfig, UNET_NEW, "sample_size", 10**6, "at most 8192"),
    (VAEConfig, VAE_NEW, "layers_per_block", 10**6, "at most 32"),
    (VAEConfig, VAE_NEW, "latent_channels", 10**6, "at most 1024"),
    (ScheduleConfig, SCHEDULE_NEW, "num_train_timesteps", 10**10, "at most 100000"),
    (ScheduleConfig, SCHEDULE_NEW, "beta_schedule", "squaredcos_cap_v2", "scaled_linear or linear"),
    (ScheduleConfig, SCHEDULE_NEW, "beta_end", 0.0001, "beta_start"),
    (ScheduleConfig, SCHEDULE_NEW, "prediction_type", "flow_prediction", "v_prediction"),
    (ScheduleConfig, SCHEDULE_NEW, "rescale_betas_zero_snr", "yes", "False"),
    (ScheduleConfig, SCHEDULE_NEW, "clip_sample", "yes", "False"),
    (ScheduleConfig, SCHEDULE_NEW, "thresholding", True, "False"),
    (ScheduleConfig, SCHEDULE_NEW, "timestep_spacing", "karras", "leading or trailing"),
    (ScheduleConfig, SCHEDULE_NEW, "trained_betas", [0.1, 0.2], "null"),
    (ScheduleConfig, SCHEDULE_NEW, "_class_name", "FlowMatchEulerDiscreteScheduler", "DDIM"),
]


@pytest.mark.parametrize("cls, values, key, value, supported", REFUSED)
def test_what_is_not_implemented_is_refused_in_one_line(cls, values, key, value, supported):
    with pytest.raises(ConfigError) as caught:
        cls.from_json(values | {key: value}, where="model/config.json")
    message = str(caught.value)
    assert message.startswith("model/config.json: ") and "\n" not in message
    assert supported in message.split("not supported (")[1]
    # a list of levels of the wrong length is reported by the key that depends on it
    assert key in message or key == "block_out_channels"


def test_an_error_reads_as_promised():
    with pytest.raises(ConfigError) as caught:
        UNetConfig.from_json({"act_fn": "mish"}, where="unet/config.json")
    expected = "unet/config.json: act_fn = 'mish' is not supported (supported: silu)"
    assert str(caught.value) == expected


def test_a_file_that_is_not_an_object_is_refused():
    with pytest.raises(ConfigError, match="vae/config.json: expected a JSON object, found list"):
        VAEConfig.from_json([], where="vae/config.json")


def test_wrong_values_are_refused_without_a_file_too():
    with pytest.raises(ConfigError, match="prediction_type"):
        ScheduleConfig(prediction_type="velocity")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScheduleConfig().beta_start = 0.5


def test_parts_of_different_models_do_not_go_together():
    unet, vae = UNetConfig.from_json(UNET_21), VAEConfig.from_json(VAE_NEW)
    check_together(unet, vae, CLIPTextConfig.from_json(TEXT_2X))
    with pytest.raises(ConfigError, match="cross_attention_dim = 1024.*768"):
        check_together(unet, vae, CLIPTextConfig.from_json(TEXT_1X))
    inpainting = UNetConfig.from_json(UNET_21 | {"in_channels": 9})
    with pytest.raises(ConfigError, match="in_channels = 9"):
        check_together(inpainting, vae, CLIPTextConfig.from_json(TEXT_2X))
