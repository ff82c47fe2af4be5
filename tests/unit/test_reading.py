"""What users hand in is opened and parsed in one way, or refused in one line that names it."""

from __future__ import annotations

import os
import socket
import time

import pytest

from jstyle.sd import reading
from jstyle.sd.files import InputError, MissingFile, require_file, require_folder


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_is_the_same_with_a_mark_and_with_other_line_ends(tmp_path, mark, end):
    path = written(
        tmp_path / "a.txt", mark + end.join(["a caf\u00e9", "", "\u2028 b", ""]).encode()
    )
    assert reading.read_lines(path) == ["a caf\u00e9", "", "\u2028 b"]
    assert reading.read_text(path) == "a caf\u00e9\n\n\u2028 b\n"
    path = written(tmp_path / "a.json", mark + b'{"0": "caf\xc3\xa9"}' + end.encode())
    assert reading.read_json(path) == {"0": "caf\u00e9"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("cat".encode("utf-16"), "UTF-16"),
        ("cat".encode("utf-16-le"), "UTF-16.*byte 1"),
        ("cat".encode("utf-32"), "UTF-32"),
        ("ab caf\u00e9 au lait".encode("latin-1"), "byte 6 is 0xe9, it looks like Latin-1"),
        (b"\xef\xbb\xbf" + "caf\u00e9 au".encode("latin-1"), "byte 6 is 0xe9.*Latin-1"),
        ("\u6c34\u58a8\u753b".encode("gbk"), "byte 4 is 0xbb, it looks like GBK"),
        (b"PK\x03\x04 and much more of it\0", "no text at all"),
    ],
)
def test_another_encoding_is_refused_by_its_name_and_place(tmp_path, data, told):
    path = written(tmp_path / "words.txt", data)
    with pytest.raises(InputError, match=f"words.txt: not UTF-8 text; .*{told}"):
        reading.read_text(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "ear"))
    begun = time.monotonic()
    for name, told in (("pipe", "a pipe"), ("ear", "a socket"), ("", "a folder")):
        with pytest.raises(InputError, match=f"{told}, not a file"):
            reading.read_text(tmp_path / name)
    with pytest.raises(InputError, match="/dev/zero: a device, not a file"):
        require_file("/dev/zero")
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        require_file(tmp_path / "absent")
    assert time.monotonic() - begun < 5
    path = written(tmp_path / "a.txt", "a")
    (tmp_path / "link").symlink_to(path)
    assert require_file(tmp_path / "link") == tmp_path / "link"
    with pytest.raises(MissingFile, match="no such file"):
        require_file(path / "below")
    with pytest.raises(InputError, match=r"a\.txt: a file, not a folder"):
        require_folder(path)
    with pytest.raises(MissingFile, match="no such folder"):
        require_folder(tmp_path / "absent")
    assert require_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "an empty path"),
        ("a\0b", "NUL"),
        ("caf\udce9.png", "not UTF-8"),
        ("n" * 5000, "name too long"),
    ],
)
def test_names_that_no_file_can_have_here(name, told):
    for ask in (require_file, require_folder, reading.read_text):
        with pytest.raises(InputError, match=told):
            ask(name)


def test_texts_larger_than_the_limit_are_not_read(tmp_path):
    path = written(tmp_path / "a.txt", "0123456789")
    assert reading.read_text(path, 10) == "0123456789"
    with pytest.raises(InputError, match="10 bytes; text is read up to 9"):
        reading.read_text(path, 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 64"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64"),
        ('{"a": 1e400}', "1e400 is beyond"),
        ('{"a": -1e400}', "-1e400 is beyond"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[" + "9" * 5000 + "]", "digits"),
        (r'{"0": "a \ud800"}', r"holds '.ud800'"),
        (r'{"\udce9": "a"}', r"holds '.udce9'"),
        (r'["a \u0000"]', "NUL"),
    ],
)
def test_json_that_cannot_be_used_is_refused_with_the_files_name(tmp_path, text, told):
    path = written(tmp_path / "a.json", text)
    with pytest.raises(InputError, match=rf"a\.json: .*{told}"):
        reading.read_json(path)


def test_json_up_to_the_limits_is_read(tmp_path):
    deep = '{"a":' * 64 + "1" + "}" * 64
    assert str(reading.read_json(written(tmp_path / "a.json", deep))).count("'a'") == 64
    many = "[" + r'"[[{\"[", [1], ' * 200 + '"["]'
    assert reading.read_json(written(tmp_path / "a.json", many))[:2] == ['[[{"[', [1]]
    path = written(tmp_path / "b.json", r'["\ud83d\ude00", 1e300, null, true, 12]')
    assert reading.read_json(path) == ["\U0001f600", 1e300, None, True, 12]
    for text, told in (("[]", "a list"), ("1", "a number"), ("null", "null"), ('"a"', "text")):
        with pytest.raises(InputError, match=f"must hold an object, got {told}"):
            reading.read_object(written(tmp_path / "c.json", text))


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "line 2: [*]a repeats"),
        ("a: &a [*a]\n", "line 1: [*]a repeats"),
        ("ok: 1\nx: " + "[" * 100_000, "line 2: nested deeper than 64"),
        ("ok: 1\nx: " + "{a: " * 65 + "1" + "}" * 65, "line 2: nested deeper than 64"),
    ],
)
def test_yaml_that_unfolds_or_nests_without_end_is_refused_at_once(text, told):
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"run\.yaml, {told}"):
        reading.require_yaml(text, "run.yaml")
    assert time.monotonic() - begun < 5


def test_other_yaml_is_left_to_its_loader():
    for text in ("", "a: [1, {b: 2}]\n", "a: &name 3\n", "a: [", "\x01"):
        reading.require_yaml(text, "run.yaml")
