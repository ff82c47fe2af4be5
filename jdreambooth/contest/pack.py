"""A submission as a zip file: the same pictures give the same bytes, whenever and wherever."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from jstyle.score.layout import Contest, check_result, raise_problems, result_path
from jstyle.sd import files, targets

MODE = 0o644 << 16
UNIX = 3


def pack(
    result: str | Path,
    contest: Contest,
    out: str | Path,
    inside: str = "",
    overwrite: bool = False,
) -> list[str]:
    """Write RESULT/SS/PROMPT.png of every style as SS/PROMPT.png into a zip. Returns the names.

    inside: a folder in the zip that holds it all. Nothing is compressed, since PNG files are.
    overwrite: also replace a file that is no submission of ours.
    Raises ContestError with every problem of the submission, ValueError for a bad `out` or
    `inside`, OSError if it cannot be written.
    """
    out, above = Path(out), PurePosixPath(inside)
    if out.suffix != ".zip":
        raise ValueError(f"{out}: the name must end in .zip")
    if out.resolve().is_relative_to(Path(result).resolve()):
        raise ValueError(f"{out}: is inside the submission; write it elsewhere")
    if above.is_absolute() or ".." in above.parts or "\\" in inside:
        raise ValueError(f"inside must be a folder's name, got {inside!r}")
    targets.require_free([out], overwrite)
    raise_problems(f"{result}: cannot be packed", check_result(result, contest))
    entries = {}
    for style in contest.styles:
        for prompt in style.prompts:
            path = result_path(result, style.name, prompt)
            entries[str(above / style.name / path.name)] = path
    with files.output_folder(out.parent), files.atomic_write(out) as part:
        with zipfile.ZipFile(part, "w") as archive:
            for name in sorted(entries):
                archive.writestr(_entry(name), entries[name].read_bytes())
    return sorted(entries)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, targets.ZIP_DATE)
    entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_STORED, MODE, UNIX
    return entry
