"""Which stages are to be done, and why: from keys, manifests and the files themselves."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from jdreambooth.contest import manifest as manifests
from jdreambooth.contest.config import make_config
from jdreambooth.contest.execute import publish, run_style
from jdreambooth.contest.manifest import Manifest, digest, key_of, read_manifest
from jdreambooth.contest.mini import make_mini
from jdreambooth.contest.options import keys_of
from jdreambooth.contest.order import stages_of
from jdreambooth.contest.plan import duration, make_plan, plan_text
from jdreambooth.contest.run import make_record, make_tasks
from jdreambooth.contest.worker import Worker
from jstyle.sd import image

EVERYTHING = {
    "train": {"prior_weight": 1, "class_prompt": "a thing", "steps": 4, "save_at": [2]}
    | {"instance_prompt": "A {stem}"},
    "pick": True,
    "generate": {"steps": 10, "guidance": 1, "init": "average"},
    "refine": {"steps": 5},
}
CHOSEN = {**EVERYTHING, "generate": {**EVERYTHING["generate"], "candidates": 2}, "choose": {}}
CHANGED = {  # another value of every option: the stage must be done again
    "train": {
        "instance_prompt": "a {stem}",
        "captions": "captions.jsonl",
        "caption_case": "lower",
        "random_crops": 2,
        "random_flip": True,
        "skip_bad_images": True,
        "train": "kv",
        "train_text_encoder": True,
        "rank": 3,
        "alpha": 2.0,
        "targets": "feed-forward",
        "prior_weight": 0.5,
        "class_prompt": "another thing",
        "num_class_images": 3,
        "class_steps": 3,
        "class_guidance": 2.0,
        "min_snr_gamma": 5.0,
        "offset_noise": 0.1,
        "caption_dropout": 0.1,
        "steps": 5,
        "save_at": [1, 2],
        "batch": 2,
        "accumulation": 2,
        "learning_rate": 0.5,
        "lr_schedule": "cosine",
        "warmup_steps": 1,
        "weight_decay": 0.5,
        "max_grad_norm": 0.5,
        "ema_decay": 0.5,
        "gradient_checkpointing": True,
        "seed": 5,
        "rng": "torch-cpu",
        "sampler": "euler",
        "sigmas": "karras",
        "eta": 0.5,
        "rescale": 0.5,
        "syntax": "webui",
        "clip_skip": 2,
    },
    "pick": {
        "seeds": 3,
        "seed": 1,
        "steps": 3,
        "guidance": 2.0,
        "draws": 2,
        "least_recognised": 0.1,
        "least_diversity": 0.1,
        "most_copies": 0.1,
        "by": "score",
        "style_margin": 0.1,
        "rng": "torch-cpu",
        "sampler": "euler",
        "sigmas": "karras",
        "eta": 0.5,
        "rescale": 0.5,
        "syntax": "webui",
        "clip_skip": 2,
        "prompts": 2,
    },
    "generate": {
        "seed": 1,
        "steps": 3,
        "guidance": 2.0,
        "negative": "grey",
        "init": None,
        "strength": 0.5,
        "template": "{prompt}",
        "rng": "torch-cpu",
        "sampler": "euler",
        "sigmas": "karras",
        "eta": 0.5,
        "rescale": 0.5,
        "syntax": "webui",
        "clip_skip": 2,
    },
    "refine": {
        "steps": 3,
        "gamma": 0.1,
        "tau": 1.0,
        "sites": "decoder:9",
        "window": [0, 500],
        "init_adain": False,
        "inject": False,
        "feature_dtype": "float16",
        "style_image": "0",
        "preset": "report",
        "prompt": "a fox",
        "invert_prompt": "a fox",
        "negative": "grey",
        "guidance": 2.0,
    },
    "choose": {"by": "hist", "draws": 2, "seed": 1, "ask": "{prompt}"},
}
ELSEWHERE = {  # these have tests of their own, or move nothing
    "train": {"class_dir", "text_learning_rate", "precision", "checkpoint_every"}
    | {"keep_checkpoints", "sample_every", "sample_prompts", "sample_steps", "sample_guidance"},
    "pick": set(),
    "generate": {"at", "candidates", "together"},
    "choose": set(),
    "refine": {"style_seed", "method", "features"},
}


@pytest.fixture
def contest(tmp_path, monkeypatch):
    """A contest "small" of two styles in the current folder."""
    monkeypatch.chdir(tmp_path)
    make_mini("small", styles=2, references=2, prompts=3, size_px=16)
    names = [p.name for p in sorted((tmp_path / "small/00/images").iterdir())]
    for i, name in enumerate(names):
        os.rename(tmp_path / "small/00/images" / name, tmp_path / f"small/00/images/{i}.png")
    lines = [f'{{"file": "{i}.png", "caption": "number {i}"}}' for i in range(2)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    return tmp_path


def tasks_of(folder, sections=EVERYTHING, styles=("00",), **wide):
    config = make_config({**wide, "defaults": sections}, "contest.yaml", folder)
    return make_tasks(make_record("small", "out", config), styles)


def stages(folder, sections=EVERYTHING, **wide):
    return {stage.name: stage for stage in stages_of(*tasks_of(folder, sections, **wide))}


def finish(stage, seconds=1.0):
    """Leave what a stage leaves when it is done, with files of its own names as outputs."""
    made = Manifest(stage.name, stage.task.name, key_of(stage.inputs()), stage.inputs(), True)
    names = {"train": ["step-000002/lora", "step-000004/lora"], "prior": ["class-00000.png"]}
    names |= {"pick": ["pick.json"]}
    if stage.name in ("generate", "refine"):
        rows = [{"prompt": i.prompt, "file": stage.file(i.prompt, i.number)} for i in stage.items]
        names[stage.name] = [row["file"] for row in rows]
        made.facts = {"pictures": rows}
    if stage.name == "choose":
        names["choose"] = [f"{prompt}.png" for prompt in stage.prompts]
    if stage.name == "pick":
        made.facts = {"step": 2}
    for name in names[stage.name]:
        path = stage.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save_png(path, np.zeros((8, 8, 3), np.uint8), {"made": stage.name})
        made.outputs[name] = digest(path)
    made.measured = {"seconds": seconds, "units": stage.units()}
    made.write(stage.folder)


def finish_all(folder, sections=EVERYTHING, **wide):
    for stage in stages(folder, sections, **wide).values():
        finish(stage)
        assert stage.current() is not None


def left(folder, sections=EVERYTHING, **wide):
    return [row.stage for row in make_plan(tasks_of(folder, sections, **wide)).todo]


@pytest.mark.parametrize("section", CHANGED)
def test_every_option_is_known_here(section):
    assert set(keys_of(section)) == CHANGED[section].keys() | ELSEWHERE[section]


@pytest.mark.parametrize("section", CHANGED)
def test_another_value_of_an_option_makes_its_stage_due_and_no_earlier_one(contest, section):
    sections = CHOSEN if section == "choose" else EVERYTHING
    finish_all(contest, sections)
    order = ["prior", "train", "pick", "generate", "refine", "choose"]
    for name, value in CHANGED[section].items():
        given = {} if sections[section] is True else sections[section]
        if name == "captions":
            given = {**given, "instance_prompt": None}
        if name == "train_text_encoder":
            value = True
        changed = left(contest, {**sections, section: {**given, name: value}})
        shared = name in PAINTED or name.startswith(("class_", "num_class"))
        first = "prior" if section == "train" and shared else section
        first = "pick" if name == "template" else first  # which paints the same texts
        last = len(order) - (sections is EVERYTHING)
        assert changed == order[order.index(first) : last], name


PAINTED = (
    "rng",
    "seed",
    "sampler",
    "sigmas",
    "eta",
    "rescale",
    "syntax",
    "clip_skip",
)  # class pictures too


def test_what_moves_nothing_makes_nothing_due(contest):
    finish_all(contest)
    same = {"checkpoint_every": 1, "keep_checkpoints": 5, "sample_every": 1, "sample_steps": 3}
    assert left(contest, {**EVERYTHING, "train": {**EVERYTHING["train"], **same}}) == []
    assert left(contest, {**EVERYTHING, "refine": {"steps": 5, "features": "disk"}}) == []


def test_the_model_and_the_size_make_everything_due(contest):
    finish_all(contest)
    assert len(left(contest, size_px=32)) == 5
    setup = tasks_of(contest)[0].setup
    assert setup.fingerprint and setup.model == "tiny"
    other = contest / "model"
    shutil.copytree("small", other)  # not a model
    with pytest.raises(ValueError, match="no such folder"):
        tasks_of(contest, model=str(other))


def test_the_contents_of_files_count_and_not_their_places(contest):
    finish_all(contest)
    os.rename("out", "moved")
    os.rename("small", "elsewhere")
    config = make_config({"defaults": EVERYTHING}, "contest.yaml", contest)
    tasks = make_tasks(make_record("elsewhere", "moved", config), ["00"])
    assert make_plan(tasks).todo == []
    picture = np.full((16, 16, 3), 7, np.uint8)
    image.save_png(contest / "elsewhere/00/images/0.png", picture)
    plan = make_plan(tasks)
    assert [row.stage for row in plan.todo] == ["train", "pick", "generate", "refine"]
    assert plan.todo[0].why == "changed (references.0.png)"
    assert plan.todo[1].why == "after train"


def test_a_file_that_is_gone_or_damaged_makes_its_stage_due(contest):
    finish_all(contest)
    generated = stages(contest)["generate"]
    path = generated.path(generated.prompts[0])
    kept = path.read_bytes()
    path.unlink()
    assert left(contest) == ["generate", "refine"]
    path.write_bytes(kept[:-1])
    plan = make_plan(tasks_of(contest))
    assert plan.todo[0].why == "outputs are missing or damaged"
    path.write_bytes(kept)
    assert left(contest) == []
    (generated.folder / manifests.FILE).write_text("{")
    assert left(contest) == ["generate", "refine"]


def test_repair_keeps_the_good_pictures(contest):
    finish_all(contest)
    generated = stages(contest)["generate"]
    good, bad, gone = (generated.path(prompt) for prompt in generated.prompts)
    bad.write_bytes(b"x")
    gone.unlink()
    generated.repair(read_manifest(generated.folder))
    assert good.exists() and not bad.exists()
    assert generated.missing() == [bad.name, gone.name]
    assert generated.units_done() == generated.units() // 3


def test_work_on_other_inputs_is_removed_and_the_same_is_kept(tmp_path):
    folder = tmp_path / "stage"
    first = Manifest("generate", "00", "key", {})
    assert not manifests.open_folder(folder, first)
    (folder / "a.png").write_bytes(b"1")
    half = ".jstyle-0123456789abcdef.part"
    for name in (f"{half}.png", f"below/{half}.png", f"{half}/a", ".somebody's"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1")
    assert manifests.open_folder(folder, first)
    assert {p.name for p in folder.rglob("*")} == {"a.png", "below", ".somebody's", manifests.FILE}
    assert not manifests.open_folder(folder, Manifest("generate", "00", "another key", {}))
    assert {p.name for p in folder.iterdir()} == {manifests.FILE}
    assert [p.name for p in tmp_path.iterdir()] == ["stage"]


def test_a_large_file_is_known_by_its_size_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "WHOLE", 100)
    monkeypatch.setattr(manifests, "END", 10)
    path, found = tmp_path / "a", set()
    for data in (b"a" * 200, b"b" + b"a" * 199, b"a" * 199 + b"b", b"a" * 201):
        path.write_bytes(data)
        found.add(digest(path))
    assert len(found) == 4


def test_a_class_picture_is_made_once_for_all_styles_that_want_it(contest):
    first, second = (stages_of(t)[0] for t in tasks_of(contest, styles=("00", "01")))
    assert first.folder == second.folder
    rows = make_plan(tasks_of(contest, styles=("00", "01"))).rows
    assert [r.why for r in rows if r.stage == "prior"] == ["missing", "with style 00"]
    finish(first)
    assert second.current() is not None


def test_own_class_pictures_count_by_their_contents(contest):
    train = {**EVERYTHING["train"], "class_dir": "class", "num_class_images": 2}
    sections = {**EVERYTHING, "train": train}
    (contest / "class").mkdir()
    image.save_png(contest / "class/own.png", np.zeros((8, 8, 3), np.uint8))
    prior = stages(contest, sections)["prior"]
    assert prior.count() == (1, "class picture") and prior.pictures == contest / "class"
    key = key_of(prior.inputs())
    image.save_png(contest / "class/class-00000.png", np.zeros((8, 8, 3), np.uint8))
    assert key_of(stages(contest, sections)["prior"].inputs()) == key
    image.save_png(contest / "class/own.png", np.ones((8, 8, 3), np.uint8))
    assert key_of(stages(contest, sections)["prior"].inputs()) != key


def test_the_style_image_is_drawn_by_a_seed_or_named(contest):
    drawn = {
        style_image(stages(contest, {"refine": {"style_seed": seed}})["refine"])
        for seed in range(8)
    }
    assert drawn == {"0.png", "1.png"}
    for name in ("1", "1.png"):
        refine = stages(contest, {"refine": {"style_image": name}})["refine"]
        assert style_image(refine) == "1.png"
    with pytest.raises(ValueError, match="style_image must be one of 0.png, 1.png, .*, got 'fox'"):
        tasks_of(contest, {"refine": {"style_image": "fox"}})


def style_image(refine) -> str:
    """Of all prompts."""
    (name,) = {refine.style_image(item).name for item in refine.items}
    return name


def test_the_count_that_paints_is_given_picked_or_the_last(contest):
    train = {"steps": 4, "save_at": [2]}
    assert stages(contest, {"train": train})["generate"].step() == 4
    assert stages(contest, {"train": train, "generate": {"at": 2}})["generate"].step() == 2
    assert stages(contest, {"train": False})["generate"].step() is None
    finish_all(contest)
    assert stages(contest)["generate"].step() == 2


def test_pick_paints_prompts_that_were_not_trained(contest):
    prompts = stages(contest)["pick"].task.style.prompts
    picked = stages(contest, {"pick": {"prompts": 2}})["pick"]
    assert picked.texts() == [f"{prompts[0]} in style_00", f"{prompts[2]} in style_00"]
    trained = {"train": {"instance_prompt": f"{prompts[0]} in style_00"}, "pick": True}
    assert len(stages(contest, trained)["pick"].texts()) == 2
    lines = [f'{{"file": "{i}.png", "caption": "{prompts[i]} in style_00"}}' for i in range(2)]
    (contest / "captions.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="style 00: pick needs two prompts"):
        tasks_of(contest, {"train": {"captions": "captions.jsonl"}, "pick": True})


def test_an_estimate_is_made_of_what_finished_stages_took(contest):
    plan = make_plan(tasks_of(contest, styles=("00", "01")))
    assert plan.rates == {} and "no estimate" in plan_text(plan)
    for stage in stages(contest).values():
        finish(stage, seconds=8.0)
    plan = make_plan(tasks_of(contest, styles=("00", "01")))
    assert [row.style for row in plan.todo] == ["01"] * 4
    assert [row.seconds for row in plan.todo] == pytest.approx([8.0] * 4)
    assert plan.seconds() == pytest.approx(32.0) and "about 32 s, as finished" in plan_text(plan)
    shorter = {**EVERYTHING, "generate": {**EVERYTHING["generate"], "steps": 5}}
    rows = {row.stage: row for row in make_plan(tasks_of(contest, shorter, ("01",))).todo}
    assert rows["generate"].seconds == pytest.approx(8.0 * 4 / 9)  # of 10 * 0.9 and 5 * 0.9 steps
    everything = make_plan(tasks_of(contest, shorter, ("00", "01")))
    assert everything.seconds() > everything.seconds(jobs=2)
    assert make_plan(tasks_of(contest, size_px=32)).rates == {}  # another size takes another time
    without = make_plan(tasks_of(contest, {**EVERYTHING, "train": {"steps": 2}, "pick": False}))
    assert "train" not in without.unknown


def test_an_interrupted_stage_is_planned_with_what_is_left_of_it(contest):
    finish_all(contest)
    generated = stages(contest)["generate"]
    found = read_manifest(generated.folder)
    found.done = False
    found.write(generated.folder)
    generated.path(generated.prompts[1]).unlink()
    first = make_plan(tasks_of(contest)).todo[0]
    assert first.why == "interrupted" and first.share == pytest.approx(2 / 3)
    assert first.seconds is None  # nothing else was measured


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_publishing_leaves_the_pictures_and_nothing_else(contest):
    finish_all(contest)
    refined, result = stages(contest)["refine"], contest / "out/result/00"
    result.mkdir(parents=True)
    for name in (".half.png", "old.png", f"{refined.prompts[0]}.png"):
        (result / name).write_bytes(b"x")
    (result / "folder").mkdir()
    publish(refined, result)
    assert {p.name for p in result.iterdir()} == {f"{prompt}.png" for prompt in refined.prompts}
    for prompt in refined.prompts:
        assert (result / f"{prompt}.png").read_bytes() == refined.path(prompt).read_bytes()


def test_a_style_that_is_finished_needs_no_model(contest):
    finish_all(contest)
    worker = Worker()
    outcome = run_style(tasks_of(contest)[0], worker)
    assert outcome.error is None and outcome.made == () and worker.loads == 0
    assert len(list((contest / "out/result/00").iterdir())) == 3
