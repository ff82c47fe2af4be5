"""Files and folders that are complete or absent, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jdreambooth.contest.mini import make_mini
from jdreambooth.make_drawings import make_drawings
from jstyle.sd import parts
from jstyle.sd.files import WriteError, atomic_write, output_folder, write_json
from jstyle.sd.folders import filled_folder, remove_folder, whole_folder
from jstyle.sd.targets import TargetError
from tests.cli.conftest import environment, names_in
from tests.mounts import small_disk

BUSY = """
import sys, time
from pathlib import Path
from jstyle.sd.files import atomic_write
from jstyle.sd.folders import whole_folder
with atomic_write(Path(sys.argv[1]) / "a.zip"), whole_folder(Path(sys.argv[1]) / "b") as part:
    (part / "half").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    command = [sys.executable, "-c", BUSY, str(tmp_path)]
    options = {"env": environment(), "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, **options) as killed,
        subprocess.Popen(command, **options) as busy,
    ):
        try:
            assert killed.stdout.readline() == busy.stdout.readline() == "ready\n"
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            (tmp_path / ".jstyle-notes").touch()  # not a name of ours
            assert len(list(tmp_path.iterdir())) == 5
            write_json(tmp_path / "mine.json", {})  # the first one in this folder
            left = sorted(path.suffix for path in tmp_path.glob(".jstyle-*.part*"))
            assert left == [".part", ".zip"]
        finally:
            busy.kill()
    parts.sweep(tmp_path)
    assert names_in(tmp_path) == [".jstyle-notes", "mine.json"]


def test_sweeping_goes_deep_only_if_asked_and_follows_no_links(tmp_path):
    name = ".jstyle-0123456789abcdef.part"
    (tmp_path / "own" / "below").mkdir(parents=True)
    (tmp_path / "own" / "below" / name).touch()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "own" / name).symlink_to(tmp_path / "precious")
    parts.sweep(tmp_path / "own")
    assert (tmp_path / "own" / "below" / name).exists()
    parts.sweep(tmp_path / "own", deep=True)
    assert not (tmp_path / "own" / "below" / name).exists()
    assert (tmp_path / "precious" / "file").exists()


def test_a_full_disk_is_named_with_the_file_and_leaves_nothing(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(WriteError) as caught, atomic_write(disk / "a.bin") as part:
            part.write_bytes(b"1" * 100_000)
        assert caught.value.filename == str(disk / "a.bin")
        assert caught.value.strerror == "disk full (No space left on device)"
        with pytest.raises(WriteError) as caught, whole_folder(disk / "b") as part:
            write_json(part / "c.json", ["1" * 100_000])
        assert caught.value.filename == str(disk / "b" / "c.json")
        with pytest.raises(WriteError, match=r"new/.*: disk full"):
            make_drawings(disk / "new", "star", count=40)
        with pytest.raises(WriteError, match=r"mini/0./.*: disk full"):
            make_mini(disk / "mini", styles=2)
        assert os.listdir(disk) == []


def test_a_folder_that_was_removed_meanwhile_is_told(tmp_path):
    folder = tmp_path / "gone"
    with pytest.raises(WriteError, match="gone/a.json: its folder is not there"):
        with output_folder(folder):
            folder.rmdir()
            write_json(folder / "a.json", {})
    with pytest.raises(WriteError, match="gone/b.json: its folder is not there"):
        with output_folder(folder), atomic_write(folder / "b.json") as part:
            remove_folder(folder)
            part.write_text("1")
    assert os.listdir(tmp_path) == []


def test_folders_that_were_made_for_nothing_are_removed_again(tmp_path):
    (tmp_path / "old" / "below").mkdir(parents=True)
    for name in ("old", "new/and/deeper"):
        with pytest.raises(KeyError), output_folder(tmp_path / name) as folder:
            (folder / "sub").mkdir()
            raise KeyError
    assert not (tmp_path / "new").exists() and (tmp_path / "old" / "below").is_dir()
    with pytest.raises(KeyError), output_folder(tmp_path / "new" / "kept") as folder:
        (folder / "sub").mkdir()
        (folder / "result").touch()
        raise KeyError
    assert sorted(p.name for p in (tmp_path / "new" / "kept").iterdir()) == ["result"]
    (tmp_path / "file").touch()
    for name, told in (
        (str(tmp_path / "file"), "file: a file, not a folder"),
        (str(tmp_path / "file" / "below"), "below: .*file is a file, not a folder"),
        ("/dev/null", "/dev/null: a device, not a folder"),
    ):
        with pytest.raises(TargetError, match=told), output_folder(name):
            pass


def test_a_folder_is_filled_at_the_end_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("1")
    for name in ("there", "new"):
        with pytest.raises(KeyError), filled_folder(tmp_path / name) as part:
            (part / "half").touch()
            raise KeyError
    assert names_in(tmp_path) == ["mine"] and not (tmp_path / "new").exists()
    for name in ("there", "new"):
        with filled_folder(tmp_path / name, last="a") as part:
            (part / "b").mkdir()
            (part / "b" / "c").write_text("2")
            (part / "a").write_text("3")
        assert (tmp_path / name / "b" / "c").read_text() == "2"
    assert names_in(tmp_path) == ["a", "a", "c", "c", "mine"]


UNPRIVILEGED = """
import os, sys
from jdreambooth import cli, drawings, make_drawings, options
drawings.draw("star", None, 0, 16)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_user_who_may_not_write_there_is_told_in_one_line():
    if os.getuid() != 0:
        pytest.skip("NOT CHECKED: an unprivileged user; needs root to become one")
    words = ("draw", "--object", "star", "--count", "1", "--size-px", "16", "--out")
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are for one user
        os.chmod(place, 0o755)
        for out in (Path(place), Path(place) / "new"):
            command = [sys.executable, "-c", UNPRIVILEGED, *words, str(out)]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            told = f"jdreambooth draw: error: {out}: cannot write here (permission denied)\n"
            assert (done.returncode, done.stderr) == (1, told)
        assert names_in(Path(place)) == []
