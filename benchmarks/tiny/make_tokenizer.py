"""Write the tokenizer of the shipped small model: CLIP's byte-level BPE over words of our own.

    python benchmarks/tiny/make_tokenizer.py [FOLDER]

Every word below becomes one token; everything else is spelled in pieces, at worst in bytes, so any
prompt has ids. Files and settings are those of Stable Diffusion 2.1 (77 tokens, padded with "!",
id 0). The output depends on this file and on nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "jstyle" / "models" / "tiny" / "tokenizer"
START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"
MAX_TOKENS = 77
WORD_END = "</w>"

CAPTIONS = """
a an the of in on at with and by for from to as is it its this that over under near beside behind
between one two three four five six seven eight nine ten photo photograph picture image painting
drawing sketch print poster portrait landscape scene view style background texture pattern shape
art artwork close up rendering small big large tiny huge tall short long round square flat thin
thick old new young bright dark light soft hard smooth rough shiny plain simple single many few
beautiful cute colorful black white red orange yellow green blue purple pink brown grey gray gold
golden silver turquoise violet beige crimson teal navy striped dotted left right top bottom front
"""
STYLES = """
mosaic watercolor oil ink pencil charcoal crayon chalk pastel pen marker brush acrylic gouache
fresco engraving etching woodcut linocut stencil collage origami paper cardboard felt wool knitted
embroidery quilt stitched fabric cloth leather wood wooden metal steel iron bronze copper brass
glass stained crystal ceramic porcelain clay stone marble brick concrete sand ice plastic rubber
neon pixel voxel cartoon comic anime manga cubism cubist impressionist expressionist pointillism
surreal abstract minimalist geometric pop vintage retro gothic baroque modern classic line hatching
halftone dots stripes checkered blueprint silhouette outline gradient glowing low poly lego pointed
isometric graffiti tattoo sticker icon logo stamp batik tile tapestry lacquer enamel wax sepia
"""
ANIMALS = """
animal cat kitten dog puppy horse cow pig sheep goat donkey rabbit hamster mouse rat squirrel
hedgehog fox wolf bear panda koala lion tiger leopard cheetah elephant rhino hippo giraffe zebra
camel deer moose monkey gorilla kangaroo bat beaver otter seal whale dolphin shark fish goldfish
octopus squid crab lobster shrimp snail starfish jellyfish turtle tortoise frog lizard snake
crocodile dinosaur dragon unicorn bird chicken hen rooster duck goose swan turkey eagle hawk owl
parrot penguin pigeon crow peacock flamingo ostrich ant bee butterfly ladybug beetle spider worm
"""
NATURE = """
tree leaf flower rose tulip daisy sunflower lily cactus grass bush plant seed pine palm forest
jungle mushroom branch root mountain hill volcano valley river lake sea ocean beach island desert
waterfall field garden meadow cave rock cliff sky cloud sun moon star planet earth comet rainbow
rain snow storm lightning wind fire flame smoke water wave snowflake sunset sunrise night day
"""
FOOD = """
food fruit apple banana pear peach plum cherry grape lemon lime strawberry raspberry blueberry
watermelon melon pineapple mango kiwi coconut avocado tomato potato carrot onion garlic pepper corn
pumpkin cucumber cabbage broccoli pea bean nut bread cheese egg meat sausage pizza hamburger burger
sandwich taco noodle pasta rice soup salad cake cupcake pie cookie donut chocolate candy lollipop
honey jam butter milk juice tea coffee wine beer
"""
THINGS = """
cup mug bottle bowl plate jar jug pitcher teapot kettle pot pan spoon fork knife basket box
bag backpack suitcase purse wallet key lock clock watch lamp lantern candle bulb torch mirror vase
chair table desk bench sofa couch bed pillow blanket carpet curtain door window shelf drawer ladder
bucket broom hammer saw axe wrench screwdriver nail drill scissors needle thread button rope chain
anchor wheel gear spring magnet compass telescope microscope camera phone telephone computer laptop
keyboard screen television radio robot speaker headphones guitar violin piano drum trumpet flute
harp bell book newspaper letter envelope eraser ruler globe map flag balloon kite ball
football basketball tennis racket dice chess puzzle doll teddy toy trophy medal crown ring necklace
diamond gem heart hat cap helmet shirt dress skirt trousers jeans jacket coat sweater scarf glove
sock shoe boot sandal slipper belt tie glasses sunglasses umbrella mask tent hammock skateboard
skis sled sword shield bow arrow cannon bomb rocket satellite coin money gift present
"""
PLACES = """
house home building tower castle palace church temple mosque pyramid bridge road street city town
village farm barn windmill lighthouse school hospital shop market museum station airport harbor
factory fence gate wall roof chimney stairs fountain statue park playground room kitchen bedroom
car truck bus van taxi ambulance train tram bicycle bike motorcycle scooter tractor boat ship
sailboat canoe submarine plane airplane helicopter spaceship wagon cart
"""
PEOPLE = """
person man woman boy girl child baby king queen knight pirate clown astronaut soldier farmer cook
doctor dancer singer player face head eye ear nose mouth hair beard hand finger arm leg foot tooth
skull skeleton ghost witch wizard angel monster alien snowman smiling sleeping running flying
sitting standing walking jumping
"""
SHAPES = """
circle triangle rectangle oval hexagon pentagon octagon cross spiral cube sphere cone cylinder knot
zigzag crescent polygon ellipse rhombus
"""
# Words without a meaning, to be given one by fine-tuning.
RARE = """
sks zwx ohwx xyz qlv vbn wdk krb zhm fjq xjt pqz mvk hdx tzr bqw jvx ukz gxh yrq wvz nqk cxf lzj
dkw rvh qmt fzb zpk jhq
"""
WORDS = " ".join(
    [CAPTIONS, STYLES, ANIMALS, NATURE, FOOD, THINGS, PLACES, PEOPLE, SHAPES, RARE]
).split()


def byte_symbols() -> list[str]:
    """One printable character per byte, printable bytes first, as in GPT-2 and CLIP."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


