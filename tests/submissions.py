"""Submissions as people hand them in, and as an attacker would: name -> make(path, result)."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from tests.contests import SIZE, make_contest, save

HUGE = 1 << 40
ACCENTED = "Caf\u00e9"  # one letter, which macOS writes as two


def make_root(folder: Path) -> tuple[Path, Path]:
    """As make_contest, with a prompt that has an accent."""
    root, result = make_contest(folder)
    prompts = {"0": "Ice cream", "1": "wallet_", "2": ACCENTED}
    (root / "00" / "prompt.json").write_text(json.dumps(prompts))
    save(result / "00" / f"{ACCENTED}.png", 9)
    return root, result


def files_of(result: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(result.rglob("*.png")):
        yield path.relative_to(result).as_posix(), path.read_bytes()


def make_zip(path: Path, result: Path, inside: str = "") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files_of(result):
            archive.writestr(inside + name, data)


def add(path: Path, name: str | zipfile.ZipInfo, data: bytes = b"x") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the second file of one name
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)


def png(size=(SIZE, SIZE), mode: str = "RGB", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 7).save(out, kind)
    return out.getvalue()


def without(path: Path, result: Path, left_out: str, data: bytes | None, **about: int) -> None:
    """A zip in which one picture is another, or not there. about: fields of its ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, own in files_of(result):
            if name != left_out:
                archive.writestr(name, own)
        if data is not None:
            info = zipfile.ZipInfo(left_out)
            info.compress_type = about.pop("method", zipfile.ZIP_DEFLATED)
            for key, value in about.items():
                setattr(info, key, value)
            archive.writestr(info, data)


def patched(path: Path, result: Path, left_out: str, offset: int, value: bytes) -> None:
    """Change a field of one picture's entry in the zip's table of contents."""
    without(path, result, left_out, png())
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(data)


def flooded(path: Path, count: int = 1_000_000) -> None:
    """A zip with so many empty files, written without a library, which would take minutes."""
    name = b"00/xxxxxx"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0
    )
    directory = (entry + name) * count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), len(local), 0)
    path.write_bytes(local + directory + end)


def overlapping(path: Path, result: Path) -> None:
    """Every entry points at the bytes of the first one, so that little becomes much."""
    make_zip(path, result)
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\1\2")
    while place >= 0:
        data[place + 42 : place + 46] = bytes(4)
        place = data.find(b"PK\1\2", place + 4)
    path.write_bytes(data)


