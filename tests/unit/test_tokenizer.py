"""The tokenizer wrapper and the shipped vocabulary, without PyTorch and without Jittor."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jstyle.sd.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "jstyle" / "models" / "tiny" / "tokenizer"
SCRIPT = ROOT / "benchmarks" / "tiny" / "make_tokenizer.py"
START, END = 2157, 2158
EDGE_PROMPTS = [
    "",  # the empty prompt of unconditional guidance
    " ".join(["cat"] * 75),  # fills all 77 places exactly
    " ".join(["cat"] * 74 + ["über"]),  # cut inside a word
    " ".join(["red star"] * 60),
    "42cats 3d style_07 b52",  # digits are single tokens and part from letters
    "猫 и собака über İstanbul",  # bytes of several alphabets; lower-casing that adds a character
    "A  Photo\nof\tan ELEPHANT's hat!!",  # case, white space, contraction, the padding character
    "<|endoftext|> sks",
]


def load_script():
    spec = importlib.util.spec_from_file_location("make_tokenizer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_tokenizer = load_script()


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(SHIPPED)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(SHIPPED, tmp_path / "tokenizer"))


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_prompt_becomes_the_ids_worked_out_by_hand(tokenizer):
    vocab = json.loads((SHIPPED / "vocab.json").read_text(encoding="utf-8"))
    pieces = ["a</w>", "photo</w>", "of</w>", "a</w>", "cat</w>", ",</w>", "4</w>", "2</w>"]
    ids = tokenizer(["A photo of a cat, 42"])
    assert ids.dtype == np.int64 and ids.shape == (1, 77)
    # "a" is byte symbol 64 (after 64 printable characters from "!"), ending a word: + 256
    assert vocab["a</w>"] == 64 + 256
    assert ids[0].tolist() == [START, *(vocab[p] for p in pieces), END] + [0] * 67


@pytest.mark.parametrize("prompt", EDGE_PROMPTS)
def test_ids_are_those_of_transformers(tokenizer, prompt):
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer.from_pretrained(SHIPPED)
    options = {"padding": "max_length", "truncation": True, "max_length": 77}
    expected = reference([prompt, "a star"], **options).input_ids
    assert tokenizer([prompt, "a star"]).tolist() == expected


def test_words_of_the_list_are_single_tokens(tokenizer):
    assert [w for w in make_tokenizer.WORDS if tokenizer.tokens(w) != [w + "</w>"]] == []


def test_an_unknown_word_is_spelled_in_pieces(tokenizer):
    pieces = tokenizer.tokens("jittoring")
    assert len(pieces) > 1 and "".join(pieces) == "jittoring</w>"


def test_exactly_77_tokens_pass_silently_and_more_are_named(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="jstyle"):
        full = tokenizer([" ".join(["cat"] * 75)])
        assert caplog.messages == []
        cut = tokenizer([" ".join(["cat"] * 75 + ["red", "star"])])
    assert np.array_equal(full, cut) and full[0, -1] == END
    assert caplog.messages == ["prompt of 77 tokens is longer than 75; left out: 'red star'"]


def test_a_single_string_is_refused(tokenizer):
    with pytest.raises(TypeError, match="list of str"):
        tokenizer("a cat")


def test_no_prompts_give_no_rows(tokenizer):
    assert tokenizer([]).shape == (0, 77)


def test_the_padding_token_is_the_one_of_the_special_tokens_map(folder):
    """Stable Diffusion 2.1's two files disagree, and the map is right: it pads with "!"."""
    edit_json(
        folder / "tokenizer_config.json",
        pad_token="<|endoftext|>",
        name_or_path="hf-models/stable-diffusion-v2-768x768/tokenizer",
        special_tokens_map_file="./special_tokens_map.json",
    )
    assert Tokenizer.from_folder(folder)([""])[0].tolist() == [START, END] + [0] * 75


