"""Samplers on arrays: orders of convergence, bytes of DDIM, what is refused, independent copies."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from jstyle.sd import samplers
from jstyle.sd.config import ScheduleConfig
from jstyle.sd.samplers import SAMPLERS, Level, Step, dpm_adaptive, lms, own
from jstyle.sd.samplers.base import Run
from jstyle.sd.samplers.levels import Levels
from jstyle.sd.samplers.options import Sampling
from jstyle.sd.samplers.own import CLASSES, NEAREST
from jstyle.sd.schedule import Schedule
from tests import mixture
from tests.tolerances import assert_close, rel_l2

SCHEDULE = mixture.schedule(steps_offset=1, set_alpha_to_one=False)
NETWORK = mixture.network(SCHEDULE)
DENOISE = mixture.told_by(NETWORK, SCHEDULE)
ORDERS = {
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "dpm2": 2,
    "dpm++2m": 2,
    "unipc": 3,
    "lms": 2,
    "pndm": 2,
}


def normals(i, shape):
    return np.random.default_rng(500 + i).standard_normal(shape).astype(np.float32)


def last(walk):
    *_, (_, z) = walk
    return z


def after(name, count):
    """The latents after `count` even steps in lambda from one noisy level to another."""
    lams = np.linspace(-1.5, 1.5, count + 1)
    lams = [*lams, 2 * lams[-1] - lams[-2]]  # one more, whose order UniPC lowers
    levels = [Level(0, 1 / (1 + math.exp(-2 * lam))) for lam in lams]
    steps = tuple(Step(i, a, b) for i, (a, b) in enumerate(zip(levels, levels[1:], strict=False)))
    between = Levels(steps, np.log(np.linspace(0.01, 200, 50)))
    z = mixture.noise(0, np.float64)
    *_, (_, z), _ = SAMPLERS[name].walk(z, Run(steps, mixture.denoise, levels=between))
    return z


@pytest.fixture(scope="module")
def reference():
    return after("heun", 4000)


@pytest.mark.parametrize("name, order", ORDERS.items())
def test_the_error_falls_with_the_order_of_the_paper(name, order, reference):
    few, many = (rel_l2(after(name, count), reference) for count in (40, 80))
    observed = math.log2(few / many)
    print(f"ORDER {name} {observed:.2f} {many:.1e}")
    assert order == SAMPLERS[name].order and order - 0.35 < observed < order + 0.7


@pytest.mark.parametrize("num_steps", [4, 7, 25])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_ddim_has_the_bytes_of_the_schedule_both_ways(kind, num_steps):
    schedule = mixture.schedule(prediction_type=kind, steps_offset=1, set_alpha_to_one=False)
    out = mixture.network(schedule)
    plan = samplers.plan(schedule, "ddim", num_steps)
    z = mixture.noise()
    ts = [int(t) for t in schedule.timesteps(num_steps)]
    for t, (told, ours) in zip(ts, plan.walk(z, mixture.told_by(out, schedule)), strict=True):
        z = schedule.step(out(z, t), z, t, num_steps)
        assert told == t and isinstance(told, int) and ours.tobytes() == z.tobytes()
    back = plan.invert(z, mixture.told_by(out, schedule))
    for t, (told, ours) in zip(ts[::-1], back, strict=True):
        z = schedule.invert_step(out(z, t), z, t, num_steps)
        assert told == t and ours.tobytes() == z.tobytes()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_evaluations_are_counted_and_every_run_ends_clean_and_finite(name, num_steps):
    plan, seen = samplers.plan(SCHEDULE, name, num_steps), []

    def denoise(z, level):
        seen.append(level)
        return DENOISE(z, level)

    steps = list(plan.walk(mixture.noise(), denoise, normals))
    assert len(seen) == plan.evaluations or (name == "dpm-adaptive" and plan.evaluations is None)
    assert len(steps) == num_steps or name == "dpm-adaptive"
    assert all(level.t >= 0 for level in seen)
    assert np.isfinite(steps[-1][1]).all() and steps[-1][1].dtype == np.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_that_starts_later_injects_the_same_noise(name):
    plan, asked = samplers.plan(SCHEDULE, name, 6), {}

    def record(key):
        asked[key] = []
        return lambda i, shape: asked[key].append(i) or normals(i, shape)

    list(plan.walk(mixture.noise(), DENOISE, record("whole")))
    assert len(list(plan.walk(mixture.noise(), DENOISE, record("part"), start=4))) >= 2
    assert bool(asked["whole"]) == SAMPLERS[name].stochastic
    assert asked["part"] == [i for i in asked["whole"] if i in asked["part"]]
    assert asked["whole"][len(asked["whole"]) - len(asked["part"]) :] == asked["part"]
    assert list(plan.walk(mixture.noise(), DENOISE, normals, start=6)) == []


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigmas", ["karras", "exponential"])
def test_sigmas_change_the_result_or_are_refused_by_name(name, sigmas):
    if sigmas not in SAMPLERS[name].sigmas:
        with pytest.raises(ValueError, match=f"{re.escape(name)} admits no sigmas {sigmas}"):
            samplers.plan(SCHEDULE, name, 5, sigmas)
        return
    plain, spaced = (samplers.plan(SCHEDULE, name, 5, choice) for choice in (None, sigmas))
    sigma = [step.here.sigma for step in spaced.levels.steps]
    if sigmas == "exponential":
        ratios = np.divide(sigma[1:], sigma[:-1])
    else:
        ratios = np.diff(np.power(sigma, 1 / 7))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
    a, b = (last(plan.walk(mixture.noise(), DENOISE, normals)) for plan in (plain, spaced))
    assert rel_l2(a, b) > 1e-3


def test_eta_is_heeded_where_there_is_one():
    runs = [
        last(samplers.plan(SCHEDULE, "ddim", 12, eta=eta).walk(mixture.noise(), DENOISE, normals))
        for eta in (0.0, 0.5, 1.0)
    ]
    assert rel_l2(runs[0], runs[1]) > 0.01 and rel_l2(runs[1], runs[2]) > 0.01
    schedule = mixture.schedule()  # ends at abar 1: eta = 1 is DDPM over even steps
    a = samplers.plan(schedule, "ddim", 10, eta=1.0).walk(mixture.noise(), DENOISE, normals)
    b = samplers.plan(schedule, "ddpm", 10).walk(mixture.noise(), DENOISE, normals)
    assert_close("sampler.eta_is_ddpm", last(a), last(b))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("dpm",), "sampler must be one of ddim, .*, got 'dpm'"),
        (("euler", 5, None, 0.5), "euler has no eta, got 0.5; ddim has"),
        (("ddim", 5, None, 1.5), r"eta must be in \[0, 1\], got 1.5"),
        (("ddim", 5, None, float("nan")), r"eta must be in \[0, 1\], got nan"),
        (("lcm", 51), "num_steps must be in 1..50 for lcm, got 51"),
        (("euler", 0), "num_steps must be in 1..1000, got 0"),
        (("dpm++2m", 999), "num_steps = 999 is too many"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    name, num_steps, *rest = (*arguments, 5)[: max(2, len(arguments))]
    with pytest.raises(ValueError, match=message):
        samplers.plan(SCHEDULE, name, num_steps, *rest)


def test_walks_refuse_a_missing_noise_and_a_start_past_the_end():
    for plan in (samplers.plan(SCHEDULE, "ddpm", 5), samplers.plan(SCHEDULE, "ddim", 5, eta=0.1)):
        with pytest.raises(ValueError, match="injects noise and was given none"):
            plan.walk(mixture.noise(), DENOISE)
        with pytest.raises(ValueError, match=r"cannot be inverted; ddim, euler with eta 0 can"):
            plan.invert(mixture.noise(), DENOISE)
    with pytest.raises(ValueError, match=r"start must be in 0..5, got 6"):
        samplers.plan(SCHEDULE, "ddim", 5).walk(mixture.noise(), DENOISE, start=6)


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if row.invertible])
def test_inversion_and_sampling_meet_closer_with_more_steps(name):
    x0 = mixture.x0_of(mixture.noise(), 0.3).astype(np.float32)
    errors = []
    for n in (20, 80):
        plan = samplers.plan(mixture.schedule(timestep_spacing="leading"), name, n)
        z = last(plan.invert(x0, DENOISE))
        errors.append(rel_l2(last(plan.walk(z, DENOISE)), x0))
    assert errors[1] < 0.4 * errors[0] < 0.1


def test_multistep_weights_by_hand():
    assert lms.coefficients((3.0,), 1.0) == pytest.approx([-2.0])
    # the textbook's weights for even steps of -1
    even = lms.coefficients((4.0, 5.0, 6.0, 7.0), 3.0)
    assert even == pytest.approx([-55 / 24, 59 / 24, -37 / 24, 9 / 24])


def sigma_space(plan, denoise):
    """x0(xhat, sigma) of a walk's own levels, and its sigmas with the final 0."""

    def model(x, sigma):
        level = plan.levels.at(sigma)
        return np.float64(denoise(np.float32(x * level.signal), level)[0])

    return model, [step.here.sigma for step in plan.levels.steps] + [0.0]


