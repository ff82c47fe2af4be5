"""The options of each command of `jdreambooth`; those of the dataclasses come from their fields."""

from __future__ import annotations

from jstyle.console.parser import Parser, make_parser
from jstyle.console.shared_options import (
    add_config,
    add_device,
    add_dtype,
    add_overwrite,
    add_tokenizer,
)
from jstyle.sd.written import DTYPES, LORA_FORMATS, MODEL_FORMATS

from . import drawings
from .config import TrainConfig
from .make_drawings import CAPTIONS
from .recipe import Recipe
from .verdict import PickConfig


def _parser(command: str, description: str, examples: str) -> Parser:
    return make_parser(f"jdreambooth {command}", description, examples)


def _add_result(parser: Parser) -> None:
    parser.add_argument("--run", type=str, required=True, help="the folder of a run")
    parser.add_argument(
        "--at", type=int | None, default=None, help="the saved step to use (default: the last)"
    )


def _add_dtype(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--dtype", type=str, default=default, help=f"of the numbers: {' or '.join(DTYPES)}"
    )


def train() -> Parser:
    parser = _parser(
        "train",
        "Teach a model a style or a subject from a folder of pictures. The run's folder gets the "
        "resolved configuration, metrics.jsonl, TensorBoard events, loss.png, a result for every "
        "saved count (step-000250, ...), sample pictures, and states to resume from.",
        "  jdreambooth train --instance-dir style_05 --instance-prompt '{stem} in sks style' \\\n"
        "      --out runs/05 --model sd21 --size-px 512 --steps 1000 --save-at 250,500,1000\n"
        "  jdreambooth train --config run.yaml --out runs/06\n"
        "  jdreambooth train --config runs/05/config.json --resume auto\n"
        "  jdreambooth train --instance-dir dog --instance-prompt 'a sks dog' --out runs/dog \\\n"
        "      --prior-weight 1 --class-prompt 'a dog' --num-class-images 50\n"
        "  mpirun -np 4 jdreambooth train --config run.yaml      # batches four times as large\n",
    )
    add_config(parser)
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="folder of the run; everything is written there (default: that of a run's own "
        "config.json given with --config)",
    )
    parser.add_fields(TrainConfig, skip={"out"})
    return parser


def generate() -> Parser:
    parser = _parser(
        "generate",
        "Pictures of a run, one PNG per prompt, named after it. Picture i has the seed SEED + i; "
        "manifest.json lists them all.",
        "  jdreambooth generate --run runs/05 --prompts 'a cup in sks style' --out pictures\n"
        "  jdreambooth generate --run runs/05 --at 500 --prompts style_05/prompt.json \\\n"
        "      --template '{prompt} in sks style' --init average --out result/05\n",
    )
    add_config(parser)
    _add_result(parser)
    _add_prompts(parser, required=True)
    parser.add_argument("--out", type=str, required=True, help="folder for the pictures")
    parser.add_fields(Recipe)
    add_device(parser)
    add_dtype(parser)
    add_overwrite(parser)
    return parser


def _add_prompts(parser: Parser, required: bool = False) -> None:
    parser.add_argument(
        "--prompts",
        type=str,
        nargs="+",
        required=required,
        help="texts, or files: .json (a list, or an object of them) or .txt (one per line)",
    )


def pick() -> Parser:
    parser = _parser(
        "pick",
        "After how many steps to stop: every saved count of a run paints prompts that were not "
        "trained, and is measured on style, content, diversity and copies. Prints the table and "
        "recommends the healthy count that is nearest to the style, or with --by score the one "
        "with the most HIST x recognised. Pictures, a grid and pick.json go to RUN/pick.",
        "  jdreambooth pick runs/05\n"
        "  jdreambooth pick runs/05 --prompts 'a boat' 'a cup' --template '{prompt}, sks style'\n",
    )
    add_config(parser)
    parser.add_argument("run", type=str, help="the folder of a run")
    _add_prompts(parser)
    parser.add_fields(PickConfig)
    add_device(parser)
    add_dtype(parser)
    return parser