def test_a_1_x_folder_pads_with_the_end_token(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit_json(folder / name, pad_token="<|endoftext|>")
    assert Tokenizer.from_folder(folder)([""])[0].tolist() == [START] + [END] * 76


def test_a_folder_saved_by_transformers_gives_the_same_ids(folder, tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    saved = Tokenizer.from_folder(tmp_path / "saved")
    assert np.array_equal(saved(EDGE_PROMPTS), tokenizer(EDGE_PROMPTS))
    assert len(saved) == len(tokenizer) == END + 1


def test_the_length_limit_comes_from_the_folder(folder):
    edit_json(folder / "tokenizer_config.json", model_max_length=9)
    assert Tokenizer.from_folder(folder)(["a red star"]).shape == (1, 9)
    edit_json(folder / "tokenizer_config.json", model_max_length=1e30)
    with pytest.raises(ValueError, match="model_max_length must be in 3"):
        Tokenizer.from_folder(folder)


def left_by_a_call(folder, tmp_path, **state):
    """The folder as transformers saves it, with what callers leave in its tokenizer.json."""
    from transformers import CLIPTokenizer

    clip = CLIPTokenizer.from_pretrained(folder)
    clip(["a star"], padding="max_length", truncation=True, max_length=77)
    clip.save_pretrained(tmp_path / "used")
    file = tmp_path / "used" / "tokenizer.json"
    used = json.loads(file.read_text(encoding="utf-8"))
    assert used["padding"]["strategy"] == {"Fixed": 77} and used["truncation"]["max_length"] == 77
    used["model"]["dropout"] = 0.9
    file.write_text(json.dumps(used | state), encoding="utf-8")
    return tmp_path / "used"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"truncation": {"direction": "Left", "max_length": 4, "strategy": "LongestFirst",
                        "stride": 0}},
        {"padding": {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8,
                     "pad_id": 5, "pad_type_id": 0, "pad_token": "x"}},
        {"post_processor": None},
    ],
)  # fmt: skip
def test_what_earlier_calls_left_in_the_files_changes_nothing(folder, tokenizer, tmp_path, state):
    used = left_by_a_call(folder, tmp_path, **state)
    edit_json(used / "tokenizer_config.json", padding_side="left", truncation_side="left")
    again = Tokenizer.from_folder(used)
    assert np.array_equal(again(EDGE_PROMPTS), tokenizer(EDGE_PROMPTS))
    assert again.tokens("a red star") == ["a</w>", "red</w>", "star</w>"]


def test_a_used_tokenizer_is_put_at_rest(tokenizer):
    from transformers import CLIPTokenizer

    clip = CLIPTokenizer.from_pretrained(SHIPPED)
    clip(["a star"], padding="max_length", truncation=True, max_length=9)
    clip.backend_tokenizer.model.dropout = 0.9
    assert np.array_equal(Tokenizer(clip)(EDGE_PROMPTS), tokenizer(EDGE_PROMPTS))


@pytest.mark.parametrize("limit", [1e30, 512])
def test_the_text_encoder_bounds_a_limit_that_is_too_high(folder, tokenizer, caplog, limit):
    edit_json(folder / "tokenizer_config.json", model_max_length=limit)
    bounded = Tokenizer.from_folder(folder, longest=77)
    assert np.array_equal(bounded(["a star"]), tokenizer(["a star"]))
    assert f"model_max_length = {limit:g}, but the text encoder takes 77 tokens" in caplog.text
    edit_json(folder / "tokenizer_config.json", model_max_length=9)
    assert Tokenizer.from_folder(folder, longest=77)(["a star"]).shape == (1, 9)


@pytest.mark.parametrize("token, pad", [("<|endoftext|>", END), ("!", 0)])
def test_another_padding_token_can_be_asked_for(folder, token, pad):
    """As if the folder were of the other generation, "!" in a prompt included."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit_json(folder / name, pad_token="!" if pad else "<|endoftext|>")
    chosen = Tokenizer.from_folder(folder, pad_token=token)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit_json(folder / name, pad_token=token)
    assert np.array_equal(chosen(["a star!", ""]), Tokenizer.from_folder(folder)(["a star!", ""]))
    assert chosen([""])[0].tolist() == [START, END] + [pad] * 75


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"tokenizer: {name} missing"):
        Tokenizer.from_folder(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        Tokenizer.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name, text",
    [("vocab.json", "{"), ("merges.txt", "a b c d\nq"), ("tokenizer_config.json", "[")],
)
def test_a_damaged_file_is_one_line(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="not a CLIP tokenizer") as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)


def test_it_works_quietly_without_torch_and_leaves_the_environment_alone():
    script = f"""
import os, sys
sys.modules["torch"] = None
from jstyle.sd.tokenizer import Tokenizer
assert "transformers" not in sys.modules
before = dict(os.environ)
ids = Tokenizer.from_folder({str(SHIPPED)!r})(["a star", "a cat in mosaic style"])
assert dict(os.environ) == before
print(ids.shape)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("T") or k == "TMPDIR"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 77)\n", "")


def test_the_shipped_files_are_what_the_script_writes(tmp_path):
    size = make_tokenizer.write(tmp_path)
    assert size == END + 1
    names = sorted(path.name for path in SHIPPED.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 60_000


def test_every_byte_has_a_token_and_the_special_tokens_come_last():
    vocab = json.loads((SHIPPED / "vocab.json").read_text(encoding="utf-8"))
    symbols = make_tokenizer.byte_symbols()
    assert len(set(symbols)) == 256
    assert [vocab[s] for s in symbols] == list(range(256))
    assert [vocab[s + "</w>"] for s in symbols] == list(range(256, 512))
    assert vocab["!"] == 0
    assert (vocab["<|startoftext|>"], vocab["<|endoftext|>"]) == (len(vocab) - 2, len(vocab) - 1)
