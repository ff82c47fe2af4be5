"""The options of each command: their names, types, defaults and help, in one parser per command.

Style options come from the fields of StyleConfig, so help and defaults have one home. Every option
may also stand in the YAML file given with --config.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from .config import CHOICES, EACH, PRESETS, RESULTS_TOGETHER, StyleConfig
from .console.parser import Parser, asked_for, make_parser
from .console.shared_options import add_config, add_device, add_model, add_overwrite
from .method_options import add_method, add_references
from .methods import DEFAULT, METHODS, find_method, from_noise
from .score.total import ARTFID, PROTOCOLS
from .sd.facts import STYLE
from .sd.rng import NUMPY, RNGS

COMPARED: dict[str, tuple[type, str]] = {  # options that methods share
    "steps": (int, "of inversion and sampling"),
    "size-px": (int, "side of the pictures"),
    "prompt": (str, "what results show"),
    "negative": (str, "what guidance leads away from"),
    "guidance": (float, "strength of guidance"),
    "invert-prompt": (str, "what pictures show that are walked to noise"),
    "window": (str, "LO:HI, the timesteps at which methods change anything"),
    "weight": (float, "how much of the change is made, 0 to 1"),
}


def _parser(command: str, description: str, examples: str) -> Parser:
    return make_parser(f"jstyle {command}", description, examples)


def _add_lora(parser: Parser) -> None:
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a LoRA of diffusers, kohya or peft, a file or its folder, and its weight (1); may be "
        "given several times",
    )


def _add_texts(parser: Parser, options: dict[str, str]) -> None:
    """Options that are texts and need not be given: name -> help."""
    for name, told in options.items():
        parser.add_argument(name, type=str | None, default=None, help=told)


def stylize(words: Sequence[str] = ()) -> Parser:
    """words: what was given, for its method has options of its own."""
    method = find_method(asked_for("method", words) or DEFAULT)
    parser = _parser(
        "stylize",
        "Paint content images in the style of style images. Every content meets every style "
        "(--style-choice); each image is prepared once. Results are CONTENT_stylized_STYLE.png, a "
        ".json record beside each. Finished results are skipped, so an interrupted run can be "
        "started again.",
        "  jstyle stylize --content photo.jpg --style painting.jpg --out result.png\n"
        "  jstyle stylize --content photos --style paintings --out results\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --preset high-style\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --gamma 0.5 \\\n"
        "      --sites decoder:9-11 --window 0:200\n"
        "  jstyle stylize --content photo.jpg --style paintings --out out --style-choice all\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --model sd21 \\\n"
        "      --method reference-only --prompt 'a castle' --guidance 5\n"
        "  jstyle stylize --config run.yaml       (run.yaml: content: photos, steps: 30, ...)\n",
    )
    add_config(parser)
    parser.add_argument("--content", type=str, required=True, help="an image or a folder of them")
    if STYLE in method.roles:
        parser.add_argument("--style", type=str, required=True, help="an image or a folder of them")
        told = "; ".join(f"{name}: {does}" for name, does in CHOICES.items())
        parser.add_argument("--style-choice", type=str, default=EACH, help=f"of a content: {told}")
    parser.add_argument(
        "--out", type=str, required=True, help="a folder, or a .png for one content and one style"
    )
    add_model(parser)
    _add_lora(parser)
    parser.add_argument(
        "--batch",
        type=int,
        default=RESULTS_TOGETHER,
        help="how many results of one image are sampled together; fewer need less memory",
    )
    add_method(parser, method.name, METHODS, DEFAULT)
    if STYLE not in method.roles:
        parser.elsewhere["style"] = f"method {method.name} takes no style picture"
    add_overwrite(parser)
    return parser


def compare() -> Parser:
    parser = _parser(
        "compare",
        "The same contents and styles through several methods, on one sheet with figures that need "
        "no download: how far the colours are from the style's, how far the edges are the "
        "content's, and HIST. Beside OUT.png: OUT.json, the figures of every result; OUT.cells, "
        "the results, which are taken from there when they are finished.",
        "  jstyle compare --content photo.jpg --style painting.jpg --out sheet.png\n"
        "  jstyle compare --content photos --style paintings --methods styleid,reference-only \\\n"
        "      --out sheet.png --csv figures.csv --cell-px 192\n"
        "  jstyle compare --content photo.jpg --style painting.jpg --out sheet.png \\\n"
        "      --model sd21 --prompt 'a castle' --guidance 5 --steps 30\n",
    )
    add_config(parser)
    for name in ("content", "style"):
        told = "an image or a folder of them"
        parser.add_argument(f"--{name}", type=str, required=True, help=told)
    parser.add_argument("--out", type=str, required=True, help="the sheet, a .png")
    names = ",".join(METHODS)
    parser.add_argument(
        "--methods", type=str, default=names, help="separated by commas, in this order"
    )
    _add_texts(parser, {"--csv": "also write the figures of every result to this file, a .csv"})
    told = "longer side of the pictures on the sheet (default: as painted)"
    parser.add_argument("--cell-px", type=int | None, default=None, help=told)
    for name, (kind, told) in COMPARED.items():
        told = f"{told} (each method's own)"
        parser.add_argument(f"--{name}", type=kind | None, default=None, help=told)
    add_model(parser)
    _add_lora(parser)
    add_overwrite(parser)
    return parser


def reconstruct() -> Parser:
    parser = _parser(
        "reconstruct",
        "Invert an image to noise and sample it back, without style. Prints the PSNR against the "
        "VAE's own round trip and against the input.",
        "  jstyle reconstruct --image photo.jpg --out back.png\n"
        "  jstyle reconstruct --image photo.jpg --out back.png --steps 100 --json\n",
    )
    add_config(parser)
    parser.add_argument("--image", type=str, required=True, help="the image file")
    parser.add_argument("--out", type=str, required=True, help="the result, a .png")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_model(parser)
    used = {"steps", "size_px"}
    parser.add_fields(StyleConfig, skip={field.name for field in fields(StyleConfig)} - used)
    add_overwrite(parser)
    return parser


def generate(words: Sequence[str] = ()) -> Parser:
    """words: what was given, for a method has options of its own."""
    method = asked_for("method", words)
    parser = _parser(
        "generate",
        "Pictures from prompts. Picture i has the seed SEED + i. With --method they are painted "
        "after reference pictures, or after the first of them. Finished results are skipped, so "
        "an interrupted run can be started again.",
        '  jstyle generate --prompt "a star in mosaic style" --out star.png\n'
        '  jstyle generate --prompt "a star" --prompt "a tree" --out pictures --seed 7\n'
        '  jstyle generate --prompt "a castle at dusk" --out castle.png --model sd21 \\\n'
        "      --height 768 --width 512 --steps 30 --guidance 7.5\n"
        '  jstyle generate --prompt "a castle" --out castle.png --sampler dpm++2m --sigmas karras\n'
        '  jstyle generate --prompt "a fox in style_05" --out fox.png --lora fox.safetensors:0.8\n'
        '  jstyle generate --prompt "a fox" --reference drawing.png --method reference-only \\\n'
        "      --out fox.png\n"
        '  jstyle generate --prompt "a cat" --prompt "a dog" --method style-aligned --out pair\n'
        '  jstyle generate --prompt "a (fox:1.3) [in fog:in sun:0.4] AND a [hill|lake] :0.6" \\\n'
        "      --syntax webui --out fox.png\n"
        "  jstyle generate --prompts list.txt --out pictures\n"
        '  jstyle generate --prompt "a __animal__ in __place__" --wildcards words --count 20 \\\n'
        "      --out pictures\n\n"
        "a file of prompts:\n"
        "  .txt    one a line\n"
        '  .jsonl  one a line, as text or {"prompt": "a fox", "negative": "fog", "seed": 7,\n'
        '          "size": "512x768", "name": "fox", "references": ["a.png"]}; all\n'
        "          but the prompt may be left out; paths are relative to the file\n"
        "  .json   a list of these, or an object with them as values\n",
    )
    add_config(parser)
    parser.add_argument("--prompt", action="append", default=[], help="may be given several times")
    _add_texts(
        parser,
        {
            "--prompts": "a file of prompts, see below",
            "--wildcards": "a folder: __NAME__ in a prompt stands for a line of its NAME.txt, "
            "which the picture's seed draws",
        },
    )
    parser.add_argument("--count", type=int, default=1, help="pictures of each prompt")
    parser.add_argument(
        "--out", type=str, required=True, help="a folder, or a .png for one picture"
    )
    add_references(parser)
    _add_painting(parser, "of the first picture's noise")
    add_method(parser, method, from_noise(), None, skip=("size_px",))
    return parser


def _add_painting(parser: Parser, seed: str) -> None:
    """How a picture is painted from a prompt. seed: what it is the seed of."""
    from .sd.samplers.options import Sampling  # brings NumPy

    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_fields(Sampling)
    parser.add_argument("--negative", type=str, default="", help="what guidance leads away from")
    for side in ("height", "width"):
        parser.add_argument(
            f"--{side}", type=int | None, default=None, help="in pixels (default: the model's)"
        )
    add_model(parser)
    _add_lora(parser)
    add_overwrite(parser)


def grid() -> Parser:
    from .grids.axes import KINDS, MOST_VALUES  # brings NumPy

    known = "\n".join(f"  {name:<9} {kind.told}" for name, kind in KINDS.items())
    parser = _parser(
        "grid",
        "One labelled sheet over the values of up to three options: --x from left to right, --y "
        "from top to bottom, --z one table per value. Beside OUT.png: OUT.html, the same as a "
        "page; OUT.json, every cell with its values, file and seconds; OUT.cells, the pictures. "
        "Cells that are there already are taken from there, so an interrupted grid goes on, and a "
        "changed axis paints only what is new. All other options are the same in all cells.",
        '  jstyle grid --prompt "a star in mosaic style" --out grid.png \\\n'
        "      --x sampler=euler,dpm++2m,unipc --y steps=8,15,25 --z guidance=1,5,9\n"
        "  jstyle grid --x seed=0..5 --y 'prompt=a cat, asleep|a dog, awake' --out seeds.png\n"
        "  jstyle grid --prompt 'a fox' --x weight=0..1:0.25 --y 'lora=a.safetensors|b' \\\n"
        "      --out loras.png --model sd21\n"
        "  jstyle grid --run runs/05 --x at=all --y weight=0.5,1 --prompt 'a cup' --out when.png\n"
        "  jstyle grid --prompt 'a cup' --x size=512,768x512 --out sizes.png --cell-px 256\n\n"
        "axes:\n"
        f"{known}\n\n"
        "values:\n"
        "  apart by commas; texts and files (prompt, negative, lora) by a bar |, and \\| is a bar\n"
        "  numbers also as FIRST..LAST or FIRST..LAST:STEP: seed=0..5, steps=10..50:10\n"
        "  an axis may be given in parts: --y 'prompt=a cat' --y 'prompt=a dog'\n"
        f"  at most {MOST_VALUES} for an axis; an option cannot be an axis and given as well\n"
        "  what a sampler does not admit (sigmas=karras with ddim) stays an empty cell with its "
        "reason\n",
    )
    add_config(parser)
    for name, told in {"x": "columns", "y": "rows", "z": "tables"}.items():
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME=VALUES", help=told
        )
    parser.add_argument("--prompt", action="append", default=[], help="unless it is an axis")
    parser.add_argument("--out", type=str, required=True, help="the sheet, a .png")
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="a run of `jdreambooth train`: its model, and its last saved LoRA unless the axis at "
        "says otherwise",
    )
    parser.add_argument(
        "--cell-px",
        type=int | None,
        default=None,
        help="longer side of the pictures on the sheet (default: as painted)",
    )
    _add_painting(parser, "of the noise")
    return parser


def demo() -> Parser:
    parser = _parser(
        "demo",
        "The shipped content and style pictures through the shipped model, and one labelled grid.",
        "  jstyle demo\n  jstyle demo --out somewhere --preset high-style\n",
    )
    add_config(parser)
    parser.add_argument("--out", type=str, default="jstyle-demo", help="folder for the pictures")
    add_device(parser)
    parser.add_presets(PRESETS, "paper")
    parser.add_fields(StyleConfig)
    add_overwrite(parser)
    return parser


def warmup() -> Parser:
    parser = _parser(
        "warmup",
        "Compile everything that a model and a task need, before it matters: each part of the task "
        "runs once, briefly. Give the options that the real run will have. Later starts, of any "
        "picture size, compile nothing.",
        "  jstyle warmup\n"
        "  jstyle warmup --model sd21 --task stylize --feature-dtype float16\n"
        "  jstyle warmup --model sd21 --task generate --size-px 512\n",
    )
    add_config(parser)
    parser.add_argument(
        "--task", type=str, default="all", help="stylize, generate, or all (the default)"
    )
    add_model(parser)
    parser.add_fields(StyleConfig, skip={"steps", "window", "prompt", "negative", "invert_prompt"})
    return parser


def doctor() -> Parser:
    parser = _parser(
        "doctor",
        "Can the main job run on this machine, what would be slow or fail, and how to mend it. "
        "Exit code 0 when it can run.",
        "  jstyle doctor\n  jstyle doctor --json\n  jstyle doctor --fix-cuda\n",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--fix-cuda",
        action="store_true",
        help="for CUDA 13 or cuDNN 9, which Jittor does not take as they are: make a toolkit of "
        "links to them in the cache, which every later start finds; nothing that is installed is "
        "changed",
    )
    return parser


def parity() -> Parser:
    from .parity.task import STAGES  # brings NumPy, which help for other commands does not need

    parser = _parser(
        "parity",
        "The same weights, noise and inputs through this package and through diffusers on PyTorch "
        "(extra parity), compared from the single module to the finished picture. Leaves "
        "parity.json and parity.html. Exit code 1 when something is beyond its limit. "
        "--record and --against compare machines and versions without a common environment.",
        "  jstyle parity\n"
        "  jstyle parity --model sd21 --steps 20 --image photo.jpg --image painting.jpg\n"
        "  jstyle parity --model FOLDER --only text_encoder,unet --size-px 256\n"
        "  jstyle parity --only unet --inject-fault mid_block.attentions.0.proj_in  (exit code 1)\n"
        "  jstyle parity --record here            then, on another machine or version:\n"
        "  jstyle parity --against here --device cuda --slack 20\n"
        "  jstyle parity --record here --reference torch     (PyTorch's values, for a machine "
        "without it)\n\n"
        "a recording is a folder:\n"
        "  task.json, inputs.safetensors          what is to be computed, and from what\n"
        "  index.json                             who did; per stage a file and its entries, in\n"
        "                                         order: [name, name under which the file has it]\n"
        "  STAGE.safetensors                      float32 values; equal ones are there once\n"
        "  more: python -c 'import jstyle.parity; help(jstyle.parity)'\n",
    )
    add_config(parser)
    add_model(parser)
    _add_parity_task(parser, ",".join(STAGES))
    parser.add_argument(
        "--dtype",
        type=str,
        default="float32",
        help="in which our UNet computes: float32 or float16, with wider limits; the training step "
        "and the reference stay in float32",
    )
    parser.add_argument(
        "--slack", type=float, default=1.0, help="what the limits are multiplied with, at least 1"
    )
    _add_texts(
        parser,
        {
            "--reference": "torch, with which ours is compared unless --against names a recording",
            "--out": "folder for the report (jstyle-parity)",
            "--record": "write one side's values here and stop",
            "--against": "compare with the values recorded here",
            "--inject-fault": "make this module of ours wrong by one per cent, to see it found",
        },
    )
    add_overwrite(parser)
    return parser


def _add_parity_task(parser: Parser, stages: str) -> None:
    """What both sides compute; a recording brings its own."""
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        help="the content; given twice, the style too (default: shipped pictures)",
    )
    for name, text in {
        "--steps": "of inversion and sampling (10)",
        "--seed": "of the noise (0)",
        "--size-px": "of the pictures (the model's own)",
    }.items():
        parser.add_argument(name, type=int | None, default=None, help=text)
    _add_texts(
        parser,
        {
            "--prompt": "(a photograph of a cat)",
            "--rng": f"whose noise: {', '.join(RNGS)} ({NUMPY})",
            "--only": f"some of {stages} (all)",
        },
    )


def score() -> Parser:
    parser = _parser(
        "score",
        "The contest's score of a submission: six metrics and their total, as the organiser's "
        "checker computes them, quirks included. A metric whose weights are missing is reported as "
        "missing, and there is no total then; hist needs none. Other protocols judge by the "
        "DreamBooth paper's measures, or a folder of stylisations by StyleID's.",
        "  jstyle score results contest --hist-only\n"
        "  jstyle score results contest --weights weights --json score.json\n"
        "  jstyle score results contest --metrics hist,dino --styles 00,05\n"
        "  jstyle score results contest --protocol dreambooth\n"
        "  jstyle score stylised --protocol artfid --content photos --style paintings\n"
        "  jstyle score --where               which weights, from where, and where to put them\n",
    )
    add_config(parser)
    folders = {"type": str | None, "nargs": "?", "default": None}
    parser.add_argument("result", help="the submission: RESULT/STYLE/PROMPT.png", **folders)
    parser.add_argument(
        "root", help="the contest: ROOT/STYLE/prompt.json and ROOT/STYLE/images", **folders
    )
    parser.add_argument(
        "--protocol", default="contest", help=f"whose measures: {', '.join((*PROTOCOLS, ARTFID))}"
    )
    parser.add_argument(
        "--metrics",
        type=str | None,
        default=None,
        help="some of contest's " + ",".join(PROTOCOLS["contest"]) + " or of dreambooth's "
        f"{','.join(PROTOCOLS['dreambooth'])} (all of the protocol)",
    )
    parser.add_argument("--hist-only", action="store_true", help="hist alone: at once, no weights")
    parser.add_argument(
        "--corrected", action="store_true", help="without the checker's quirks (hist, clip_iqa)"
    )
    _add_texts(
        parser,
        {
            "--styles": "only these, such as 00,05 (all)",
            "--content": "artfid: the contents that were stylised, a folder",
            "--style": "artfid: the styles, a folder; results are CONTENT_stylized_STYLE.png",
            "--weights": "the folder of the networks' files (JSTYLE_WEIGHTS, or the user's cache)",
            "--words": "clip_r's words, one per line (clip_r_prompts.txt among the weights, else "
            "the contest's 215, which are shipped)",
            "--cache": "folder where features of pictures are kept, or none (the user's cache)",
            "--json": "write the report to this file, with every style's values",
        },
    )
    parser.add_argument("--where", action="store_true", help="tell where weights go and come from")
    add_device(parser)
    add_overwrite(parser)
    return parser