def test_2s_ancestral_is_algorithm_one_with_noise_written_in_sigma():
    """In xhat and t = -log(sigma), exponentials as in the paper; no function of ours."""
    plan = samplers.plan(SCHEDULE, "dpm++2s-a", 8, "karras")
    model, sigmas = sigma_space(plan, DENOISE)
    x = mixture.noise().astype(np.float64) * plan.levels.scale / plan.levels.steps[0].here.signal
    for i in range(8):
        s, s_next = sigmas[i], sigmas[i + 1]
        x0 = model(x, s)
        if s_next == 0:
            x = x0
            break
        up = min(s_next, math.sqrt(s_next**2 * (s**2 - s_next**2) / s**2))
        t, t_down = -math.log(s), -math.log(math.sqrt(s_next**2 - up**2))
        h, middle = t_down - t, t + 0.5 * (t_down - t)
        u = math.exp(t - middle) * x - math.expm1(-0.5 * h) * x0
        x = math.exp(-h) * x - math.expm1(-h) * model(u, math.exp(-middle))
        x = x + up * normals(i, mixture.SHAPE)
    assert_close("sampler.2s", last(plan.walk(mixture.noise(), DENOISE, normals)), x)


def adaptive_by_the_paper(model, x, sigma, end):
    """DPM-Solver-23 on xhat (alpha = 1, sigma = e^-t), one (x, sigma) after every accepted step."""
    h, sigma_of = 0.05, lambda t: math.exp(-t)
    t, t_end = -math.log(sigma), -math.log(end)
    eps_of = lambda x, t: (x - model(x, sigma_of(t))) / sigma_of(t)  # noqa: E731
    while t < t_end - 1e-12:
        h = min(h, t_end - t)
        e0, t1, t2, t3 = eps_of(x, t), t + h / 3, t + 2 * h / 3, t + h
        e1 = eps_of(x - sigma_of(t1) * math.expm1(h / 3) * e0, t1)
        k = math.expm1(2 * h / 3) / (2 * h / 3) - 1
        u = x - sigma_of(t2) * (math.expm1(2 * h / 3) * e0 + 2 * k * (e1 - e0))
        e2 = eps_of(u, t2)
        low = x - sigma_of(t3) * math.expm1(h) * (e0 + 1.5 * (e1 - e0))
        high = x - sigma_of(t3) * (math.expm1(h) * e0 + 1.5 * (math.expm1(h) / h - 1) * (e2 - e0))
        # the tolerance is in the latents' own scale
        a, b, c = (
            v / math.hypot(1, s)
            for v, s in ((low, sigma_of(t3)), (high, sigma_of(t3)), (x, sigma_of(t)))
        )
        scaled = (a - b) / np.maximum(0.0078, 0.05 * np.maximum(abs(a), abs(c)))
        e = max(math.sqrt(np.mean(image**2)) for image in scaled)
        if e <= 1:
            x, t = high, t3
        h *= 0.9 * e ** (-1 / 3)
    return model(x, end)