def merge() -> Parser:
    parser = _parser(
        "merge",
        "Write the model with a run's LoRA folded in, as a folder in diffusers format or as one "
        "file with the names of CompVis, which many programs read.",
        "  jdreambooth merge --run runs/05 --at 500 --out models/style_05\n"
        "  jdreambooth merge --run runs/05 --format checkpoint --out style_05.safetensors\n",
    )
    _add_result(parser)
    parser.add_argument(
        "--out", type=str, required=True, help="folder for the model, or a .safetensors file"
    )
    parser.add_argument(
        "--format",
        type=str,
        default=MODEL_FORMATS[0],
        help="diffusers (a folder) or checkpoint (one file)",
    )
    parser.add_argument("--weight", type=float, default=1.0, help="scales the LoRA's change")
    _add_dtype(parser, "float16")
    add_device(parser)
    add_overwrite(parser)
    return parser


def export() -> Parser:
    parser = _parser(
        "export",
        "Write a run's LoRA as one file for other programs.",
        "  jdreambooth export --run runs/05 --at 500 --out style_05.safetensors\n",
    )
    _add_result(parser)
    parser.add_argument("--out", type=str, required=True, help="a .safetensors file")
    parser.add_argument(
        "--format", type=str, default="kohya", help=f"one of {', '.join(LORA_FORMATS)}"
    )
    _add_dtype(parser, "float32")
    add_device(parser)
    add_overwrite(parser)
    return parser


def import_() -> Parser:
    parser = _parser(
        "import",
        "Write a LoRA of another program as one .safetensors file, in the format that diffusers "
        "and this program write, or in kohya's. Taken are files of diffusers (also of 2023, and "
        ".bin), of kohya (also with the original UNet's names, and with convolutions), folders of "
        "peft (adapter_config.json gives alpha), and what JDiffusion's DreamBooth example writes. "
        "Says what each part holds, and what was left out. Values stay as they are.",
        "  jdreambooth import style/style_00 --out style_00.safetensors\n"
        "  jdreambooth import adapter_folder --out adapter.safetensors --dtype float16\n"
        "  jdreambooth import downloaded.safetensors --out plain.safetensors\n"
        "  jstyle generate --prompt 'a cup in style_00' --out cup.png --lora style_00.safetensors\n"
        "(--lora takes all of these as they are, too)\n",
    )
    parser.add_argument("source", type=str, help="a file, or a folder that holds one LoRA")
    parser.add_argument("--out", type=str, required=True, help="a .safetensors file")
    parser.add_argument(
        "--format", type=str, default="diffusers", help=f"one of {', '.join(LORA_FORMATS)}"
    )
    _add_dtype(parser, "float32")
    add_overwrite(parser)
    return parser


def identifiers() -> Parser:
    parser = _parser(
        "identifiers",
        "Words that the model's tokenizer reads as one rare token, rarest first: names to bind a "
        "new style or subject to.",
        "  jdreambooth identifiers\n  jdreambooth identifiers --model sd21 --count 5\n",
    )
    parser.add_argument("--model", type=str, default="tiny", help="as for train")
    add_tokenizer(parser)
    parser.add_argument("--count", type=int, default=20, help="how many")
    return parser


def draw() -> Parser:
    parser = _parser(
        "draw",
        "Draw pictures of objects in a style, with captions.",
        "  jdreambooth draw --out stars --object star --style mosaic --count 8\n"
        "  jdreambooth draw --out knits --object house,fish,car --style knitted --count 9\n",
    )
    styles = ", ".join((*drawings.STYLES, *drawings.HELD_OUT_STYLES))
    parser.add_argument(
        "--out", type=str, required=True, help="folder for the pictures and " + CAPTIONS
    )
    parser.add_argument(
        "--object",
        type=str,
        required=True,
        help="one of these, or several with commas between, which take turns: "
        + ", ".join(drawings.OBJECTS),
    )
    parser.add_argument(
        "--style", type=str | None, default=None, help=f"one of {styles}; left out: plain drawings"
    )
    parser.add_argument("--count", type=int, default=8, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first, the others count on")
    parser.add_argument("--size-px", type=int, default=128, help="side of the square pictures")
    add_overwrite(parser)
    return parser
