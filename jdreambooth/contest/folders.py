"""Where things are in the folder of a contest run (drawn in __init__.py), and what it remembers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jstyle.sd import files, locks, targets
from jstyle.sd.reading import read_object

from .config import ContestConfig, make_config

LONGEST_LOCKED = 60  # characters of a folder's name in that of its lock
RECORD, RESULT, STYLES, PRIOR = "contest.json", "result", "styles", "prior"


class OutError(ValueError):
    """A folder that is not one of a contest run; one line."""


@dataclass(frozen=True)
class Out:
    """The folder given with --out."""

    folder: Path

    def style(self, name: str) -> Path:
        return self.folder / STYLES / name

    def stage(self, style: str, stage: str) -> Path:
        return self.style(style) / stage

    def stage_folder(self, stage: Any) -> Path:
        """Where a Stage works."""
        return self.stage(stage.task.name, stage.name)

    def prior(self, key: str) -> Path:
        return self.folder / PRIOR / key[:16]

    @property
    def result(self) -> Path:
        return self.folder / RESULT


@dataclass(frozen=True)
class Record:
    """What the last run was asked for. fingerprint: of its model's files."""

    out: Out
    root: Path
    config: ContestConfig
    fingerprint: str

    def write(self) -> None:
        """Remember it, so that `status` and `report` need nothing but the folder."""
        config = self.config
        about: dict[str, Any] = {"root": str(self.root.resolve()), "config": config.where}
        about |= {"config_folder": str(config.folder.resolve()), "values": config.values}
        files.write_json(self.out.folder / RECORD, {**about, "fingerprint": self.fingerprint})


def read_record(folder: str | Path) -> Record:
    """Raises OutError."""
    path = Path(folder) / RECORD
    try:
        files.require_folder(folder)
        found = read_object(path)
        config = make_config(found["values"], found["config"], Path(found["config_folder"]))
        return Record(Out(Path(folder)), Path(found["root"]), config, found["fingerprint"])
    except files.MissingFile as error:
        raise OutError(f"{error}, so {folder} is not of a contest run") from None
    except files.InputError as error:
        raise OutError(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutError(f"{path}: cannot be read ({error})") from None


def require_ours(out: Out) -> None:
    """Raise OutError if the folder holds something where a run puts, and removes, its own things,
    and is of no run."""
    if targets.is_ours(out.folder / RECORD):
        return
    for name in (RECORD, RESULT, STYLES, PRIOR):
        place = out.folder / name
        if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
            raise OutError(
                f"{place}: is there already and not of a contest run; choose another folder"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process, here or on another machine, works in `folder`; the lock is a
    hidden file beside it."""
    files.writable_folder(folder.parent)
    name = f".{folder.name[:LONGEST_LOCKED]}.lock"
    with locks.holding(folder.with_name(name), wait=True):
        yield
