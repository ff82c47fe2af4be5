"""Which sampler a model's scheduler_config.json asks for, in the names of SAMPLERS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .levels import EXPONENTIAL, KARRAS

LEADING, LINSPACE = "leading", "linspace"
CLASSES = {  # _class_name -> sampler, and the timestep_spacing that diffusers gives a file without
    "DDIMScheduler": ("ddim", LEADING),
    "DDIMInverseScheduler": ("ddim", LEADING),
    "DDPMScheduler": ("ddpm", LEADING),
    "PNDMScheduler": ("pndm", LEADING),
    "LCMScheduler": ("lcm", LEADING),
    "EulerDiscreteScheduler": ("euler", LINSPACE),
    "EulerAncestralDiscreteScheduler": ("euler-a", LINSPACE),
    "HeunDiscreteScheduler": ("heun", LINSPACE),
    "LMSDiscreteScheduler": ("lms", LINSPACE),
    "KDPM2DiscreteScheduler": ("dpm2", LINSPACE),
    "KDPM2AncestralDiscreteScheduler": ("dpm2-a", LINSPACE),
    "DPMSolverSDEScheduler": ("dpm++sde", LINSPACE),
    "DPMSolverMultistepScheduler": ("dpm++2m", LINSPACE),
    "UniPCMultistepScheduler": ("unipc", LINSPACE),
}
NEAREST = {  # not implemented; what stands in, of the same order and on the same levels
    "DEISMultistepScheduler": ("dpm++2m", LINSPACE),
    "DPMSolverSinglestepScheduler": ("dpm++2m", LINSPACE),
}
K_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012}
SILENT: dict[str, dict[str, Any]] = {  # what diffusers' class takes for keys that a file lacks,
    "PNDMScheduler": {"set_alpha_to_one": False},  # where DDIM's takes something else
    "HeunDiscreteScheduler": K_DIFFUSION,
    "KDPM2DiscreteScheduler": K_DIFFUSION,
    "KDPM2AncestralDiscreteScheduler": K_DIFFUSION,
    "DPMSolverSDEScheduler": K_DIFFUSION,
    "LCMScheduler": {**K_DIFFUSION, "beta_schedule": "scaled_linear"},
}
ALGORITHMS = {"dpmsolver++": "dpm++2m", "sde-dpmsolver++": "dpm++2m-sde"}
USED: dict[
    str, dict[str, tuple]
] = {  # sampler -> key: the values that mean what is done here; absent keys are fine
    "pndm": {"skip_prk_steps": (True,)},
    "ddpm": {"variance_type": ("fixed_small",)},
    "euler": {"final_sigmas_type": ("zero",), "interpolation_type": ("linear",)},
    "dpm++2m": {
        "solver_order": (2,),
        "solver_type": ("midpoint", "logrho", "bh1", "bh2"),
        "final_sigmas_type": ("zero",),
    },
    "unipc": {
        "solver_order": (2,),
        "solver_type": ("bh2", "midpoint", "heun", "logrho"),
        "final_sigmas_type": ("zero",),
        "predict_x0": (True,),
        "lower_order_final": (True,),
        "disable_corrector": ([], None),
    },
    "lcm": {"original_inference_steps": (50,), "timestep_scaling": (10, 10.0)},
}
USED["dpm++2m-sde"] = USED["dpm++2m"]
NEVER: dict[str, tuple] = {  # for every sampler
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "sigma_min": (None,),
    "sigma_max": (None,),
}


class Own(NamedTuple):
    """A model's own way of sampling."""

    sampler: str
    sigmas: str | None
    spacing: str
    notes: tuple[str, ...]  # one line for each thing that is done otherwise than the file says
    silent: Mapping[str, Any] = {}  # noqa: RUF012  of a ScheduleConfig, with this sampler alone


def own(config: Mapping[str, Any]) -> Own:
    """The sampler of a scheduler_config.json, read as a dict; "ddim" where it names no class.

    Raises ValueError for a class that has no counterpart here.
    """
    name = config.get("_class_name", "DDIMScheduler")
    if name not in CLASSES and name not in NEAREST:
        known = ", ".join([*CLASSES, *NEAREST])
        raise ValueError(f"_class_name = {name!r} is not supported; supported: {known}")
    sampler, spacing = (CLASSES | NEAREST)[name]
    notes = [f"{name} is not implemented, {sampler} stands in"] if name in NEAREST else []
    if name == "DPMSolverMultistepScheduler":
        algorithm = config.get("algorithm_type", "dpmsolver++")
        sampler = ALGORITHMS.get(algorithm, "dpm++2m")
        if algorithm not in ALGORITHMS:
            notes.append(f"algorithm_type = {algorithm!r} is not implemented, {sampler} stands in")
    expected = NEVER | ({} if name in NEAREST else USED.get(sampler, {}))
    if sampler == "pndm":
        config = {"skip_prk_steps": False, **config}  # the class's default
    for key, values in expected.items():
        if key in config and config[key] not in values:
            notes.append(f"{key} = {config[key]!r} is not implemented, {values[0]!r} is used")
    sigmas = KARRAS if config.get("use_karras_sigmas") else None
    sigmas = EXPONENTIAL if config.get("use_exponential_sigmas") else sigmas
    silent = {key: value for key, value in SILENT.get(name, {}).items() if key not in config}
    return Own(sampler, sigmas, config.get("timestep_spacing", spacing), tuple(notes), silent)
