"""The stage that takes the best of several candidates of every prompt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jstyle.sd import files

from .judged import JudgingStage
from .judging import TOLD, Judged, settled

if TYPE_CHECKING:
    from .worker import Worker

RECORD = "choice.json"


class Choose(JudgingStage):
    """PROMPT.png, copies of the candidates that add most to the style's score by the judge, and
    choice.json: every candidate with its parts, and why one was taken. The candidates stay where
    they are, in the folder of the stage before."""

    name, unit = "choose", "candidate"

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.task.style.prompts

    def check(self) -> None:
        settled(self.task.options.choose)

    def own_inputs(self) -> dict:
        pictures = self.before.current().outputs
        return {**self.judge_inputs(), "prompts": [*self.prompts], "pictures": pictures}

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        from .judge import words_of

        cfg = self.task.options.choose
        rows, paths, asked, judged = self.verdicts(worker, bar, words_of(self.task.style))
        by, _ = settled(cfg)
        chosen, told = [], {}
        for prompt in self.prompts:
            places = [i for i, name in enumerate(asked) if name == prompt]
            best = places[int(np.argmax(judged.gains[places]))]  # the first of equal ones
            chosen.append({**rows[best], "candidate": rows[best]["file"], "file": f"{prompt}.png"})
            told[prompt] = explained(rows, judged, places, best)
            self._copy(paths[best], f"{prompt}.png")
        about = {"judge": TOLD[by], "options": asdict(cfg)}
        files.write_json(self.folder / RECORD, {**about, "prompts": told})
        return {"judge": by, "pictures": chosen, "parts": sorted(judged.parts)}

    def _copy(self, source: Path, name: str) -> None:
        with files.atomic_write(self.folder / name) as part:
            shutil.copyfile(source, part)

    def outputs(self) -> list[Path]:
        return [self.folder / RECORD, *(self.folder / f"{prompt}.png" for prompt in self.prompts)]


def explained(rows: list[dict], judged: Judged, places: list[int], best: int) -> dict:
    """The candidates of one prompt with their parts, and in words why one of them was taken."""
    each = []
    for i in places:
        row = {name: rows[i][name] for name in ("file", "seed")}
        parts = {name: round(float(values[i]), 6) for name, values in judged.parts.items()}
        each.append({**row, **parts, "gain": round(float(judged.gains[i]), 6), "chosen": i == best})
    others = [i for i in places if i != best]
    means = [
        f"{name} {values[best]:.3f} (the others' mean {values[others].mean():.3f})"
        for name, values in judged.parts.items()
        if name != "fid"  # is one number for all
    ]
    why = f"adds most to the product of the means: {', '.join(means)}"
    return {"chosen": rows[best]["file"], "why": why, "candidates": each}