def test_the_adaptive_solver_is_that_of_the_paper_and_its_tolerance_counts(monkeypatch):
    plan = samplers.plan(SCHEDULE, "dpm-adaptive", 20)
    first, end = plan.levels.steps[0].here, plan.levels.steps[-1].here
    model, _ = sigma_space(plan, DENOISE)
    z = mixture.noise()
    want = adaptive_by_the_paper(model, z / first.signal, first.sigma, end.sigma)
    seen = []
    count = lambda z, level: seen.append(level) or DENOISE(z, level)  # noqa: E731
    got = last(plan.walk(z, count))
    assert_close("sampler.adaptive", got, want)
    loose, calls = got, len(seen)
    monkeypatch.setattr(dpm_adaptive, "RELATIVE", 5e-4)
    monkeypatch.setattr(dpm_adaptive, "ABSOLUTE", 7.8e-5)
    tight = last(plan.walk(z, count))
    exact = last(samplers.plan(SCHEDULE, "heun", 480, spacing="leading").walk(z, DENOISE))
    assert len(seen) - calls > 2 * calls
    assert rel_l2(tight, exact) < rel_l2(loose, exact) < 0.05


def test_the_adaptive_solver_stops_at_what_is_not_finite():
    plan = samplers.plan(SCHEDULE, "dpm-adaptive", 20)
    with pytest.raises(FloatingPointError, match="not finite"):
        list(plan.walk(mixture.noise(), lambda z, level: (z, z * np.nan)))


