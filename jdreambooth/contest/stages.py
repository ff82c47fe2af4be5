"""The stages of one style: what each is made from, and how. Drawn in __init__.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from jstyle import __version__

from . import manifest as manifests
from .manifest import Manifest, digest, key_of, read_manifest
from .task import Task

if TYPE_CHECKING:
    from .worker import Worker


class Stage:
    """One stage of one style. Subclasses say what it is made from (`inputs`) and how (`make`)."""

    name = ""
    revision = 1  # to be raised when the same inputs give other outputs
    unit = "step"

    def __init__(self, task: Task, earlier: Mapping[str, Any]):
        self.task, self.earlier = task, earlier
        self._current: Manifest | None = None
        self.place: Path | None = None  # where an `Out` found that it belongs

    @property
    def folder(self) -> Path:
        return self.task.setup.out.stage_folder(self)

    def inputs(self) -> dict | None:
        """Everything the outputs depend on; None while an earlier stage is not current."""
        if any(stage.current() is None for stage in self.earlier.values()):
            return None
        own, setup = self.own_inputs(), self.task.setup
        common = {"stage": self.name, "revision": self.revision, "jstyle": __version__}
        common["jittor"] = metadata.version("jittor")
        return {**common, "model": setup.fingerprint, "size_px": setup.size_px, **own}

    def own_inputs(self) -> dict:
        raise NotImplementedError

    def check(self) -> None:
        """Raise ValueError for what would stop the stage when its turn comes, hours later."""

    def current(self) -> Manifest | None:
        """The manifest, if nothing is missing or changed."""
        if self._current is None and (inputs := self.inputs()) is not None:
            found = read_manifest(self.folder)
            if found is not None and found.key == key_of(inputs) and found.is_whole(self.folder):
                self._current = found
        return self._current

    def count(self) -> tuple[int, str]:
        """How much there is to make, for people: (500, "step")."""
        return self.units(), self.unit

    def units(self) -> int:
        """How much work it is in all, in evaluations of the network for one picture."""
        raise NotImplementedError

    def units_done(self) -> int:
        """How much of it an interrupted stage has left in its folder."""
        return 0

    def make(self, worker: Worker, bar: Callable | None) -> dict:
        """Do the work, going on from what is there. Returns facts for later stages and reports."""
        raise NotImplementedError

    def outputs(self) -> list[Path]:
        """The files that were made, for their hashes."""
        raise NotImplementedError

    def repair(self, found: Manifest) -> None:
        """Make a finished stage, some of whose outputs are gone or damaged, one that goes on."""
        for name, value in found.outputs.items():
            path = self.folder / name
            if path.is_file() and digest(path) != value:
                path.unlink()

    def run(self, worker: Worker, bar: Callable | None = None) -> Manifest:
        """Do what is missing and record it."""
        inputs = self.inputs()
        made = Manifest(self.name, self.task.name, key_of(inputs), inputs)
        found = read_manifest(self.folder)
        if found is not None and found.key == made.key and found.done:
            self.repair(found)
        manifests.open_folder(self.folder, made)
        worker.plain(self.task.setup)  # so that loading does not count
        before, started = self.units_done(), perf_counter()
        made.facts = self.make(worker, None if bar is None else partial(self._named, bar))
        seconds = perf_counter() - started
        made.measured = {"seconds": round(seconds, 3), "units": self.units() - before}
        made.outputs = {self._called(path): digest(path) for path in self.outputs()}
        made.done = True
        made.write(self.folder)
        self._current = made
        return made

    def _named(self, bar: Callable, total: int):
        made = bar(total)
        made.set_description(f"{self.task.name} {self.name}", refresh=False)
        return made

    def _called(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else str(path.resolve())
