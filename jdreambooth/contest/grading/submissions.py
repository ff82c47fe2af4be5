"""A submission as its files, read without trusting it: a zip, or a folder.

Nothing is unpacked by name: members are listed, and the few that a contest asks for are read, each
up to a bound. Links are not followed, and of zips only what is stored or deflated is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jstyle.sd.picture_files import is_clutter
from jstyle.sd.places import KINDS
from jstyle.sd.printable import reason_of

LARGEST_PICTURE = 1 << 26  # bytes of a file that is read
LARGEST_SUBMISSION = 1 << 32  # of all that are read of one submission
LARGEST_ZIP = 1 << 33
LARGEST_DIRECTORY = 1 << 21  # of a zip's table of contents, which has 46 and more for each file
MOST_FILES, DEEPEST = 20_000, 16  # of a folder; 28 styles with 25 pictures have 700 files
CHUNK = 1 << 20
ENCRYPTED = 0x1 | 0x40
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for 4 GB to unpack 1 KB


class SubmissionError(ValueError):
    """A submission of which nothing can be used; one line, without its name."""


class MemberError(ValueError):
    """A file of a submission that cannot be read; one line, without its name."""


@dataclass(frozen=True)
class Member:
    """One file. parts: of its path inside. fault: why it cannot be read, None if it can.
    astray: its name leads out of the submission. place: for whoever reads it."""

    parts: tuple[str, ...]
    size: int
    fault: str | None
    astray: bool
    place: Any

    @property
    def name(self) -> str:
        return "/".join(self.parts)


@dataclass(frozen=True)
class Submission:
    """`members` without what systems leave behind. opened: the path of the zip or folder."""

    opened: Path
    members: list[Member]
    archive: zipfile.ZipFile | None = None

    def read(self, member: Member) -> bytes:
        """The bytes of a member, which may be a bomb. Raises MemberError."""
        if member.fault is not None:
            raise MemberError(member.fault)
        try:
            with self._open(member) as file:
                data = _read_bounded(file)
        except MemberError:
            raise
        except Exception as error:  # what damaged zips raise has no common type
            raise MemberError(f"cannot be read ({reason_of(error)})") from None
        if len(data) != member.size:
            raise MemberError(f"has {len(data)} bytes instead of the {member.size} that it claims")
        return data

    def _open(self, member: Member) -> Any:
        if self.archive is not None:
            return self.archive.open(member.place)
        handle = os.open(member.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = open(handle, "rb")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise MemberError("is no regular file")
        return file


def _read_bounded(file: BinaryIO) -> bytes:
    pieces, left = [], LARGEST_PICTURE + 1
    while left > 0 and (piece := file.read(min(CHUNK, left))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise MemberError(f"has more than {LARGEST_PICTURE} bytes")
    return b"".join(pieces)


@contextmanager
def open_submission(path: Path) -> Iterator[Submission]:
    """The zip or folder, listed; a folder that holds one zip and nothing else stands for the zip.

    Raises SubmissionError.
    """
    if path.is_symlink():
        raise SubmissionError("is a link; put the zip or folder itself here")
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        members = list(_listed(path))
        zips = [m for m in members if m.name.lower().endswith(".zip") and m.fault is None]
        if len(members) != 1 or not zips or len(zips[0].parts) > 1:
            yield Submission(path, members)
            return
        path = path / zips[0].parts[0]
    elif not stat.S_ISREG(mode):
        raise SubmissionError(f"is {KINDS.get(stat.S_IFMT(mode), 'something else')}")
    with _opened(path) as archive:
        yield Submission(path, _members(archive, path.stat().st_size), archive)


# ---- folders


def _listed(folder: Path) -> Iterator[Member]:
    waiting: list[tuple[str, ...]] = [()]
    seen = 0
    while waiting:
        above = waiting.pop()
        try:
            entries = os.scandir(folder.joinpath(*above))
        except OSError as error:
            yield Member(above, 0, f"cannot be looked into ({reason_of(error)})", False, None)
            continue
        with entries:
            for entry in entries:
                seen += 1
                if seen > MOST_FILES:
                    raise SubmissionError(f"more than {MOST_FILES} files and folders")
                parts = (*above, entry.name)
                if is_clutter(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False) and len(parts) <= DEEPEST:
                    waiting.append(parts)
                else:
                    yield _of_file(entry, parts)


def _of_file(entry: os.DirEntry, parts: tuple[str, ...]) -> Member:
    found = entry.stat(follow_symlinks=False)
    fault = None
    if entry.is_symlink():
        fault = "is a link; links are not followed"
    elif not stat.S_ISREG(found.st_mode):
        fault = f"is {KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}"
    elif found.st_size > LARGEST_PICTURE:
        fault = f"has {found.st_size} bytes, at most {LARGEST_PICTURE} are read"
    return Member(parts, found.st_size, fault, False, entry.path)


# ---- zips


class _Bounded:
    """A file that refuses to read a zip's table of contents of any size."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_DIRECTORY:
            told = f"{size} bytes, at most {LARGEST_DIRECTORY} are read"
            raise SubmissionError(f"its table of contents has {told}")
        return self._file.read(size)

    def seekable(self) -> bool:
        return True


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_ZIP:
            raise SubmissionError(f"has {size} bytes, at most {LARGEST_ZIP} are read")
        try:
            archive = zipfile.ZipFile(_Bounded(file))  # type: ignore[arg-type]
        except SubmissionError:
            raise
        except Exception as error:  # what damaged zips raise has no common type
            reason = "it is empty" if not size else reason_of(error)
            raise SubmissionError(f"is not a zip file that can be read ({reason})") from None
        with archive:
            yield archive