def test_spacing_overrides_the_schedules_own():
    own_levels = samplers.plan(SCHEDULE, "euler", 4).levels
    other = samplers.plan(SCHEDULE, "euler", 4, spacing="trailing").levels
    assert [step.here.t for step in own_levels.steps] == [751, 501, 251, 1]
    assert [step.here.t for step in other.steps] == [999, 749, 499, 249]
    assert SCHEDULE.config.timestep_spacing == "leading" and isinstance(SCHEDULE, Schedule)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, ("ddim", None, "leading", ())),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, ("pndm", None, "leading", ())),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
            ("euler", None, "trailing", ()),
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
            ("dpm++2m", "karras", "linspace", ()),
        ),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "algorithm_type": "sde-dpmsolver++",
                "use_exponential_sigmas": True,
                "solver_order": 3,
            },
            (
                "dpm++2m-sde",
                "exponential",
                "linspace",
                ("solver_order = 3 is not implemented, 2 is used",),
            ),
        ),
        (
            {"_class_name": "DEISMultistepScheduler"},
            (
                "dpm++2m",
                None,
                "linspace",
                ("DEISMultistepScheduler is not implemented, dpm++2m stands in",),
            ),
        ),
    ],
)
def test_a_models_file_names_its_sampler(config, expected):
    assert own(config)[:4] == expected
    samplers.plan(SCHEDULE, own(config).sampler, 5, own(config).sigmas)


def test_every_class_that_has_a_sampler_is_read_from_a_models_file():
    assert set(ScheduleConfig.CLASS_NAMES) == {*CLASSES, *NEAREST}


@pytest.mark.parametrize(
    ("name", "keys", "sampler"),
    [
        ("LCMScheduler", {"original_inference_steps": 50, "timestep_scaling": 10.0}, "lcm"),
        ("DPMSolverSDEScheduler", {"noise_sampler_seed": None}, "dpm++sde"),
    ],
)
def test_keys_that_only_one_sampler_has_are_read(name, keys, sampler):
    file = {"_class_name": name, **keys, "num_train_timesteps": 1000, "steps_offset": 1}
    assert ScheduleConfig.from_json(file).num_train_timesteps == 1000
    assert (own(file).sampler, own(file).notes) == (sampler, ())


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="_class_name = 'Foo' is not supported; supported: DDIM"):
        own({"_class_name": "Foo"})


def test_more_steps_than_a_sampler_has_are_refused_before_anything_is_loaded():
    assert Sampling(steps=50, sampler="lcm").steps == 50
    with pytest.raises(ValueError, match="steps of sampler lcm must be .* 1 to 50, got 51"):
        Sampling(steps=51, sampler="lcm")
