"""`jstyle parity` as a user runs it, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tqdm import tqdm

from jstyle.commands.parity import Request, compare, record
from jstyle.parity.recording import Recording
from jstyle.parity.task import STAGES
from tests.cli.conftest import environment, names_in

LEAF = "up_blocks.1.resnets.1.conv2"


def no_bar(total):
    return tqdm(total=total, disable=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def parity(folder, tiny_folder):
    """parity("--only", "unet", ...) -> CompletedProcess."""

    def run(*words, **env):
        command = [sys.executable, "-m", "jstyle", "parity", "--model", tiny_folder("sd2"), *words]
        options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 600}
        return subprocess.run(list(map(str, command)), env=environment(**env), **options)

    return run


@pytest.fixture(scope="module")
def recorded(parity, folder):
    """Our own values, of modules of every part and of a walk."""
    stages = "text_encoder,vae_encode,unet,sampling"
    done = parity("--record", "ours", "--only", stages, "--size-px", 64, "--steps", 2)
    assert done.returncode == 0, done.stderr
    return folder / "ours"


def report(folder):
    return json.loads((folder / "parity.json").read_text())


def test_everything_agrees_with_pytorch(parity, folder):
    done = parity("--steps", 2, "--size-px", 64, "--out", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    found = report(folder / "all")
    assert found["passed"] and found["first_jump"] is None
    assert list(found["stages"]) == list(STAGES)
    for name, stage in found["stages"].items():
        worst = stage["worst"]
        print(f"{name}: {worst['rel_l2']:.1e} {worst['name']}")
        assert 0 < worst["rel_l2"] <= stage["limit"] and worst["cosine"] > 1 - 1e-8, name
        assert stage["only_ours"] == stage["only_reference"] == [], name
    assert [found[side]["side"] for side in ("ours", "reference")] == ["jstyle", "torch"]
    assert found["reference"]["versions"]["torch"]
    assert "all within the limits" in done.stdout and "look at all/parity.html" in done.stdout
    assert names_in(folder / "all") == ["parity.html", "parity.json"]  # no values are left


def test_the_same_code_gives_the_same_bytes(tiny_folder, recorded, tmp_path):
    """Also in another process: the values were recorded by one of its own."""
    found = compare(Request(str(tiny_folder("sd2"))), str(tmp_path), no_bar, str(recorded))
    assert found.passed and found.task == Recording(recorded).task
    assert {stage.worst.sums.rel_l2 for stage in found.stages} == {0.0}


def test_a_fault_is_found_by_name(parity, recorded, folder):
    done = parity("--against", recorded, "--inject-fault", LEAF, "--out", "fault")
    assert done.returncode == 1, done.stderr
    assert f"first error that jumps: {LEAF} (" in done.stdout
    assert "beyond the limit: unet" in done.stdout
    found = report(folder / "fault")
    assert (found["injected_fault"], found["first_jump"]["module"]) == (LEAF, LEAF)
    assert not found["passed"] and not found["stages"]["unet"]["passed"]
    assert found["stages"]["text_encoder"]["passed"] and found["stages"]["vae_encode"]["passed"]
    assert found["stages"]["sampling"]["worst"]["rel_l2"] > 0
    assert f"<code>{LEAF}</code>" in (folder / "fault" / "parity.html").read_text()


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("unet", "time_embedding.linear_1"),
        ("unet", "mid_block"),
        ("unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"),
        ("vae_encode", "vae.encoder.mid_block.attentions.0"),
        ("text_encoder", "text_encoder.text_model.encoder.layers.1.mlp.fc1"),
    ],
)
def test_faults_of_every_kind_are_found(tiny_folder, recorded, tmp_path, stage, module):
    request = Request(str(tiny_folder("sd2")), stages=(stage,), inject_fault=module)
    found = compare(request, str(tmp_path), no_bar, str(recorded))
    assert not found.passed and found.jump.sudden
    assert found.jump.module == module


def test_slack_and_selection(tiny_folder, recorded, tmp_path):
    fault = "text_encoder.text_model.final_layer_norm"
    for slack, passed in ((1.0, False), (2000.0, True)):
        request = Request(
            str(tiny_folder("sd2")), stages=("text_encoder",), slack=slack, inject_fault=fault
        )
        found = compare(request, str(tmp_path), no_bar, str(recorded))
        assert [stage.name for stage in found.stages] == ["text_encoder"]
        assert found.passed is passed


def test_pytorch_can_be_recorded_for_a_machine_without_it(parity, folder):
    words = ("--size-px", 64, "--steps", 1, "--only", "text_encoder")
    done = parity("--record", "torch", "--reference", "torch", *words)
    assert done.returncode == 0, done.stderr
    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    alone = {"PYTHONPATH": f"{blocked}:{environment()['PYTHONPATH']}"}
    done = parity("--against", "torch", "--out", "from-torch", **alone)
    assert done.returncode == 0, done.stderr
    assert report(folder / "from-torch")["reference"]["side"] == "torch"
    done = parity("--out", "nothing", **alone)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "not installed: torch; the PyTorch reference needs pip install" in lines[0]
    assert not (folder / "nothing").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 3}, "--steps comes from the recording; leave it out with --against"),
        ({"images": ("a.png",)}, "--image comes from the recording"),
        ({"stages": ("styleid",)}, "has no styleid, only text_encoder"),
        ({"model": "tiny"}, "recorded with another model"),
    ],
)
def test_what_does_not_fit_the_recording_is_refused(tiny_folder, recorded, tmp_path, options, told):
    request = Request(**{"model": str(tiny_folder("sd2")), **options})
    with pytest.raises(ValueError, match=told):
        compare(request, str(tmp_path / "refused"), no_bar, str(recorded))
    assert not (tmp_path / "refused").exists()


def test_a_recording_is_either_written_or_compared_with(parity, recorded):
    done = parity("--against", recorded, "--record", "other")
    assert done.returncode == 2
    assert "--record and --against exclude each other" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"inject_fault": LEAF}, "--inject-fault needs a comparison"),
        ({"slack": 2.0}, "--slack widens the limits of a comparison"),
        ({"reference": "torch", "dtype": "float16"}, "--dtype is for our side"),
        ({"reference": "torch", "device": "cpu"}, "--device is for our side"),
    ],
)
def test_what_would_change_nothing_in_a_recording_is_refused(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        record(Request(**options), str(tmp_path / "refused"), no_bar)
    assert not (tmp_path / "refused").exists()
