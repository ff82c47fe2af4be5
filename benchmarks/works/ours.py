"""The works as this package does them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from jdreambooth.checkpointing import checkpointed
from jdreambooth.data import Batch
from jdreambooth.loss import dreambooth_loss
from jdreambooth.optimizer import AdamW, clip_gradients
from jdreambooth.precision import FIRST_SCALE, in_half
from jstyle import JStyleID, StyleConfig
from jstyle.sd import hub
from jstyle.sd.lora import add_lora
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.startup import jt
from jstyle.sd.weights import load_strict, read_weights

from . import GAMMA, LEARNING_RATE, LORA_RANK, STYLE_SITES, TAU, TIMESTEP, Setting


def device_mib() -> float:
    """What the pools of the GPU's allocator hold: they keep what was freed, so it is the peak."""
    return jt.get_mem_info().total_cuda_used / 2**20


def _part(setting: Setting, part: str):
    module = PARTS[part][1](setting.config(part))
    path = hub.weight_file(Path(setting.model), part)
    load_strict(module, read_weights(path), where=path)
    module.eval()
    return module


def matrix(setting: Setting):
    a = jt.array(np.random.default_rng(0).standard_normal((2048, 2048), np.float32))

    def step():
        with jt.no_grad():
            product = jt.matmul(a, a)
            product.sync(True)
        return product[:8].numpy()

    return step


def _unet(setting: Setting, batch: int):
    unet = _part(setting, "unet")
    inputs = setting.latents(batch), setting.context(batch)
    z, context = (jt.array(values).cast(setting.dtype) for values in inputs)
    if setting.dtype != "float32":
        for parameter in unet.parameters():
            parameter.assign(parameter.cast(setting.dtype).stop_grad())

    def step():
        with jt.no_grad():
            return unet(z, TIMESTEP, context).float32().numpy()

    return step


def unet(setting: Setting):
    return _unet(setting, 1)


def unet_batch2(setting: Setting):
    return _unet(setting, 2)


def vae(setting: Setting):
    autoencoder, picture = _part(setting, "vae"), jt.array(setting.picture())

    def step():
        with jt.no_grad():
            mean = autoencoder.encode(picture)[:, : autoencoder.config.latent_channels]
            return autoencoder.decode(mean).numpy()

    return step


def text(setting: Setting):
    encoder, ids = _part(setting, "text_encoder"), setting.ids()

    def step():
        with jt.no_grad():
            return encoder(ids).numpy()

    return step


def _styler(setting: Setting):
    """(JStyleID whose pictures are latents already, two pictures, the configuration)."""
    sd = StableDiffusion.from_pretrained(setting.model)
    latents = iter(())
    sd.encode_image = lambda x: next(latents)
    sd.decode = lambda z: z
    cfg = StyleConfig(steps=setting.steps, gamma=GAMMA, tau=TAU, sites=STYLE_SITES)
    styler, picture = JStyleID(sd), setting.picture()

    def invert(seed: int, parts: str):
        nonlocal latents
        latents = iter([jt.array(setting.latents(seed=seed) * 0.8)])
        return styler.invert(picture, cfg, parts)

    return styler, invert, cfg


def style(setting: Setting):
    styler, invert, cfg = _styler(setting)
    return lambda: styler.transfer(invert(5, "q"), invert(6, "kv"), cfg).numpy()


def style_nth(setting: Setting):
    styler, invert, cfg = _styler(setting)
    content, painting = invert(5, "q"), invert(6, "kv")
    return lambda: styler.transfer(content, painting, cfg).numpy()


def _lora(setting: Setting, recompute: bool):
    unet = _part(setting, "unet")  # read and then set to eval: nothing takes gradients
    factors = add_lora(unet, LORA_RANK)
    optimizer, schedule = AdamW(factors.parameters()), setting.schedule()
    z, noise = setting.latents(seed=7), setting.latents(seed=8)
    batch = Batch(z, noise, np.array([TIMESTEP]), [""], 1)
    context = jt.array(setting.context())

    scale = 1.0 if setting.dtype == "float32" else FIRST_SCALE

    def step():
        with ExitStack() as stack:
            if recompute:
                stack.enter_context(checkpointed(unet))
            network = stack.enter_context(in_half(unet)) if scale > 1 else unet
            loss, _ = dreambooth_loss(network, batch, context, schedule, 0.0, None)
            optimizer.backward(loss * scale)
            jt.sync_all()
        for gradient in optimizer.gradients if scale > 1 else ():
            gradient.update(gradient / scale)
        clip_gradients(optimizer.gradients, 1.0)
        optimizer.step(LEARNING_RATE)
        jt.sync_all()
        return np.array([loss.item()])

    return step


def lora(setting: Setting):
    return _lora(setting, recompute=False)


def lora_checkpointed(setting: Setting):
    return _lora(setting, recompute=True)


def load(setting: Setting):
    def step():
        sd = StableDiffusion.from_pretrained(setting.model)
        jt.sync_all(True)
        return sd.unet.conv_out.weight.numpy()

    return step
