"""The options of each command: their names, types, defaults and help, in one parser per command.

Style options come from the fields of StyleConfig, so help and defaults have one home. Every option
may also stand in the YAML file given with --config.
"""

from __future__ import annotations

from dataclasses import fields

from .config import PRESETS, StyleConfig
from .sd.console import Parser, add_config, add_device, add_model, make_parser


def _parser(command: str, description: str, examples: str) -> Parser:
    return make_parser(f"jstyle {command}", description, examples)


def _add_lora(parser: Parser) -> None:
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="a LoRA in diffusers or kohya format, and its weight (1); may be given several times",
    )


def stylize() -> Parser:
    parser = _parser(
        "stylize",
        "Paint content images in the style of style images. Every content meets every style; "
        "each image is inverted once. Results are CONTENT_stylized_STYLE.png with a .json record "
        "beside each. Finished results are skipped, so an interrupted run can be started again.",
        "  jstyle stylize --content photo.jpg --style painting.jpg --out result.png\n"
        "  jstyle stylize --content photos --style paintings --out results\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --preset high-style\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --gamma 0.5 \\\n"
        "      --sites decoder:9-11 --window 0:200\n"
        "  jstyle stylize --content photo.jpg --style painting.jpg --out out --model sd21\n"
        "  jstyle stylize --config run.yaml       (run.yaml: content: photos, steps: 30, ...)\n",
    )
    add_config(parser)
    parser.add_argument("--content", type=str, required=True, help="an image or a folder of them")
    parser.add_argument("--style", type=str, required=True, help="an image or a folder of them")
    parser.add_argument(
        "--out", type=str, required=True, help="a folder, or a .png for one content and one style"
    )
    add_model(parser)
    _add_lora(parser)
    parser.add_presets(PRESETS, "paper")
    parser.add_fields(StyleConfig)
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
    return parser


def generate() -> Parser:
    parser = _parser(
        "generate",
        "Pictures from prompts. Picture i has the seed SEED + i.",
        '  jstyle generate --prompt "a star in mosaic style" --out star.png\n'
        '  jstyle generate --prompt "a star" --prompt "a tree" --out pictures --seed 7\n'
        '  jstyle generate --prompt "a castle at dusk" --out castle.png --model sd21 \\\n'
        "      --height 768 --width 512 --steps 30 --guidance 7.5\n"
        '  jstyle generate --prompt "a fox in style_05" --out fox.png --lora fox.safetensors:0.8\n',
    )
    add_config(parser)
    parser.add_argument(
        "--prompt", action="append", required=True, help="may be given several times"
    )
    parser.add_argument("--out", type=str, required=True, help="a folder, or a .png for one prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture's noise")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps")
    parser.add_argument(
        "--guidance", type=float, default=7.5, help="1 is without guidance, and twice as fast"
    )
    parser.add_argument("--negative", type=str, default="", help="what guidance leads away from")
    for side in ("height", "width"):
        parser.add_argument(
            f"--{side}", type=int | None, default=None, help="in pixels (default: the model's)"
        )
    add_model(parser)
    _add_lora(parser)
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
    return parser


def doctor() -> Parser:
    parser = _parser(
        "doctor",
        "Can the main job run on this machine, what would be slow or fail, and how to mend it. "
        "Exit code 0 when it can run.",
        "  jstyle doctor\n  jstyle doctor --json\n",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser
