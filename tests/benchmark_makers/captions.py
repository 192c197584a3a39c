"""Files of COCO (Karpathy's split), NoCaps, Multi30k and own captions."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmark_makers.files import COLOURS, SHAPES, drawing, write, write_json, write_json_lines

ODD = "Ein  Café\u2028☃ 😀 \u200b"
GERMAN = {"red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb"}
FRENCH = {"red": "rouge", "green": "vert", "blue": "bleu", "yellow": "jaune"}


def write_coco(folder: Path, images: Iterable[tuple[int, str, str, Sequence[str], bytes]]) -> None:
    """Writes dataset_coco.json and photos: (COCO's id, part, split, captions, content)."""
    rows, sentence = [], 0
    for place, (number, part, split, captions, content) in enumerate(images):
        name = f"COCO_{part}_{number:012d}.jpg"
        sentences = []
        for text in captions:
            tokens = text.lower().split()
            sentences.append({"tokens": tokens, "raw": text, "imgid": place, "sentid": sentence})
            sentence += 1
        rows.append(
            {
                "filepath": part,
                "sentids": [s["sentid"] for s in sentences],
                "filename": name,
                "imgid": place,
                "split": split,
                "sentences": sentences,
                "cocoid": number,
            }
        )
        if content:
            write(folder / part / name, content)
    write_json(folder / "dataset_coco.json", {"images": rows, "dataset": "coco"})


def write_nocaps(
    folder: Path, split: str, images: Iterable[tuple[int, str, Sequence[str], bytes]]
) -> None:
    """Writes a split's JSON and photos: (id, domain, captions, content)."""
    rows, annotations = [], []
    for number, domain, captions, content in images:
        name = f"{number:016x}.jpg"
        row = {"id": number, "open_images_id": name[:-4], "file_name": name, "license": 0}
        row |= {"width": 32, "height": 32, "coco_url": "", "date_captured": "2018-11-06 11:04:33"}
        rows.append(row | ({"domain": domain} if split == "val" else {}))
        for text in captions:
            annotations.append({"image_id": number, "id": len(annotations), "caption": text})
        write(folder / split / name, content)
    name = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}[split]
    head = {"licenses": [], "info": {"description": "nocaps", "version": "0.1"}, "images": rows}
    write_json(folder / name, head | ({"annotations": annotations} if split == "val" else {}))


def write_multi30k(
    folder: Path, split: str, images: Sequence[str], texts: Mapping[str, Sequence[str]],
    packed: bool = True,
) -> None:  # fmt: skip
    """Writes the names of images and the sentences of each language, a line each."""
    task1 = folder / "data" / "task1"
    write(task1 / "image_splits" / f"{split}.txt", "".join(f"{name}\n" for name in images))
    for language, lines in texts.items():
        content = "".join(f"{line}\n" for line in lines).encode()
        path = task1 / "raw" / f"{split}.{language}"
        if packed:
            write(path.with_name(path.name + ".gz"), gzip.compress(content, mtime=0))
        else:
            write(path, content)


def make_coco(folder: Path) -> None:
    """Ten images: several references, odd letters, one file missing."""
    images = []
    splits = ("train", "restval", "val", "test", "test")
    for number, (colour, shape) in enumerate([(c, s) for c in COLOURS for s in SHAPES]):
        part = ("train2014", "val2014")[number % 2]
        captions = [f"A {colour} {shape}.", f" {shape} in {colour}\n", f"a {shape}", ODD]
        content = drawing(colour, shape) if number != 3 else b""
        images.append((100 + number, part, splits[number % 5], captions[: 2 + number % 3], content))
    write_coco(folder / "coco_captions", images)


def make_nocaps(folder: Path) -> None:
    """Four images of val in all domains, three of test without captions."""
    domains = ("in-domain", "near-domain", "out-domain", "in-domain")
    captions = [f"a drawing of {ODD}", "a circle", "a red circle"]
    rows = [
        (number, domain, captions[: 1 + number % 3], drawing(COLOURS[number], "circle"))
        for number, domain in enumerate(domains)
    ]
    write_nocaps(folder / "nocaps", "val", rows)
    rows = [(number, "", (), drawing(COLOURS[number], "square")) for number in range(3)]
    write_nocaps(folder / "nocaps", "test", rows)


def make_multi30k(folder: Path) -> None:
    """Every split; a blank sentence and one with odd letters; COCO's images in the last."""
    folder = folder / "multi30k"
    for split in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        place = "test_2017_flickr" if split == "test_2017_flickr" else "flickr30k_images"
        names = [f"{1000 + i}.jpg" for i in range(len(COLOURS))]
        for name, colour in zip(names, COLOURS, strict=True):
            write(folder / place / name, drawing(colour, "circle"))
        texts = {
            "en": [f"A {colour} circle." for colour in COLOURS],
            "de": [f"Ein {GERMAN[colour]}er Kreis." for colour in COLOURS[:2]] + ["", ODD],
            "fr": [f"Un cercle {FRENCH[colour]}." for colour in COLOURS],
        }
        write_multi30k(folder, split, names, texts, packed=split != "val")
    names = []
    for number, (colour, part) in enumerate(
        zip(COLOURS, ["train2014", "val2014"] * 2, strict=True)
    ):
        name = f"COCO_{part}_{number:012d}.jpg"
        if number != 3:
            write(folder / part / name, drawing(colour, "square"))
        names.append(f"{name}#{367178 + number}")
    texts = {
        "en": [f"a {colour} square" for colour in COLOURS],
        "de": [f"ein {GERMAN[colour]}es Quadrat" for colour in COLOURS],
        "fr": [f"un carré {FRENCH[colour]}" for colour in COLOURS],
    }
    write_multi30k(folder, "test_2017_mscoco", names, texts)


def make_own(folder: Path) -> None:
    """own_captions and own_vqa: one text or several, a bad line, a missing image."""
    for split in ("train", "validation", "test"):
        captions, questions = [], []
        for number, (colour, shape) in enumerate([(c, s) for c in COLOURS for s in SHAPES]):
            name = f"images/{split}-{number}.png"
            for task in ("own_captions", "own_vqa"):
                if number != 5:
                    write(folder / task / name, drawing(colour, shape, "PNG"))
            several = [f"a {colour} {shape}", f"{shape}, {colour}"]
            captions.append({"image": name, "caption": several if number % 2 else several[0]})
            answer = {"answers": [colour, colour, "dark"]} if number % 2 else {"answer": colour}
            questions.append({"image": name, "question": "what colour?", **answer})
        write_json_lines(folder / "own_captions" / f"{split}.jsonl", captions)
        write_json_lines(folder / "own_vqa" / f"{split}.jsonl", questions)
    with open(folder / "own_captions" / "train.jsonl", "a") as file:
        file.write('{"image": 3}\nno JSON\n')
    write(folder / "own_vqa" / "answers.txt", "".join(f"{colour}\n" for colour in COLOURS))
