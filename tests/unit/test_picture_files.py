"""Which files of a folder are pictures, what is told about the others, and who decodes them."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jstyle.commands.inputs import find_pictures
from jstyle.score.layout import ContestError
from jstyle.score.pictures import read_rgb
from jstyle.sd import image, picture_files
from jstyle.sd.image import ImageError
from jstyle.sd.picture_files import FORMATS, SUFFIXES, list_images, open_picture, pictures_in

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def plain(size=(16, 12)):
    return Image.new("RGB", size, (200, 30, 60))


def lines_about(caplog, name):
    return [line for line in caplog.messages if name in line]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps"])
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, name):
    programs, trace = tmp_path / "programs", tmp_path / "gs-was-here"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho \"$@\" >> '{trace}'\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / name
    path.write_bytes(EPS)
    for read, error in ((image.load, ImageError), (read_rgb, ContestError)):
        with pytest.raises(error, match="page or drawing is not read here; save it as PNG"):
            read(path)
    assert not trace.exists()


def test_every_picture_is_opened_in_one_place():
    root = Path(picture_files.__file__).parents[2]
    users = {
        path.name
        for package in ("jstyle", "jdreambooth")
        for path in (root / package).rglob("*.py")
        if "Image.open(" in path.read_text(encoding="utf-8")
    }
    assert users == {"picture_files.py"}
    risky = {"EPS", "WMF", "PSD", "FITS", "MIC", "FPX", "GRIB", "HDF5", "BUFR", "MPEG"}
    assert not risky & set(FORMATS)


def test_what_the_decoders_write_under_each_suffix_is_listed_and_read(tmp_path):
    Image.init()
    registered = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert registered - set(SUFFIXES) <= {".avifs", ".dib", ".pfm"}  # told when they lie there
    for number, suffix in enumerate(SUFFIXES):
        kind = next(name for name, suffixes in picture_files.READ.items() if suffix in suffixes)
        path = tmp_path / f"{number:02d}{suffix.upper() if number % 2 else suffix}"
        plain().save(path, kind)
    assert [path.suffix.lower() for path in list_images(tmp_path)] == list(SUFFIXES)
    for path in list_images(tmp_path):
        pixel = np.asarray(image.read_rgb(path))[5, 5].astype(int)
        assert np.abs(pixel - (200, 30, 60)).max() <= (255 if path.suffix == ".pbm" else 12), path


def test_everything_like_a_picture_that_is_left_out_gets_one_line(tmp_path, caplog):
    for name in ("b.png", "IMG_0001.JPG", "d.jfif"):
        plain().save(tmp_path / name, "PNG" if name == "b.png" else "JPEG")
    for name in ("c.HEIC", "raw.NEF", "layers.psd", "logo.svg", "old.tga"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    silent = (".DS_Store", "._b.png", "Thumbs.db", "desktop.ini", "notes.txt", "b.txt")
    for name in silent:
        (tmp_path / name).write_bytes(b"x")
    for name in ("sub", ".ipynb_checkpoints", "__MACOSX", "texts"):
        (tmp_path / name).mkdir()
        plain().save(tmp_path / name / ("x.png" if name != "texts" else ".x.png"))
    for _ in range(2):  # a command may look twice and need not repeat itself
        names = [path.name for path in list_images(tmp_path)]
        assert names == ["IMG_0001.JPG", "b.png", "d.jfif"]
    told = {
        "c.HEIC": "heif-convert",
        "raw.NEF": "develop it to PNG",
        "layers.psd": "flat copy as PNG",
        "logo.svg": "save it as PNG",
        "old.tga": "tga is not read here",
        "link.png": "a link to what is not there",
        "pipe.png": "not a regular file",
        "sub": "not looked into sub, where there are pictures too",
    }
    for name, words in told.items():
        (line,) = lines_about(caplog, f"/{name}: " if "." in name else f"into {name},")
        assert words in line and "\n" not in line
    assert len(caplog.messages) == len(told)


def test_many_files_left_out_for_one_reason_are_counted(tmp_path, caplog):
    for number in range(14):
        (tmp_path / f"{number:02d}.heic").write_bytes(b"x")
    assert pictures_in(tmp_path) == [] and len(caplog.messages) == 11
    assert "4 more files: HEIC" in caplog.messages[-1]


@pytest.mark.parametrize(
    "head, words",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read here; convert it"),
        (b"8BPS\0\1", "a file with layers"),
        (b"%PDF-1.7", "a page or drawing"),
    ],
)
def test_another_format_under_the_name_of_a_picture_is_named(tmp_path, head, words):
    (tmp_path / "a.jpg").write_bytes(head + bytes(64))
    with pytest.raises(ImageError, match=f"a.jpg: {words}"):
        image.load(tmp_path / "a.jpg")


def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path, kind in ((tmp_path / "a.png", "a pipe"), (Path("/dev/zero"), "a device")):
        for read in (image.load, open_picture, find_pictures):
            with pytest.raises(ImageError, match=f"{path}: {kind}, not a file"):
                read(path)
        with pytest.raises(ContestError, match=f"{kind}, not a file"):
            read_rgb(path)


def test_a_name_that_is_not_utf8_is_refused_before_the_work(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        plain().save(tmp_path / "a.png")
        os.rename(tmp_path / "a.png", path)
    except OSError:
        pytest.skip("this file system takes no such names")
    for read in (lambda: find_pictures(tmp_path), lambda: image.load(os.fsdecode(path))):
        with pytest.raises(ImageError, match=r"caf\\udce9.png': the name is not UTF-8; rename it"):
            read()


def test_the_bound_on_pixels_has_a_switch(tmp_path, monkeypatch):
    plain((40, 30)).save(tmp_path / "a.png")
    monkeypatch.setenv("JSTYLE_MAX_PIXELS", "1199")
    told = "40 x 30 are more than 1199 pixels; make it smaller, or set JSTYLE_MAX_PIXELS higher"
    for read, error in ((image.load, ImageError), (read_rgb, ContestError)):
        with pytest.raises(error, match=told):
            read(tmp_path / "a.png")
    monkeypatch.setenv("JSTYLE_MAX_PIXELS", "1200")
    assert image.load(tmp_path / "a.png").shape == (1, 3, 24, 40)
    for bad in ("0", "-5", "many", "1e6"):
        monkeypatch.setenv("JSTYLE_MAX_PIXELS", bad)
        with pytest.raises(ImageError, match="JSTYLE_MAX_PIXELS must be a number of pixels above"):
            image.load(tmp_path / "a.png")


def test_pillows_own_bound_neither_stops_nor_warns_and_is_put_back(tmp_path, monkeypatch, recwarn):
    plain((40, 32)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert image.load(tmp_path / "a.png").shape == (1, 3, 32, 40)
    assert Image.MAX_IMAGE_PIXELS == 100 and not recwarn.list


def test_looking_whether_a_picture_is_good_keeps_no_floats_of_it(tmp_path):
    plain((1200, 1000)).save(tmp_path / "a.png")
    tracemalloc.start()  # counts NumPy's arrays
    try:
        image.read_rgb(tmp_path / "a.png")
        assert tracemalloc.get_traced_memory()[1] < 1_200_000
    finally:
        tracemalloc.stop()
