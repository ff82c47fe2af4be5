"""Put trained weights together as a diffusers folder: the shipped model."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.tiny.models import SCHEDULE, UNET, VAE, text_config
from benchmarks.tiny.train_unet import read_autoencoder, restore
from benchmarks.tiny.train_vae import NOISE
from jstyle.sd.clip import CLIPTextModel
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.schedule import Schedule
from jstyle.sd.startup import jt
from jstyle.sd.tokenizer import Tokenizer
from jstyle.sd.unet import UNet2DConditionModel


def assemble(vae_weights: Path, unet_weights: Path, tokenizer_folder: Path) -> StableDiffusion:
    saved = np.load(unet_weights)
    vae = read_autoencoder(vae_weights, round(float(saved["scaling_factor"]), 5))
    if vae_weights.is_file():
        _fix_posterior_deviation(vae)
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    unet, text = UNet2DConditionModel(UNET), CLIPTextModel(text_config(len(tokenizer)))
    restore(unet, {k[5:]: v for k, v in saved.items() if k.startswith("unet.")})
    restore(text, {k[5:]: v for k, v in saved.items() if k.startswith("text.")})
    return StableDiffusion(
        unet, vae, text, tokenizer, Schedule(SCHEDULE), "tiny", tokenizer_folder=tokenizer_folder
    )


def _fix_posterior_deviation(vae) -> None:
    """The log variance was not trained; say what the decoder was trained with."""
    weight, bias = vae.quant_conv.weight.numpy(), vae.quant_conv.bias.numpy()
    weight[VAE.latent_channels :] = 0
    bias[VAE.latent_channels :] = 2 * np.log(NOISE)
    vae.quant_conv.weight.assign(jt.array(weight))
    vae.quant_conv.bias.assign(jt.array(bias))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="of train_vae, or a model folder")
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, default=Path("jstyle/models/tiny/tokenizer"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = assemble(args.vae, args.unet, args.tokenizer)
    model.save_pretrained(args.out, dtype="float16")


if __name__ == "__main__":
    main()
