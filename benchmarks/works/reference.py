"""The same works on PyTorch with diffusers, transformers and peft; imports nothing of Jittor."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from . import GAMMA, LEARNING_RATE, LORA_RANK, STYLE_PATTERN, TAU, TIMESTEP, Setting


def _array(tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def device_mib() -> float:
    """The peak of what PyTorch's allocator took from the GPU."""
    return torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else 0.0


def _dtype(setting: Setting) -> torch.dtype:
    return getattr(torch, setting.dtype)


def _part(setting: Setting, part: str):
    import diffusers
    import transformers

    if part == "text_encoder":
        cls = transformers.CLIPTextModel
    else:
        cls = diffusers.UNet2DConditionModel if part == "unet" else diffusers.AutoencoderKL
    module = cls.from_pretrained(setting.model, subfolder=part, torch_dtype=torch.float32)
    return module.to(setting.device).eval()


def _tensor(setting: Setting, values: np.ndarray):
    return torch.from_numpy(values).to(setting.device)


def matrix(setting: Setting):
    values = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    a = _tensor(setting, values).to(_dtype(setting))

    @torch.no_grad()
    def step():
        return _array((a @ a)[:8])

    return step


def _unet(setting: Setting, batch: int):
    dtype = _dtype(setting)
    unet = _part(setting, "unet").to(dtype)
    inputs = setting.latents(batch), setting.context(batch)
    z, context = (_tensor(setting, values).to(dtype) for values in inputs)

    @torch.no_grad()
    def step():
        return _array(unet(z, TIMESTEP, context).sample)

    return step


def unet(setting: Setting):
    return _unet(setting, 1)


def unet_batch2(setting: Setting):
    return _unet(setting, 2)


def vae(setting: Setting):
    autoencoder = _part(setting, "vae").to(_dtype(setting))
    picture = _tensor(setting, setting.picture()).to(_dtype(setting))

    @torch.no_grad()
    def step():
        mean = autoencoder.encode(picture).latent_dist.mean
        return _array(autoencoder.decode(mean).sample)

    return step


def text(setting: Setting):
    encoder, ids = _part(setting, "text_encoder"), _tensor(setting, setting.ids())

    @torch.no_grad()
    def step():
        return _array(encoder(ids).last_hidden_state)

    return step


class StyleID:
    """StyleID (arXiv:2312.09008) on diffusers: what `jstyle.pipeline` does, on latents.

    Attention is torch's scaled_dot_product_attention, the fastest that PyTorch has.
    """

    def __init__(self, setting: Setting):
        import diffusers

        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            setting.model, torch_dtype=_dtype(setting), safety_checker=None
        ).to(setting.device)
        ids = pipeline.tokenizer(
            [""], padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids.to(setting.device)
        self.pipeline, self.unet = pipeline, pipeline.unet  # all is held, as on the other side
        with torch.no_grad():
            self.context = pipeline.text_encoder(ids).last_hidden_state
        self.schedule, self.steps = setting.schedule(), setting.steps
        self.mode, self.t = None, None
        self.recorded: dict[tuple, tuple] = {}
        for name, module in self.unet.named_modules():
            if STYLE_PATTERN.fullmatch(name):
                module.set_processor(_Processor(self, name))

    @torch.no_grad()
    def invert(self, z, role: str):
        self.mode = role
        for t in map(int, self.schedule.timesteps(self.steps)[::-1]):
            z = self.schedule.invert_step(self._predict(z, t), z, t, self.steps)
        return z

    @torch.no_grad()
    def transfer(self, content, painting):
        self.mode, z = "mix", adain(content, painting)
        for t in map(int, self.schedule.timesteps(self.steps)):
            z = self.schedule.step(self._predict(z, t), z, t, self.steps)
        return z

    def _predict(self, z, t: int):
        self.t = t
        return self.unet(z.to(self.context.dtype), t, self.context).sample.float()

    def features(self, site, q, k, v):
        if self.mode == "content":
            self.recorded["q", site, self.t] = q
        elif self.mode == "painting":
            self.recorded["kv", site, self.t] = k, v
        else:
            mixed = TAU * (GAMMA * self.recorded["q", site, self.t] + (1 - GAMMA) * q)
            return mixed, *self.recorded["kv", site, self.t]
        return q, k, v


class _Processor:
    def __init__(self, method: StyleID, site: str):
        self.method, self.site = method, site

    def __call__(self, attn, hidden_states, *args, **kwargs):
        q, k, v = (
            p(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for p in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = F.scaled_dot_product_attention(*self.method.features(self.site, q, k, v))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def adain(content, painting):
    def moments(x):
        flat = x.flatten(2)
        return flat.mean(-1)[..., None, None], (flat.var(-1) + 1e-5).sqrt()[..., None, None]

    (mean_c, std_c), (mean_s, std_s) = moments(content), moments(painting)
    return (content - mean_c) / std_c * std_s + mean_s


def _latents(setting: Setting, seed: int):
    return _tensor(setting, setting.latents(seed=seed) * 0.8)


def style(setting: Setting):
    method = StyleID(setting)
    z_c, z_s = _latents(setting, 5), _latents(setting, 6)

    def step():
        noise_c, noise_s = method.invert(z_c, "content"), method.invert(z_s, "painting")
        return _array(method.transfer(noise_c, noise_s))

    return step


def style_nth(setting: Setting):
    method = StyleID(setting)
    noise_c = method.invert(_latents(setting, 5), "content")
    noise_s = method.invert(_latents(setting, 6), "painting")
    return lambda: _array(method.transfer(noise_c, noise_s))


def _lora(setting: Setting, recompute: bool):
    from peft import LoraConfig

    from jstyle.sd.schedule import add_noise, target

    unet = _part(setting, "unet").requires_grad_(False)
    names = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=names))
    if recompute:
        unet.enable_gradient_checkpointing()
        unet.train()  # diffusers checkpoints only then; there is no dropout
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    schedule, t = setting.schedule(), np.array([TIMESTEP])
    abar = float(schedule.abar[TIMESTEP])
    z, noise = setting.latents(seed=7), setting.latents(seed=8)
    noised = _tensor(setting, add_noise(z, noise, abar).astype(np.float32))
    wanted = _tensor(setting, target(schedule.kind, z, noise, abar).astype(np.float32))
    context, t = _tensor(setting, setting.context()), _tensor(setting, t)
    half = setting.dtype != "float32"
    scaler = torch.amp.GradScaler(setting.device, enabled=setting.dtype == "float16")

    def step():
        with torch.autocast(setting.device, _dtype(setting), enabled=half):
            out = unet(noised, t, context).sample
        loss = F.mse_loss(out.float(), wanted)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return np.array([loss.item()])

    return step


def lora(setting: Setting):
    return _lora(setting, recompute=False)


def lora_checkpointed(setting: Setting):
    return _lora(setting, recompute=True)


def load(setting: Setting):
    import diffusers

    def step():
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            setting.model, torch_dtype=torch.float32, safety_checker=None
        ).to(setting.device)
        return _array(pipeline.unet.conv_out.weight)

    return step
