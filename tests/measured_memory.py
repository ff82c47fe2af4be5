"""What a task really takes:  python -m tests.measured_memory TASK MODEL SIZE [OPTIONS as JSON]

Prints {"peak": bytes, "plan": bytes}. The baseline, which is taken off the peak, is what the
process has after Jittor has started and a tiny model has done the same task at 64 px, so that
kernels are compiled and loaded. On the CPU the peak is the kernel's VmHWM; on CUDA it is what
Jittor's allocator holds in the end, since that gives nothing back.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from jdreambooth.checkpointing import checkpointed
from jdreambooth.config import TrainConfig
from jdreambooth.train import Run
from jstyle.commands.inputs import find_model
from jstyle.config import StyleConfig
from jstyle.memory.plan import Asked, Plan, plan
from jstyle.pipeline import JStyleID
from jstyle.sd import image, runtime
from jstyle.sd.pipeline import PARTS, StableDiffusion
from jstyle.sd.schedule import Schedule, ScheduleConfig
from jstyle.sd.startup import jt
from jstyle.sd.tokenizer import Tokenizer
from tests import tiny
from tests.pictures import picture

STEPS = 2
CHANGES = {  # in the shape of Stable Diffusion 2, with 0.3 of its widths
    "unet": {
        "block_out_channels": [96, 192, 384, 384],
        "norm_num_groups": 16,
        "cross_attention_dim": 256,
        "attention_head_dim": [2, 4, 8, 8],
        "sample_size": 32,
    },
    "vae": {
        "block_out_channels": [48, 96, 192, 192],
        "norm_num_groups": 16,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": {"hidden_size": 256, "intermediate_size": 1024},
}


def status(name: str) -> int:
    """A value of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def save_small(folder: Path) -> Path:
    """A model of 92 million parameters, drawn, in float32 files."""
    rng, modules = np.random.default_rng(0), {}
    for part, (config, module) in PARTS.items():
        made = module(config.from_json({**tiny.config("sd2", part), **CHANGES[part]}))
        for value in made.parameters():
            shape = tuple(value.shape)
            scale = 0.5 * np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
            draw = rng.standard_normal(shape, np.float32) * np.float32(scale)
            value.assign(jt.array(draw + np.float32(len(shape) == 1)))
        modules[part] = made
    schedule = Schedule(ScheduleConfig.from_json(tiny.config("sd2", "scheduler")))
    words = {"tokenizer": Tokenizer.from_folder(tiny.TOKENIZER), "schedule": schedule}
    sd = StableDiffusion(**modules, **words, tokenizer_folder=tiny.TOKENIZER)
    sd.save_pretrained(folder, "float32")
    return folder


def do(task: str, model: str, size: int, options: dict) -> None:
    """The task, as its command does it."""
    if task == "train":
        train(model, size, options)
        return
    sd = StableDiffusion.from_pretrained(model, dtype=options.get("dtype", "float32"))
    if task == "generate":
        words = ["a star in mosaic style"] * options.get("together", 1)
        sd.generate(words, num_steps=STEPS, height=size, width=size).sync()
    else:
        cfg = StyleConfig(steps=STEPS, size_px=size, features="memory")
        JStyleID(sd).stylize(picture(1, size, size), picture(2, size, size), cfg).sync()


def train(model: str, size: int, options: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        image.save_png(pictures / "hill.png", image.to_uint8(picture(1, size, size))[0])
        places = {"instance_dir": str(pictures), "out": f"{folder}/out", "model": model}
        cfg = TrainConfig(
            **places,
            instance_prompt="{stem}",
            size_px=size,
            steps=STEPS,
            device=runtime.device(),
            train=options.get("train", "lora"),
            gradient_checkpointing=options.get("checkpointing", False),
            precision="float16" if options.get("half") else "float32",
        )
        run = Run(cfg, None, None, None)
        with checkpointed(run.sd.unet) if cfg.gradient_checkpointing else nullcontext():
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
    before = jt.get_mem_info().total_cuda_used if cuda else status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    do(task, model, size, options)
    jt.sync_all(True)
    return (jt.get_mem_info().total_cuda_used if cuda else status("VmHWM")) - before


def planned(task: str, model: str, size: int, options: dict) -> Plan:
    guided, cuda = task == "generate", bool(jt.flags.use_cuda)
    configs = find_model(model).configs
    asked = Asked(task, (size, size), cuda, guided=guided, **options)
    if task == "stylize":
        styler = JStyleID(StableDiffusion.from_pretrained(model))
        kept = styler.feature_bytes(StyleConfig(steps=STEPS), (1, 3, size, size), "qkv")
        asked = replace(asked, features=kept)
    return plan(configs, asked)


if __name__ == "__main__":
    task, model, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    with runtime.use("auto"):
        plans = planned(task, model, size, options)
        print(json.dumps({"peak": measured(task, model, size, options), "plan": plans.peak}))