def base_symbols() -> list[str]:
    symbols = byte_symbols()
    return [*symbols, *(symbol + WORD_END for symbol in symbols)]


def train_merges(words: list[str]) -> list[str]:
    """Merges ("l eft" lines) after which every word is a single token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,  # never reached: training ends when nothing is left to merge
        min_frequency=1,
        end_of_word_suffix=WORD_END,
        # Numbered here: left to the trainer, word endings get their ids, by which it breaks ties,
        # in an order that changes from run to run.
        special_tokens=base_symbols(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(words)), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def make_vocab(merges: list[str]) -> dict[str, int]:
    """CLIP's order: bytes, bytes that end a word, merges, start, end."""
    pieces = [*base_symbols(), *(merge.replace(" ", "") for merge in merges)]
    tokens = [*dict.fromkeys(pieces), START, END]  # two merges may spell the same piece
    return {token: i for i, token in enumerate(tokens)}


def make_settings() -> tuple[dict, dict]:
    """(tokenizer_config.json, special_tokens_map.json)."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    names = {"bos_token": START, "eos_token": END, "unk_token": END}
    special = {name: {"content": text, **flags} for name, text in names.items()}
    special["pad_token"] = PAD
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "pad_token": PAD,
        **{
            name: {"__type": "AddedToken", "content": text, **flags} for name, text in names.items()
        },
    }
    return config, special


def write(folder: Path) -> int:
    """Write the four files and return the size of the vocabulary."""
    merges = train_merges(WORDS)
    vocab = make_vocab(merges)
    config, special = make_settings()
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vocab.json": json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n",
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2, sort_keys=True) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2, sort_keys=True) + "\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(vocab)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    print(f"{target}: {write(target)} tokens")
