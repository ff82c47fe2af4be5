"""What the stages share that judge the pictures of the stage before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jstyle.sd.progress import progress_of

from .judging import Judged, settled
from .manifest import digest
from .paint import Pictures
from .stages import Stage

if TYPE_CHECKING:
    from .worker import Worker


class Verdicts(NamedTuple):
    """rows: what the manifest of the stage before says of each picture; asked: their prompts."""

    rows: list[dict]
    paths: list[Path]
    asked: list[str]
    judged: Judged


class JudgingStage(Stage):
    """A stage after generate or refine; the style's `choose` says how it judges."""

    needs = ("generate", "refine")

    @property
    def before(self) -> Pictures:
        """The stage that made the pictures."""
        return list(self.earlier.values())[-1]

    def judge_inputs(self) -> dict:
        """Those of its inputs that say how it judges, and after which references."""
        cfg = self.task.options.choose
        references = {path.name: digest(path) for path in self.task.style.references}
        return {"options": asdict(cfg), "judge": settled(cfg), "references": references}

    def units(self) -> int:
        return len(self.before.items) * self.task.options.choose.draws

    def count(self) -> tuple[int, str]:
        return len(self.before.items), self.unit

    def verdicts(self, worker: Worker, bar: Callable | None, words: Sequence[str]) -> Verdicts:
        """Judge every picture; words: among which the untrained model recognises one."""
        from .judge import judge

        cfg, style, sd = self.task.options.choose, self.task.style, worker.plain(self.task.setup)
        rows = self.before.current().facts["pictures"]
        paths = [self.before.folder / row["file"] for row in rows]
        asked = [row["prompt"] for row in rows]
        with progress_of(bar, self.units()) as progress:
            judged = judge(sd, style, paths, asked, words, cfg, progress.update)
        return Verdicts(rows, paths, asked, judged)
