"""What a task really takes:  python -m tests.measured_memory TASK MODEL SIZE [OPTIONS as JSON]

Prints {"peak": bytes, "plan": bytes}. The baseline, which is taken off the peak, is what the
process has after Jittor has started and a tiny model has done the same task, so that its kernels
are compiled and loaded. On CUDA the peak is what Jittor's allocators hold in the end, since they
give nothing back.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jstyle.config import StyleConfig
from jstyle.memory.plan import Asked, plan
from jstyle.pipeline import JStyleID
from jstyle.sd import hub, runtime
from jstyle.sd.config import CLIPTextConfig, UNetConfig, VAEConfig
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt
from tests import tiny
from tests.pictures import picture

CONFIGS: dict[str, Any] = {"unet": UNetConfig, "vae": VAEConfig, "text_encoder": CLIPTextConfig}
STEPS = 2


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def save_model(folder: Path, widths: list[int], vae: list[int], text: int) -> Path:
    """A model in the shape of Stable Diffusion 2 with these widths, in float32 files."""
    rng = np.random.default_rng(0)
    changes = {
        "unet": {
            "block_out_channels": widths,
            "norm_num_groups": 16,
            "cross_attention_dim": text,
            "attention_head_dim": [2, 4, 8, 8],
            "sample_size": 32,
        },
        "vae": {
            "block_out_channels": vae,
            "norm_num_groups": 16,
            "down_block_types": ["DownEncoderBlock2D"] * len(vae),
            "up_block_types": ["UpDecoderBlock2D"] * len(vae),
        },
        "text_encoder": {"hidden_size": text, "intermediate_size": 4 * text},
    }
    from jstyle.sd.pipeline import PARTS
    from jstyle.sd.schedule import Schedule, ScheduleConfig
    from jstyle.sd.tokenizer import Tokenizer

    modules = {}
    for part, (config, module) in PARTS.items():
        values = {**tiny.config("sd2", part), **changes[part]}
        modules[part] = module(config.from_json(values))
        for value in modules[part].parameters():
            shape = tuple(value.shape)
            scale = 0.5 * np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
            draw = rng.standard_normal(shape, np.float32) * np.float32(scale)
            value.assign(jt.array(draw + np.float32(len(shape) == 1)))
    schedule = Schedule(ScheduleConfig.from_json(tiny.config("sd2", "scheduler")))
    tokenizer = Tokenizer.from_folder(tiny.TOKENIZER)
    sd = StableDiffusion(
        **modules, tokenizer=tokenizer, schedule=schedule, tokenizer_folder=tiny.TOKENIZER
    )
    sd.save_pretrained(folder, "float32")
    return folder


def do(task: str, model: str, size: int, options: dict) -> None:
    """The task, as its command does it."""
    if task == "train":
        train(model, size, options)
        return
    dtype = options.get("dtype", "float32")
    sd = StableDiffusion.from_pretrained(model, dtype=dtype)
    if task == "generate":
        words = ["a star in mosaic style"] * options.get("together", 1)
        sd.generate(words, num_steps=STEPS, height=size, width=size).sync()
    else:
        cfg = StyleConfig(steps=STEPS, size_px=size, features="memory")
        JStyleID(sd).stylize(picture(1, size, size), picture(2, size, size), cfg).sync()


def train(model: str, size: int, options: dict) -> None:
    from contextlib import nullcontext

    from jdreambooth.checkpointing import checkpointed
    from jdreambooth.config import TrainConfig
    from jdreambooth.train import Run
    from jstyle.sd import image

    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "pictures"
        where.mkdir()
        image.save_png(where / "hill.png", image.to_uint8(picture(1, size, size))[0])
        cfg = TrainConfig(
            instance_dir=str(where), out=f"{folder}/out", instance_prompt="{stem}", size_px=size,
            model=model, train=options.get("train", "lora"), steps=2, device=runtime.device(),
            gradient_checkpointing=options.get("checkpointing", False),
            precision="float16" if options.get("half") else "float32",
            batch=options.get("together", 1),
        )  # fmt: skip
        run = Run(cfg, None, None, None)
        again = checkpointed(run.sd.unet) if cfg.gradient_checkpointing else nullcontext()
        with again:
            for step in range(STEPS):
                run.step(step)


def measured(task: str, model: str, size: int, options: dict) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tiny.make_ours("sd2").save_pretrained(folder, "float32")
        do(task, folder, 64, options)
    gc.collect()
    jt.sync_all(True)
    jt.gc()
    cuda = jt.flags.use_cuda
    base = jt.get_mem_info().total_cuda_used if cuda else status("VmRSS")
    forget_peak()
    do(task, model, size, options)
    jt.sync_all(True)
    return (jt.get_mem_info().total_cuda_used if cuda else status("VmHWM")) - base


def planned(task: str, model: str, size: int, options: dict) -> int:
    from jstyle.sd.schedule import Schedule, ScheduleConfig  # noqa: F401
    from jstyle.storage import feature_bytes

    path = hub.resolve(hub.as_source(model, None))
    configs = {p: c.from_json(hub.read_config(path, p), p) for p, c in CONFIGS.items()}
    asked = Asked(task, (size, size), bool(jt.flags.use_cuda), **options)
    if task == "stylize":
        from dataclasses import replace

        side = size // 2 ** (len(configs["vae"].block_out_channels) - 1)
        sites = [f"up_blocks.{i}.attentions.{j}" for i in (2, 3) for j in range(3)]
        n = feature_bytes(configs["unet"], sites, "qkv", STEPS, (side, side), "float32")
        asked = replace(asked, features=n)
    return plan(configs, asked)


if __name__ == "__main__":
    task, model, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    with runtime.use("auto"):
        if model.startswith("small:"):
            model = str(
                save_model(
                    Path(model.partition(":")[2]), [96, 192, 384, 384], [48, 96, 192, 192], 256
                )
            )
        elif not task:
            sys.exit()
        p = planned(task, model, size, options)
        found = measured(task, model, size, options)
    print(
        json.dumps(
            {
                "peak": found,
                "plan": p.peak,
                "held": p.held,
                "runs": p.runs,
                "scratch": p.scratch,
                "ratio": p.peak / found,
            }
        )
    )