def _members(archive: zipfile.ZipFile, size: int) -> list[Member]:
    """Raises SubmissionError for members that share bytes, as those of bombs do."""
    end, members = 0, []
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end or info.header_offset + info.compress_size > size:
            raise SubmissionError("its members overlap, or reach beyond its end: it is a bomb")
        end = info.header_offset + 30 + info.compress_size
        if not info.orig_filename.endswith(("/", "\\")):
            member = _of_zip(info)
            if member.astray or not any(map(is_clutter, member.parts)):
                members.append(member)
    return members


def _of_zip(info: zipfile.ZipInfo) -> Member:
    """Backslashes part folders, as some of Windows' programs write them."""
    name = info.orig_filename.replace("\\", "/")
    absolute = name.startswith("/") or name[1:2] == ":"
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    astray = absolute or ".." in parts or "\0" in name
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = None
    if astray:
        fault = "its name leads out of the zip"
    elif kind not in (0, stat.S_IFREG):
        fault = "is a link" if kind == stat.S_IFLNK else "is no regular file"
    elif info.flag_bits & ENCRYPTED:
        fault = "is encrypted"
    elif info.compress_type not in METHODS:
        fault = f"is packed by method {info.compress_type}; read are stored and deflated files"
    elif info.file_size > LARGEST_PICTURE:
        fault = f"claims {info.file_size} bytes, at most {LARGEST_PICTURE} are read"
    return Member((name,) if astray else parts, info.file_size, fault, astray, info)


# ---- what tells one submission from another


def digest_of(path: Path) -> str:
    """A hash of the contents: of a zip's bytes; of a folder's names and of its files up to
    LARGEST_PICTURE. Raises SubmissionError like open_submission."""
    found = hashlib.sha256()
    if not path.is_symlink() and path.is_dir():
        submission = Submission(path, sorted(_listed(path), key=lambda member: member.parts))
        for member in submission.members:
            about = f"{member.name!r} {member.size} {member.fault}\0"
            found.update(about.encode())
            if member.fault is None:
                found.update(hashlib.sha256(submission.read(member)).digest())
    elif not path.is_symlink() and path.is_file():
        if path.stat().st_size > LARGEST_ZIP:
            raise SubmissionError(f"has more than {LARGEST_ZIP} bytes")
        with open(path, "rb") as file:
            while piece := file.read(CHUNK):
                found.update(piece)
    return found.hexdigest()
