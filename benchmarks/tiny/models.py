"""The shapes of the shipped model: SD 2.1's layout at a fraction of its width."""

from __future__ import annotations

from jstyle.sd.config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig

SIZE_PX = 128
LATENT = SIZE_PX // 4

VAE = VAEConfig.from_json(
    {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [32, 64, 96],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 16,
        "sample_size": SIZE_PX,
        "scaling_factor": 1.0,
    },
    where="tiny vae",
)

UNET = UNetConfig.from_json(
    {
        "sample_size": LATENT,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [48, 64, 80, 80],
        "layers_per_block": 2,
        "cross_attention_dim": 128,
        "attention_head_dim": [1, 2, 2, 2],
        "use_linear_projection": True,
        "norm_num_groups": 16,
    },
    where="tiny unet",
)

SCHEDULE = ScheduleConfig.from_json(
    {
        "num_train_timesteps": 1000,
        "beta_start": 0.00001,
        "beta_end": 0.0086,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    },
    where="tiny scheduler",
)


def text_config(vocab_size: int) -> CLIPTextConfig:
    return CLIPTextConfig.from_json(
        {
            "vocab_size": vocab_size,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 77,
            "hidden_act": "gelu",
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "pad_token_id": 0,
            "projection_dim": 128,
        },
        where="tiny text encoder",
    )
