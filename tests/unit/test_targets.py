"""Where results may be written, and what is never replaced."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from jdreambooth.contest.report import TEMPLATE
from jstyle.commands import outputs
from jstyle.sd.files import WriteError, atomic_write, write_json
from jstyle.sd.image import save_png
from jstyle.sd.lora_files import OWN_KEY
from jstyle.sd.targets import (
    GENERATOR,
    LONGEST_NAME,
    LORA_KEY,
    TargetError,
    cut_name,
    is_ours,
    require_free,
)
from jstyle.sd.weights import write_safetensors
from tests.cli.conftest import environment

PIXELS = np.zeros((8, 8, 3), np.uint8)
RECORD = {"jstyle": "1", "command": "generate"}


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    socket.socket(socket.AF_UNIX).bind(str(path))


def make_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_fifo, "a pipe"),
        (make_socket, "a socket"),
        (os.mkdir, "a folder"),
        (make_loop, "a link that leads to itself"),
    ],
)
def test_what_is_no_file_is_refused_and_stays(tmp_path, monkeypatch, make, told):
    monkeypatch.chdir(tmp_path)  # a socket's name may not be long
    path = tmp_path / "it.json"
    make(path.relative_to(tmp_path) if make is make_socket else path)
    before = os.lstat(path)
    for write in (lambda: require_free([path], overwrite=True), lambda: write_json(path, {})):
        with pytest.raises(TargetError, match=f"it.json: is {told}"):
            write()
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(tmp_path) == ["it.json"]


def test_a_device_is_written_through_and_stays_one(tmp_path):
    path = tmp_path / "nothing"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        with open(path, "wb"):
            pass
    except OSError as error:
        pytest.skip(f"NOT CHECKED: devices; making one is not allowed ({error})")
    require_free([path])
    write_json(path, {"a": 1})
    assert stat.S_ISCHR(os.stat(path).st_mode) and os.listdir(tmp_path) == ["nothing"]


def test_a_full_device_is_named(tmp_path):
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # as /dev/full
        with open(path, "wb"):
            pass
    except OSError as error:
        pytest.skip(f"NOT CHECKED: devices; making one is not allowed ({error})")
    with pytest.raises(WriteError, match="full: disk full "):
        write_json(path, {"a": 1})


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_its_turn_in_a_pipe_and_in_a_file(tmp_path, name):
    code = "import sys; from jstyle.sd.files import write_json; print('before');"
    code += "write_json(sys.argv[1], {'a': 1}); print('after')"
    command = [sys.executable, "-c", code, name]
    piped = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert piped.stdout == 'before\n{\n  "a": 1\n}\nafter\n'
    with open(tmp_path / "out", "w") as out:
        subprocess.run(command, env=environment(), stdout=out, check=True)
    assert (tmp_path / "out").read_text() == piped.stdout
    assert os.path.islink("/dev/stdout")


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file.json").write_text("")
    for name, target in (("old.json", "there/file.json"), ("new.json", "there/new.json")):
        (tmp_path / name).symlink_to(target)
        write_json(tmp_path / name, {"of": name})
        assert (tmp_path / name).is_symlink()
        assert json.loads((tmp_path / target).read_text()) == {"of": name}


def write_zip(path, date):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("00/a.png", date), b"1")


OURS = {
    "chunk.png": lambda path: save_png(path, PIXELS, {"seed": 1}),
    "record.png": lambda path: (
        Image.fromarray(PIXELS).save(path),
        path.with_suffix(".json").write_text(json.dumps(RECORD)),
    ),
    "record.json": lambda path: path.write_text(json.dumps(RECORD)),
    "score.json": lambda path: path.write_text('{"missing": [], "why": {}, "images": 3}'),
    "lora.safetensors": lambda path: write_safetensors(path, {}, {}, metadata={LORA_KEY: "{}"}),
    "a.zip": lambda path: write_zip(path, (1980, 1, 1, 0, 0, 0)),
    "page.html": lambda path: path.write_bytes(TEMPLATE.read_bytes()),
    "empty.png": lambda path: path.touch(),
}
THEIRS = {
    "photo.png": lambda path: Image.fromarray(PIXELS).save(path),
    "photo.jpg": lambda path: Image.fromarray(PIXELS).save(path),
    "beside.png": lambda path: (
        Image.fromarray(PIXELS).save(path),
        path.with_suffix(".json").write_text('{"width": 8}'),
    ),
    "package.json": lambda path: path.write_text('{"name": "a"}'),
    "list.json": lambda path: path.write_text('["jstyle", "command"]'),
    "deep.json": lambda path: path.write_text("[" * 100_000),
    "broken.json": lambda path: path.write_text("{"),
    "model.safetensors": lambda path: write_safetensors(path, {}, {}),
    "short.safetensors": lambda path: path.write_bytes(b"1"),
    "a.zip": lambda path: write_zip(path, (2020, 1, 1, 0, 0, 0)),
    "text.zip": lambda path: path.write_text("no zip"),
    "page.html": lambda path: path.write_text("<!doctype html><title>mine</title>"),
    "notes.txt": lambda path: path.write_text("notes"),
}


@pytest.mark.parametrize("name", OURS)
def test_an_earlier_result_may_be_replaced(tmp_path, name):
    OURS[name](tmp_path / name)
    require_free([tmp_path / name])


@pytest.mark.parametrize("name", THEIRS)
def test_somebodys_file_is_refused_unless_that_is_allowed(tmp_path, name):
    THEIRS[name](tmp_path / name)
    assert not is_ours(tmp_path / name)
    with pytest.raises(TargetError, match=rf"{name}: is there already .* --overwrite"):
        require_free([tmp_path / "new.png", tmp_path / name])
    require_free([tmp_path / name], overwrite=True)


def test_marks_are_those_that_are_written():
    assert LORA_KEY == OWN_KEY and GENERATOR in TEMPLATE.read_text(encoding="utf-8")


def test_an_input_is_refused_whatever_its_name_is(tmp_path):
    save_png(tmp_path / "in.png", PIXELS, {"seed": 1})
    os.link(tmp_path / "in.png", tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to("in.png")
    for name in ("in.png", "hard.png", "soft.png"):
        with pytest.raises(TargetError, match=f"{name}: is also an input"):
            require_free([tmp_path / name], overwrite=True, inputs=[tmp_path / "in.png"])


def test_the_record_beside_a_picture_counts_as_well(tmp_path):
    (tmp_path / "a.json").write_text('{"mine": 1}')
    with pytest.raises(TargetError, match=r"a\.json: is there already"):
        outputs.require_free([tmp_path / "a.png"])
    outputs.write_result(tmp_path / "b.png", PIXELS, {"command": "generate"})
    outputs.require_free([tmp_path / "b.png"])


def test_a_picture_beside_another_runs_record_is_not_finished(tmp_path):
    for name, key in (("a", "1"), ("b", "2")):
        outputs.write_result(tmp_path / f"{name}.png", PIXELS, {"command": "stylize", "key": key})
    assert outputs.is_finished(tmp_path / "a.png", "1")
    os.replace(tmp_path / "b.png", tmp_path / "a.png")  # two processes, each wrote one of the two
    assert not outputs.is_finished(tmp_path / "a.png", "1")
    assert not outputs.is_finished(tmp_path / "a.png", "2")


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    outputs.write_result(tmp_path / "a.png", PIXELS, {"command": "stylize", "key": "1"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="expected uint8"):
        outputs.write_result(tmp_path / "a.png", PIXELS.astype(float), {"command": "b", "key": "2"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_names_are_cut_where_a_file_system_would_refuse_them(tmp_path):
    assert cut_name("a", ".png") == "a.png"
    longest = "b" * (LONGEST_NAME - len(".json"))
    assert cut_name(longest, ".png") == f"{longest}.png"
    names = {cut_name(longest + end, ".png") for end in ("é" * 100, "é" * 99, "\udcff")}
    assert len(names) == 3
    for name in names:
        (tmp_path / name).with_suffix(".json").touch()
        assert name.endswith(".png") and len(os.fsencode(name)) < LONGEST_NAME
    with pytest.raises(TargetError, match="the name is too long, file systems take 255 bytes"):
        outputs.require_free([tmp_path / f"{'c' * 251}.png"])  # fits, but its record does not


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    write_json(path, {"a": 1})
    with atomic_write(tmp_path / ("m" * 100 + "." + "m" * 154)) as part:
        part.write_text("1")
    assert len(os.listdir(tmp_path)) == 2


def test_file_names_that_are_no_utf8_read_back_the_same(tmp_path):
    name = os.fsdecode(b"\xff\xc3.json")
    write_json(tmp_path / name, {"file": name, "é": 1})
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert json.loads(text) == {"file": name, "é": 1} and "é" in text
