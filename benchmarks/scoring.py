"""What the contest's total costs: all six metrics with random weights of the published shapes.

    python -m benchmarks.scoring --work work/scoring --out benchmarks/results/scoring.json

Writes the six networks' files as they are published (2.7 GB), a drawn contest and a submission to
it, and scores that metric by metric, as `jstyle score` does. Processor time is told, which other
processes do not change much; of each metric the first batch holds loading and compiling, and the
rest gives the time per picture, from which the 700 pictures and 84 references of board B follow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from jstyle.score import run
from jstyle.score.cache import FeatureCache
from jstyle.score.layout import read_contest
from jstyle.score.scorers import SCORERS, Pictures
from jstyle.score.total import total
from jstyle.score.weights import REGISTRY
from jstyle.sd import hub
from jstyle.sd.files import write_json

from . import machine

DINO = {}  # transformers' defaults are those of facebook/dinov2-base
CLIP = {
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
    "projection_dim": 768,
}
RN50 = (64, (3, 4, 6, 3), 7, 1024, 512, 12)  # width, blocks, grid, out, text width, text layers
BOARD_B = {"pictures": 700, "references": 84}
SIZE_PX, REFERENCE_PX, REFERENCES = 512, 1024, 3


def write_weights(folder: Path) -> None:
    """Every file that the six metrics need, with random numbers, under its published name."""
    import torch
    import transformers

    from tests.parity import torch_networks
    from tests.parity.score_networks import save_processor

    (folder / "lpips").mkdir(parents=True)
    torch.manual_seed(0)
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**DINO))
    dino.save_pretrained(folder / "dinov2-base")
    save_processor(folder / "dinov2-base", "BitImageProcessor", {"shortest_edge": 256}, crop=224)
    place = folder / "clip-vit-large-patch14"
    transformers.CLIPModel(transformers.CLIPConfig(**CLIP)).save_pretrained(place)
    save_processor(place, "CLIPImageProcessor", {"shortest_edge": 224}, crop=224)
    shutil.copytree(hub.TINY / "tokenizer", place, dirs_exist_ok=True)
    networks = {
        "inception": (torch_networks.Inception("fid"), ""),
        "clip-rn50": (torch_networks.ClipResNet(*RN50), ""),
        "squeezenet1_1": (torch_networks.squeezenet(), "features."),
    }
    for name, (network, prefix) in networks.items():
        state = {f"{prefix}{k}": v for k, v in torch_networks.fill(network).state_dict().items()}
        if name == "clip-rn50":
            sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
            state |= {key: torch.tensor(value) for key, value in sizes.items()}
        torch.save(state, folder / REGISTRY[name].place)
    channels = enumerate((64, 128, 256, 384, 384, 512, 512))
    lines = {f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1) for i, count in channels}
    torch.save(lines, folder / REGISTRY["lpips-squeeze"].place)


def write_contest(folder: Path, styles: int, prompts: int) -> tuple[Path, Path]:
    """ROOT and RESULT of smooth random pictures, in the sizes of the contest's."""
    root, result = folder / "root", folder / "result"
    rng = np.random.default_rng(0)
    for number in range(styles):
        name = f"{number:02d}"
        (root / name / "images").mkdir(parents=True)
        (result / name).mkdir(parents=True)
        names = [f"thing {i}" for i in range(prompts)]
        (root / name / "prompt.json").write_text(json.dumps(dict(enumerate(names))))
        for i in range(REFERENCES):
            _draw(rng, REFERENCE_PX).save(root / name / "images" / f"reference {i}.png")
        for prompt in names:
            _draw(rng, SIZE_PX).save(result / name / f"{prompt}.png")
    return root, result


def _draw(rng: np.random.Generator, side: int) -> Image.Image:
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


class Clock:
    """Processor seconds and pictures done, batch by batch."""

    def __init__(self):
        self.marks: list[tuple[float, int]] = []
        self.restart()

    def restart(self) -> None:
        self.begun, self.marks = _seconds(), []

    def done(self, count: int) -> None:
        self.marks.append((_seconds() - self.begun, count))

    def told(self, over: int) -> dict[str, float]:
        """first: with loading and compiling; picture: of each after it; over: pictures in all."""
        seconds = _seconds() - self.begun
        marks = [(at, count) for at, count in self.marks if count]
        if len(marks) < 2:
            return {"all_s": round(seconds, 2), "picture_s": round(seconds / over, 4)}
        (first, _), *rest = marks
        each = (marks[-1][0] - first) / sum(count for _, count in rest)
        return {"all_s": round(seconds, 2), "first_s": round(first, 2), "picture_s": round(each, 4)}


def _seconds() -> float:
    times = os.times()
    return times.user + times.system


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def measure(weights: Path, root: Path, result: Path) -> dict:
    """Score it; for every metric its value, seconds and the peak of memory so far."""
    contest = read_contest(root)
    settings = run.Settings(weights=weights, cache=None, device="cpu")
    ready, missing = run.prepare(settings)
    assert not missing, missing
    clock = Clock()
    pictures = Pictures(contest, result, FeatureCache(None), clock.done)
    count = {"pictures": len(pictures.all_generated), "references": len(pictures.all_references)}
    rows, values = {}, {}
    with run.on_device("cpu"):
        for one in ready:
            clock.restart()
            values[one.name] = run.compute(one, False, pictures).total
            used = SCORERS[one.name].references
            told = clock.told(count["pictures"] + used * count["references"])
            every = BOARD_B["pictures"] + used * BOARD_B["references"]
            board = told.get("first_s", 0.0) + told["picture_s"] * every
            rows[one.name] = {**told, "peak_gib": _peak_gib(), "board_b_s": round(board, 1)}
            print(one.name, rows[one.name], flush=True)
    board = sum(row["board_b_s"] for row in rows.values())
    return {"total": total(values), "values": values, **count, "metrics": rows} | {
        "peak_gib": _peak_gib(),
        "board_b_processor_s": round(board, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for weights and pictures")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file")
    parser.add_argument("--styles", type=int, default=14)
    parser.add_argument("--prompts", type=int, default=5, help="per style")
    args = parser.parse_args()
    weights, contest = args.work / "weights", args.work / f"{args.styles}x{args.prompts}"
    if not weights.exists():
        write_weights(weights)
    if not contest.exists():
        write_contest(contest, args.styles, args.prompts)
    found = measure(weights, contest / "root", contest / "result")
    about = {"machine": machine.processor(), "versions": machine.versions()}
    about |= {"threads": os.environ.get("OMP_NUM_THREADS"), "commit": machine.commit()}
    print(json.dumps({**found, **about}, indent=2))
    if args.out is not None:
        write_json(args.out, {**about, **found})


if __name__ == "__main__":
    main()