def large_picture(side: int = 10_000) -> bytes:
    """A picture of 100 million pixels in a few hundred kB."""
    row = zlib.compressobj(1)
    body = b"".join(row.compress(bytes(side * 3 + 1)) for _ in range(side)) + row.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def comments(count: int = 40) -> bytes:
    """A picture whose texts unpack to gigabytes."""
    data = png()
    text = b"zTXta\0\0" + zlib.compress(bytes(1 << 26), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk * count + data[33:]


def folder(path: Path, result: Path) -> Path:
    shutil.copytree(result, path)
    return path


def named_pipe(path: Path, result: Path) -> None:
    (folder(path, result) / "00" / "wallet_.png").unlink()
    os.mkfifo(path / "00" / "wallet_.png")


def linked_file(path: Path, result: Path) -> None:
    (folder(path, result) / "00" / "wallet_.png").unlink()
    (path / "00" / "wallet_.png").symlink_to(result / "00" / "wallet_.png")


def linked_folder(path: Path, result: Path) -> None:
    shutil.rmtree(folder(path, result) / "01")
    (path / "01").symlink_to(result / "01")


def loop(path: Path, result: Path) -> None:
    (folder(path, result) / "00" / "again").symlink_to(path)


def device(path: Path, result: Path) -> None:
    (folder(path, result) / "01" / "Dog.png").unlink()
    (path / "01" / "Dog.png").symlink_to("/dev/zero")


def sparse(path: Path, result: Path) -> None:
    os.truncate(folder(path, result) / "01" / "Dog.png", HUGE)


def deep(path: Path, result: Path) -> None:
    shutil.rmtree(folder(path, result) / "01")
    path.joinpath(*["x"] * 300).mkdir(parents=True)


def crowded(path: Path, result: Path) -> None:
    folder(path, result)
    for i in range(20_100):
        (path / f"{i}").touch()


def a_socket(path: Path, result: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name may not be long
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def bytes_of(data: bytes) -> Callable[[Path, Path], None]:
    return lambda path, result: path.write_bytes(data)


def linked_in_zip(path: Path, result: Path) -> None:
    without(path, result, DOG, b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16)


def with_name(name: str) -> Callable[[Path, Path], None]:
    def make(path: Path, result: Path) -> None:
        make_zip(path, result)
        add(path, name)

    return make


def with_hole(path: Path, result: Path) -> None:
    """A name with a zero in it, which most programs take for its end."""
    with_name("00/aXb.png")(path, result)
    path.write_bytes(path.read_bytes().replace(b"00/aXb.png", b"00/a\0b.png"))


def apart(path: Path, result: Path) -> None:
    """As macOS writes names: letters and accents apart."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files_of(result):
            archive.writestr(unicodedata.normalize("NFD", name), data)


DOG = "01/Dog.png"
GOOD: dict[str, Callable[[Path, Path], object]] = {  # scored like the result itself
    "a folder": folder,
    "plain.zip": make_zip,
    "inside.zip": lambda path, result: make_zip(path, result, "team/result/"),
    "=1+1.zip": make_zip,
    "\u202egnp.zip": make_zip,
    "windows.zip": lambda path, result: with_backslashes(path, result),
    "clutter.zip": with_name("__MACOSX/00/._Ice cream.png"),
    "surplus.zip": with_name("00/notes.txt"),
    "nested.zip": with_name("00/more.zip"),
    "names.zip": apart,
    "loop": loop,
}


def with_backslashes(path: Path, result: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files_of(result):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name.replace("/", "\\")
            archive.writestr(info, data)


def in_a_folder(path: Path, result: Path) -> None:
    path.mkdir()
    make_zip(path / "work.zip", result)


GOOD["moodle_123_file_"] = in_a_folder
HOSTILE: dict[str, tuple[Callable[[Path, Path], object], str]] = {  # and what is said of it
    "up.zip": (with_name("../../up.txt"), "../../up.txt: its name leads out of the zip"),
    "absolute.zip": (with_name("/absolute.txt"), "its name leads out of the zip"),
    "drive.zip": (with_name("C:\\absolute.txt"), "its name leads out of the zip"),
    "hole.zip": (with_hole, "its name leads out of the zip"),
    "link.zip": (linked_in_zip, f"{DOG}: is a link"),
    "twice.zip": (with_name(DOG), f"{DOG}: is there 2 times"),
    "secret.zip": (lambda p, r: patched(p, r, DOG, 8, b"\1\0"), f"{DOG}: is encrypted"),
    "lzma.zip": (
        lambda p, r: without(p, r, DOG, png(), method=zipfile.ZIP_LZMA),
        f"{DOG}: is packed by method 14",
    ),
    "flood.zip": (lambda p, r: flooded(p), "its table of contents has 55000000 bytes"),
    "overlap.zip": (overlapping, "its members overlap"),
    "bomb.zip": (lambda p, r: without(p, r, DOG, bytes(1 << 27)), f"{DOG}: claims 134217728"),
    "claim.zip": (
        lambda p, r: patched(p, r, DOG, 24, struct.pack("<I", 1 << 25)),
        f"{DOG}: ",
    ),
    "less.zip": (lambda p, r: patched(p, r, DOG, 24, struct.pack("<I", 60)), f"{DOG}: cannot be"),
    "crc.zip": (lambda p, r: patched(p, r, DOG, 16, b"abcd"), f"{DOG}: cannot be read (Bad CRC"),
    "large.zip": (
        lambda p, r: without(p, r, DOG, large_picture()),
        f"{DOG}: is 10000 x 10000, at most 16777216 pixels are read",
    ),
    "texts.zip": (lambda p, r: without(p, r, DOG, comments()), f"{DOG}: "),
    "text.zip": (lambda p, r: without(p, r, DOG, b"no picture"), f"{DOG}: is not an image"),
    "jpeg.zip": (lambda p, r: without(p, r, DOG, png(kind="JPEG")), f"{DOG}: must be PNG, is JPEG"),
    "alpha.zip": (
        lambda p, r: without(p, r, DOG, png(mode="RGBA")),
        f"{DOG}: must be RGB, is RGBA",
    ),
    "script.zip": (
        lambda p, r: without(p, r, DOG, b"%!PS-Adobe-3.0\n(x) run\n"),
        f"{DOG}: a page or drawing is not read here",
    ),
    "half.zip": (lambda p, r: without(p, r, DOG, png()[:-40]), f"{DOG}: cannot be read"),
    "size.zip": (lambda p, r: without(p, r, DOG, png((64, 64))), f"{DOG}: is 64 x 64, most others"),
    "missing.zip": (lambda p, r: without(p, r, DOG, None), f"{DOG}: missing"),
    "no zip.zip": (bytes_of(b"Rar!\x1a\x07\0" + bytes(100)), "is not a zip file that can be read"),
    "empty.zip": (bytes_of(b""), "it is empty"),
    "cut.zip": (
        lambda p, r: (make_zip(p, r), os.truncate(p, p.stat().st_size - 30)),
        "is not a zip file that can be read",
    ),
    "other.zip": (lambda p, r: add(p, "readme.txt"), "holds no picture of the contest"),
    "answers.7z": (bytes_of(b"7z\xbc\xaf\x27\x1c" + bytes(100)), "is not a zip file"),
    "pipe in it": (named_pipe, "00/wallet_.png: is a pipe"),
    "link in it": (linked_file, "00/wallet_.png: is a link; links are not followed"),
    "linked folder": (linked_folder, "01: missing, with its 3 pictures"),
    "endless": (device, f"{DOG}: is a link"),
    "sparse": (sparse, f"{DOG}: has {HUGE} bytes"),
    "deep": (deep, "01: missing, with its 3 pictures"),
    "crowd": (crowded, "more than 20000 files and folders"),
    "a pipe": (lambda p, r: os.mkfifo(p), "is a pipe"),
    "a socket": (a_socket, "is a socket"),
    "a link": (lambda p, r: p.symlink_to(r), "is a link"),
    "<img src=x onerror=alert(1)>.zip": (bytes_of(b"PK"), "is not a zip file"),
}


def make_submissions(folder: Path, result: Path) -> None:
    """All of GOOD and HOSTILE, in `folder`."""
    folder.mkdir()
    for name, make in GOOD.items():
        make(folder / name, result)
    for name, (make, _) in HOSTILE.items():
        make(folder / name, result)
