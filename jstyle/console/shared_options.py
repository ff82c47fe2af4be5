"""Options that several commands have."""

from __future__ import annotations

from jsonargparse import Namespace

from ..sd.hub import Source
from .parser import ConfigFile, Parser


def add_config(parser: Parser) -> None:
    parser.add_argument("--config", action=ConfigFile, help="a YAML file with any of these options")


def add_overwrite(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that are no results of this program",
    )


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="cpu, cuda, or auto: cuda where Jittor can use it",
    )


def add_model(parser: Parser) -> None:
    """--model, --variant, --prediction, --tokenizer and --device."""
    parser.add_argument(
        "--model",
        type=str,
        default="tiny",
        help="tiny (shipped), a folder in diffusers format, a .safetensors or .ckpt file of Stable "
        "Diffusion 1.x or 2.x, sd21, or a hub id such as owner/name",
    )
    parser.add_argument(
        "--variant", type=str | None, default=None, help="of the weight files, such as fp16"
    )
    add_single_file(parser)
    add_device(parser)


def add_single_file(parser: Parser) -> None:
    """--prediction and --tokenizer, for a model in one file."""
    add_prediction(parser)
    add_tokenizer(parser)


def add_prediction(parser: Parser) -> None:
    parser.add_argument(
        "--prediction",
        type=str | None,
        default=None,
        help="of a model in one file that does not say: v or epsilon",
    )


def add_tokenizer(parser: Parser) -> None:
    parser.add_argument(
        "--tokenizer",
        type=str | None,
        default=None,
        help="for a model in one file: a folder with vocab.json and merges.txt, or a hub id such "
        "as openai/clip-vit-large-patch14",
    )


def model_source(args: Namespace) -> Source:
    """The model that the options of `add_model` name. Raises HubError."""
    return Source(args.model, args.variant, args.prediction, args.tokenizer)
