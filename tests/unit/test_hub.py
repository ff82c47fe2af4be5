"""Where models come from: folders, a hub (played by a local server), and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jstyle.sd import hub
from jstyle.sd.hub import HubError, patterns, resolve

UNET = "unet/diffusion_pytorch_model.safetensors"
SHARD = "text_encoder/model"
FILES = (
    "model_index.json",
    "unet/config.json",
    UNET,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
)
EXTRAS = (
    "v2-1_768-ema-pruned.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "text_encoder/pytorch_model.bin",
    "safety_checker/model.safetensors",
    "README.md",
)


@pytest.fixture
def folder(tmp_path):
    """A folder with every file a model needs (only their names matter here)."""
    root = tmp_path / "model"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


def test_a_complete_folder_is_taken_as_it_is(folder):
    assert resolve(folder) == resolve(str(folder)) == folder


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(("safetensors", "config.json"))])
def test_a_missing_file_is_named_with_its_path(folder, name):
    (folder / name).unlink()
    with pytest.raises(HubError) as error:
        resolve(folder)
    assert str(error.value).startswith(f"{folder / name}: no such file")


@pytest.mark.parametrize("part", hub.STEMS)
def test_a_missing_part_is_named_with_its_path(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(HubError, match="no such folder; a model needs unet, vae") as error:
        resolve(folder)
    assert str(error.value).startswith(f"{folder / part}:")


def test_weights_of_old_folders_are_taken_where_there_are_no_others(folder):
    """That nothing in them but tensors is read, tests/unit/test_torch_zip.py shows."""
    old = {"unet": "diffusion_pytorch_model.bin", "text_encoder": "pytorch_model.bin"}
    for part, name in old.items():
        (folder / part / name).write_text("")
        assert hub.weight_file(folder, part).suffix == ".safetensors"
        hub.weight_file(folder, part).unlink()
        assert hub.weight_file(resolve(folder), part).name == name


def test_a_pickle_of_another_name_is_refused_with_the_way_to_convert_it(folder):
    (folder / UNET).rename(folder / "unet" / "model.ckpt")
    with pytest.raises(
        HubError, match="a pickle, .* is refused; convert it once .*save_pretrained"
    ):
        resolve(folder)


@pytest.mark.parametrize("name", ["v2-1_768.ckpt", "v2-1_768.safetensors"])
def test_a_folder_with_a_checkpoint_file_names_the_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(HubError, match=f"did you mean the file {tmp_path / name}[?]"):
        resolve(tmp_path)


def test_a_folder_of_another_pipeline_or_of_one_part_is_called_so(folder):
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    shutil.rmtree(folder / "unet")
    with pytest.raises(HubError, match=f"^{folder}: a StableDiffusionXLPipeline; only Stable"):
        resolve(folder)
    with pytest.raises(HubError, match=f"^{folder / 'vae'}: one part of a model; a model needs"):
        resolve(folder / "vae")


@pytest.mark.parametrize("option", ["prediction", "tokenizer"])
def test_what_a_folder_says_itself_is_not_asked_for(folder, option):
    given = {option: "v" if option == "prediction" else str(folder / "tokenizer")}
    for model in (str(folder), "tiny"):
        with pytest.raises(HubError, match=f"^--{option} is for a model in a single file; {model}"):
            resolve(hub.Source(model, **given))


def test_a_variant_takes_its_own_files_and_a_wrong_one_lists_what_is_there(folder):
    for part in ("unet", "vae", "text_encoder"):
        path = hub.weight_file(folder, part)
        path.with_suffix(".fp16.safetensors").write_text("")
    assert hub.weight_file(resolve(folder, "fp16"), "unet").name == Path(UNET).name
    half = hub.weight_file(folder, "unet", "fp16")
    assert half.name == "diffusion_pytorch_model.fp16.safetensors"
    with pytest.raises(HubError, match=r"model\.bf16\.safetensors: no such file; there is .*fp16"):
        resolve(folder, "bf16")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_an_index_of_shards_stands_for_the_weights(folder, variant):
    dot = "" if variant is None else f".{variant}"
    index = folder / "unet" / f"diffusion_pytorch_model.safetensors.index{dot}.json"
    (folder / UNET).unlink()
    index.write_text("{}")
    assert hub.weight_file(folder, "unet", variant) == index


def test_configuration_that_is_not_json_is_named(folder):
    (folder / "unet/config.json").write_text("{,}")
    with pytest.raises(HubError, match="unet/config.json: not JSON"):
        hub.read_config(folder, "unet")


@pytest.mark.parametrize(
    "source", ["", "nothing-here", "a/b/c", "../x/y", "http://x.org/m", "a b/c"]
)
def test_what_is_neither_folder_nor_id_is_answered_with_what_is_allowed(source):
    with pytest.raises(HubError, match='no such model; allowed are "tiny", a folder'):
        resolve(source)


def test_a_file_is_taken_by_its_kind_and_has_no_variant(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    assert resolve(path) == path
    with pytest.raises(HubError, match="--variant is for folders; .*model.safetensors is a single"):
        resolve(path, "fp16")
    other = path.rename(tmp_path / "model.gguf")
    with pytest.raises(HubError, match="model.gguf: a file of a kind that is not read; allowed"):
        resolve(other)


@pytest.mark.parametrize(
    ("variant", "yes", "no"),
    [
        (None, UNET, "unet/diffusion_pytorch_model.fp16.safetensors"),
        ("fp16", "unet/diffusion_pytorch_model.fp16.safetensors", UNET),
        (None, f"{SHARD}-00001-of-00002.safetensors", f"{SHARD}.fp16-00001-of-00002.safetensors"),
        ("fp16", f"{SHARD}.fp16-00001-of-00002.safetensors", f"{SHARD}-00001-of-00002.safetensors"),
    ],
)
def test_only_the_weights_of_the_wanted_variant_are_fetched(variant, yes, no):
    def matches(name):
        return any(fnmatch(name, pattern) for pattern in patterns(variant))

    assert matches(yes) and not matches(no)
    fetched = {name for name in EXTRAS if matches(name)}
    assert fetched <= {f"unet/diffusion_pytorch_model.{variant}.safetensors"}


@pytest.fixture
def fake_hub(folder):
    """The three answers of the hub that a download needs; yields the server's address."""
    for name in EXTRAS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            where = self.path.split("?")[0].strip("/").split("/")
            if "/org/model/" not in self.path:
                return self.send_error(404)
            if where[0] == "api":
                body = json.dumps(_listing(folder, tree="tree" in where)).encode()
            else:  # org/model/resolve/COMMIT/path...
                body = (folder / "/".join(where[4:])).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _listing(folder, tree):
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    if tree:
        sizes = {n: (folder / n).stat().st_size for n in files}
        return [{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in sizes.items()]
    return {"id": "org/model", "sha": "a" * 40, "siblings": [{"rfilename": n} for n in files]}


def resolve_in_new_process(source, home, **environment):
    """huggingface_hub reads its variables when it is imported, hence a process of its own."""
    code = (
        "import sys\nfrom jstyle.sd import hub\n"
        "try: print(hub.resolve(sys.argv[1]))\n"
        "except hub.HubError as error: print('refused:', error)"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HUGGINGFACE"))}
    env = {**kept, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **environment}
    root = Path(hub.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, source], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_id_is_fetched_once_from_the_endpoint_and_then_found_offline(fake_hub, tmp_path):
    first = Path(resolve_in_new_process("org/model", tmp_path / "home", HF_ENDPOINT=fake_hub))
    got = {str(p.relative_to(first)) for p in first.rglob("*") if not p.is_dir()}
    assert got == set(FILES)
    again = resolve_in_new_process("org/model", tmp_path / "home", HF_HUB_OFFLINE="1")
    assert Path(again) == first


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "not in the cache, and HF_HUB_OFFLINE is set"),
    ],
)
def test_a_hub_out_of_reach_is_one_line_with_a_way_out(tmp_path, environment, reason):
    answer = resolve_in_new_process("sd21", tmp_path, **environment)
    assert answer.startswith("refused: no such folder, and not on the hub at")
    assert reason in answer and "give the folder" in answer and "\n" not in answer
    assert all(mirror in answer for mirror in hub.MIRRORS["sd21"])


def test_a_repository_that_is_not_there_is_said_to_be_so(fake_hub, tmp_path):
    answer = resolve_in_new_process("org/other", tmp_path, HF_ENDPOINT=fake_hub)
    assert "org/other: not there" in answer
