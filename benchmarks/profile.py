"""Where the time of a work goes, by group of operations, ours and PyTorch's.

    python -m benchmarks.profile --work unet --size full --model work/full --out benchmarks/results

Jittor's profiler waits after every operation and PyTorch's counts the time that an operation
itself takes, so both columns are sums over operations; neither holds the time between them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import machine, run
from benchmarks.worker import side_module
from benchmarks.works import WORKS, Setting
from jstyle.sd.files import writable_folder, write_json

GROUPS = ("convolution", "linear", "attention", "norms", "elementwise", "copies", "other")
# The first word found in an operation's name (or, for our kernels, in their source) decides.
OURS = {
    "mkl_conv": "convolution",
    "std::vector<float> cols": "convolution",  # kernels/convolution.py
    "0.5f*(a+b+c)": "convolution",  # kernels/winograd.py: weights
    "turned[4]": "convolution",  # and products
    "P=x_shape2*x_shape3": "convolution",
    "P=g_shape2*g_shape3": "convolution",
    "matmul": "linear",
    "cudnn": "convolution",
    "cublas": "linear",
    "lse_p": "attention",
    'data["groups"]': "norms",
    "n=x->num/D": "norms",
    "std::erf": "elementwise",
    "transpose": "copies",
    "setitem": "copies",
    "getitem": "copies",
    "reindex": "copies",
    "reduce": "other",
    "binary": "elementwise",
    "unary": "elementwise",
}
TORCH = {
    "conv": "convolution",
    "scaled_dot_product": "attention",
    "flash_attention": "attention",
    "softmax": "attention",
    "bmm": "attention",
    "mm": "linear",
    "linear": "linear",
    "norm": "norms",
    "copy_": "copies",
    "cat": "copies",
    "upsample": "copies",
    "pad": "copies",
    "silu": "elementwise",
    "gelu": "elementwise",
    "mul": "elementwise",
    "add": "elementwise",
    "sub": "elementwise",
    "div": "elementwise",
}


def group_of(name: str, table: dict[str, str]) -> str:
    """The group of an operation; names are PyTorch's ("aten::mm") or Jittor's keys."""
    return next((group for word, group in table.items() if word in name), "other")


def by_group(lines: Iterable[tuple[str, float]], table: dict[str, str]) -> dict[str, float]:
    """Seconds of every group, of (name, seconds)."""
    found = dict.fromkeys(GROUPS, 0.0)
    for name, seconds in lines:
        found[group_of(name, table)] += seconds
    return found


def profile_ours(step: Callable) -> list[tuple[str, float]]:
    from jstyle.sd.startup import jt

    with jt.profile_scope() as report:
        step()
    head, *lines = report
    name, nanoseconds = head.index("Name"), head.index("TotalTime")
    return [(line[name], float(line[nanoseconds]) / 1e9) for line in lines]


def profile_torch(step: Callable) -> list[tuple[str, float]]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=[ProfilerActivity.CPU, *cuda]) as report:
        step()
    field = "self_device_time_total" if cuda else "self_cpu_time_total"
    return [(line.key, getattr(line, field) / 1e6) for line in report.key_averages()]


def measure(side: str, work: str, setting: Setting) -> dict[str, float]:
    """Seconds by group of one warm run, in this process."""
    with side_module(side, setting.device) as works:
        step = getattr(works, work)(setting)
        step()
        if side == "ours":
            return by_group(profile_ours(step), OURS)
        return by_group(profile_torch(step), TORCH)


def as_text(found: dict[str, dict[str, float]]) -> str:
    """A Markdown table, groups down and sides across."""
    lines = [f"| group | {' | '.join(f'{side}, ms' for side in found)} |"]
    lines.append("|---" * (len(found) + 1) + "|")
    sums = {side: sum(groups.values()) for side, groups in found.items()}
    for group in (*GROUPS, "sum"):
        values = (sums[side] if group == "sum" else found[side][group] for side in found)
        lines.append(f"| {group} | {' | '.join(f'{1e3 * value:.0f}' for value in values)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    works = [name for name, work in WORKS.items() if not work.once]
    parser.add_argument("--work", choices=works, default="unet")
    parser.add_argument("--size", choices=run.SIZES, default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="folder of the model")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS")
    parser.add_argument("--side", choices=run.SIDES, help="only this one, in this process")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    setting = run.make_setting(args)
    if args.side:
        print(json.dumps(measure(args.side, args.work, setting)))
        return 0
    words = ["--work", args.work, "--size", args.size, "--device", args.device]
    words += ["--model", setting.model]
    found = {
        side: run.in_process(["-m", "benchmarks.profile", *words, "--side", side], args.threads)
        for side in run.SIDES
    }
    folder = writable_folder(args.out / f"{args.size}-{args.device}")
    facts = machine.facts() | {"threads": args.threads}
    facts["setting"] = asdict(replace(setting, model=Path(setting.model).name))
    write_json(folder / f"profile_{args.work}.json", {"seconds": found, "facts": facts})
    print(as_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
