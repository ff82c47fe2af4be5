"""The measures of a comparison, its limits, and who is named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jstyle.parity import compare
from jstyle.parity.compare import LIMITS, Comparer, Row, StageRows, Sums, first_jump
from jstyle.parity.page import as_html
from jstyle.parity.recording import Recorder, Recording
from jstyle.parity.report import Report
from jstyle.parity.task import ParityError, Task


def task(*stages):
    return Task(
        stages=stages,
        steps=3,
        seed=0,
        rng="numpy",
        prompt="a <cat>",
        size_px=64,
        timestep=501,
        source="model",
        fingerprint=None,
    )


def record(folder, **stages):
    """A finished recording with these values: stage -> {name: array}."""
    task(*stages).write(folder, {"latent": np.zeros((1, 2), np.float32)})
    sink = Recorder(folder)
    for stage, values in stages.items():
        with sink.stage(stage):
            for name, array in values.items():
                sink.put(name, array)
    sink.finish(side="here", device="cpu", dtype="float32")
    return Recording(folder)


def compared(reference, slack=1.0, half=False, **stages):
    """The rows of the first stage, of which these values are ours."""
    sink = Comparer(reference, slack, half)
    for stage, values in stages.items():
        with sink.stage(stage):
            for name, array in values.items():
                sink.put(name, array)
    return sink.stages[0]


def rows(stage="unet", **errors):
    """A stage whose entries have these errors; __ stands for a dot."""
    found = StageRows(stage, limit=1e-4)
    for name, error in errors.items():
        found.rows.append(Row(name.replace("__", "."), Sums(error**2, 1.0, 1.0, 1.0, error)))
    return found


def test_measures_of_a_worked_example():
    sums = Sums.of(np.array([3.0, 4.0, 1.0]), np.array([3.0, 4.0, 0.0]))
    assert sums.rel_l2 == pytest.approx(1 / 5)
    assert sums.max_abs == 1.0
    assert sums.cosine == pytest.approx(25 / (5 * math.sqrt(26)))


def test_chunks_change_nothing(monkeypatch):
    a, b = np.random.default_rng(0).standard_normal((2, 7, 11)).astype(np.float32)
    whole = Sums.of(a, b)
    monkeypatch.setattr(compare, "CHUNK", 10)
    parts = Sums.of(a, b)
    assert parts.max_abs == whole.max_abs
    assert parts.rel_l2 == pytest.approx(whole.rel_l2, rel=1e-12)
    assert parts.cosine == pytest.approx(whole.cosine, rel=1e-12)
    joined = Sums.of(a[:3], b[:3]) + Sums.of(a[3:], b[3:])
    assert joined.rel_l2 == pytest.approx(whole.rel_l2, rel=1e-12)


def test_sums_are_in_float64():
    ones = np.ones(1 << 20, np.float32)
    assert Sums.of(ones, ones * np.float32(1 + 2**-20)).rel_l2 == pytest.approx(2**-20, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_infinitely_wrong(bad):
    a, b = np.ones(4, np.float32), np.ones(4, np.float32)
    a[2] = bad
    with np.errstate(invalid="ignore"):
        for sums in (Sums.of(a, b), Sums.of(b, a), Sums.of(a, b) + Sums.of(b, b)):
            assert (sums.rel_l2, sums.cosine) == (math.inf, 0.0)
            assert not math.isfinite(sums.max_abs)


def test_a_reference_of_zeros():
    zeros = np.zeros(3, np.float32)
    assert (Sums.of(zeros, zeros).rel_l2, Sums.of(zeros, zeros).cosine) == (0.0, 1.0)
    assert (Sums.of(zeros + 1, zeros).rel_l2, Sums.of(zeros + 1, zeros).cosine) == (math.inf, 0.0)


def test_the_first_module_that_makes_an_error_is_named():
    stage = rows(a__in=0.0, a__out=1e-6, b__in=1e-6, b__out=1e-2, c__in=1e-2, c__out=5e-1)
    jump = first_jump([rows("text_encoder", a__in=0.0, a__out=1e-6), stage])
    assert (jump.module, jump.stage, jump.sudden) == ("b", "unet", True)
    assert (jump.of_input, jump.error) == (pytest.approx(1e-6), pytest.approx(1e-2))


def test_a_module_without_an_input_can_be_named():
    jump = first_jump([rows("text_encoder", table__out=1e-2)])
    assert (jump.module, jump.of_input) == ("text_encoder.table", None)


def test_an_error_that_grows_slowly_is_told_from_a_jump():
    stage = rows(a__in=2e-5, a__out=9e-5, b__in=9e-5, b__out=3e-4, c__in=3e-4, c__out=9e-4)
    jump = first_jump([stage])
    assert (jump.module, jump.sudden) == ("b", False)


def test_nobody_is_named_within_the_limits_and_for_whole_stages():
    assert first_jump([rows(a__in=0.0, a__out=9e-5, out=1e-1)]) is None
    assert first_jump([rows("styleid", image=1.0)]) is None


def test_gradients_are_judged_together():
    big, small = Sums(1e-12, 1.0, 1.0, 1.0, 1e-6), Sums(1e-16, 1e-16, 1e-16, 0.0, 1e-8)
    stage = StageRows("training", 1e-5, [Row("gradient/a", big), Row("gradient/b", small)])
    assert stage.rows[1].sums.rel_l2 == 1.0
    assert [row.name for row in stage.judged] == ["gradient"]
    assert stage.passed and stage.worst.sums.rel_l2 == pytest.approx(1e-6, rel=1e-3)


def test_what_is_recorded_comes_back(tmp_path):
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    values = {"x.in": a, "x.out": a.T, "y.in": a.T, "z.out": a.reshape(4, 3), "h": a.astype("f2")}
    found = record(tmp_path, unet=values)
    assert list(found.entries("unet")) == list(values)
    assert found.entries("unet")["y.in"] == "x.out"  # there once
    assert found.entries("unet")["z.out"] == "z.out"  # the same bytes in another shape
    assert found.entries("unet")["h"] == "x.in"  # float16 is widened
    with found.open("unet") as read:
        for name, stored in found.entries("unet").items():
            np.testing.assert_array_equal(read(stored), values[name])


def test_a_comparison_with_itself_is_exact_and_with_another_is_not(tmp_path):
    values = {"x.out": np.arange(6, dtype=np.float32), "out": np.ones((2, 2), np.float32)}
    reference = record(tmp_path, unet=values)
    same = compared(reference, unet=values)
    assert same.passed and same.worst.sums.rel_l2 == 0.0
    assert not same.only_ours and not same.only_theirs
    other = compared(reference, unet={**values, "out": values["out"] * 1.001})
    assert not other.passed and other.worst.name == "out"
    assert other.limit == LIMITS["unet"]
    near = {**values, "out": values["out"] * 1.001}
    assert compared(reference, 30.0, unet=near).passed
    assert compared(reference, half=True, unet=near).passed


def test_half_precision_widens_only_what_it_touches(tmp_path):
    values = {"out": np.ones(3, np.float32)}
    reference = record(tmp_path, unet=values, training=values)
    sink = Comparer(reference, slack=2.0, half=True)
    for name in ("unet", "training"):
        with sink.stage(name):
            sink.put("out", values["out"])
    assert sink.stages[0].limit > 100 * LIMITS["unet"]
    assert sink.stages[1].limit == 2 * LIMITS["training"]


def test_what_cannot_be_compared_is_told(tmp_path):
    values = {"x.out": np.zeros(6, np.float32), "y.out": np.ones(6, np.float32)}
    reference = record(tmp_path, unet=values)
    stage = compared(reference, unet={"x.out": np.zeros(5, np.float32), "z.out": values["y.out"]})
    assert (stage.only_ours, stage.only_theirs) == (["z.out"], ["y.out"])
    assert not stage.passed
    text = Report(task("unet"), [stage], {}, {}).as_text()
    assert "x.out: shape [5], the reference has [6]" in text
    assert "only in ours: z.out" in text and "only in the reference: y.out" in text
    assert not compared(reference, unet={"z.out": values["y.out"]}).passed  # nothing in common


@pytest.mark.parametrize("name", ["index.json", "task.json", "inputs.safetensors"])
def test_an_incomplete_recording_is_refused(tmp_path, name):
    record(tmp_path, unet={"out": np.ones(3, np.float32)})
    (tmp_path / name).unlink()
    with pytest.raises(ParityError, match=name):
        Recording(tmp_path)


def test_a_damaged_or_foreign_recording_is_refused(tmp_path):
    values = {"out": np.ones(3, np.float32)}
    reference = record(tmp_path, unet=values)
    path = tmp_path / "unet.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ParityError, match="unet.safetensors: cannot be read"):
        compared(reference, unet=values)
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ParityError, match="must be jstyle-parity 1, is jstyle-parity 2"):
        Recording(tmp_path)


def test_an_interrupted_recording_is_none(tmp_path):
    record(tmp_path, unet={"out": np.ones(3, np.float32)})
    sink = Recorder(tmp_path)  # starts anew
    with pytest.raises(ZeroDivisionError), sink.stage("unet"):
        _ = 1 / 0
    with pytest.raises(ParityError, match="index.json: no such file"):
        Recording(tmp_path)


def test_the_page_stands_alone_and_marks_the_module():
    stage = rows(a__in=0.0, a__out=1e-6, b__in=1e-6, b__out=math.inf)
    walk = StageRows("sampling", 1e-4, [Row(f"{i:04d}", Sums(0.0, 1.0, 1.0, 1.0)) for i in (0, 1)])
    page = as_html(Report(task("unet", "sampling"), [stage, walk], {}, {}, fault="b"))
    assert "://" not in page and "src=" not in page and "<script" not in page
    assert "a &lt;cat&gt;" in page and "beyond the limits" in page
    assert "first error that jumps: b" in page and page.count('r="7"') == 1
    assert page.count("<svg") == 2 and page.count("<polyline") == 1
    assert "sampling, step 2: 0.0e+00" in page
