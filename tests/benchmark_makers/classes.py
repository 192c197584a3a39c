"""Files of SNLI-VE, SNLI, MNLI, NLVR2, GLUE and ImageNet."""

from collections.abc import Iterable
from pathlib import Path

from benchmark_makers.captions import ODD
from benchmark_makers.files import COLOURS, SHAPES, drawing, write, write_json_lines

LABELS = ("entailment", "neutral", "contradiction")
MNLI_HEADER = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse "
    "sentence2_parse sentence1 sentence2"
).split()  # fmt: skip


def entailment_row(number: int, image: str, premise: str, hypothesis: str, label: str) -> dict:
    """A line as SNLI and SNLI-VE have it; the latter names its image."""
    return {
        "annotator_labels": [label] * 3,
        "captionID": f"{image}.jpg#{number % 5}",
        "gold_label": label,
        "pairID": f"{image}.jpg#{number % 5}r1{label[0]}",
        "sentence1": premise,
        "sentence1_binary_parse": f"( {premise} )",
        "sentence2": hypothesis,
        "sentence2_binary_parse": f"( {hypothesis} )",
        "Flikr30kID": f"{image}.jpg",
    }


def nlvr2_row(identifier: str, sentence: str, label: bool, directory: int | None = None) -> dict:
    row = {
        "validation": {"77": str(label)},
        "sentence": sentence,
        "left_url": "http://example.org/left.jpg",
        "writer": "103",
        "label": str(label),
        "right_url": "http://example.org/right.jpg",
        "synset": "shape",
        "query": "some shapes2",
        "identifier": identifier,
    }
    return row | ({} if directory is None else {"directory": directory})


def nlvr2_images(folder: Path, identifier: str, directory: int | None) -> tuple[Path, Path]:
    """Where the left and the right image of an example lie."""
    split, name = identifier.split("-")[0], identifier.rpartition("-")[0]
    place = folder / "images" / "train" / str(directory) if split == "train" else folder / split
    return place / f"{name}-img0.png", place / f"{name}-img1.png"


def make_snli_ve(folder: Path) -> None:
    """A premise for each drawing with three hypotheses; one image is missing."""
    folder = folder / "snli_ve"
    for split in ("train", "dev", "test"):
        rows = []
        for number, colour in enumerate(COLOURS):
            image = str(4705552913 + number)
            if number != 2:
                write(folder / "flickr30k_images" / f"{image}.jpg", drawing(colour, "circle"))
            texts = (f"It is {colour}.", f"It is Anna's. {ODD}", "It is purple.")
            for label, text in zip(LABELS, texts, strict=True):
                rows.append(entailment_row(number, image, f"A {colour} circle.", text, label))
        write_json_lines(folder / f"snli_ve_{split}.jsonl", rows)


def make_nli(folder: Path) -> None:
    """SNLI and MNLI: all labels, and a pair on which nobody agreed."""
    rows = [
        entailment_row(n, f"{n}", f"A man {n} ☃.", f"Somebody. {n}", label)
        for n, label in enumerate([*LABELS, "-", "neutral"])
    ]
    for row in rows:
        del row["Flikr30kID"]
    for split in ("train", "dev", "test"):
        write_json_lines(folder / "snli" / f"snli_1.0_{split}.jsonl", rows)
    for split in ("train", "dev_matched", "dev_mismatched"):
        genre = [{**row, "genre": "fiction", "promptID": "1"} for row in rows[:3]]
        write_json_lines(folder / "mnli" / f"multinli_1.0_{split}.jsonl", genre)


def make_nlvr2(folder: Path) -> None:
    """Two sentences for each of three pairs of images; in train one image is missing."""
    folder = folder / "nlvr2"
    for split in ("train", "dev", "test1", "test2"):
        rows = []
        for pair in range(3):
            directory = pair if split == "train" else None
            left, right = COLOURS[pair], COLOURS[(pair + 1) % 3]
            for sentence, (text, label) in enumerate(
                [
                    ("The left one is red.", left == "red"),
                    ("One is green. ☃", "green" in (left, right)),
                ]
            ):
                identifier = f"{split}-189-{pair}-{sentence}"
                rows.append(nlvr2_row(identifier, text, label, directory))
            for place, (path, colour) in enumerate(
                zip(nlvr2_images(folder, identifier, directory), (left, right), strict=True)
            ):
                if (split, pair, place) != ("train", 2, 1):
                    write(path, drawing(colour, "circle"))
        write_json_lines(folder / f"{split}.json", rows)


def make_glue(folder: Path) -> None:
    """All eight tasks with their quirks: quotes, a BOM, missing headers, rows cut short."""
    glue = folder / "glue"
    pairs = [('He said "no.', "It's 5\" long"), (ODD.replace("\u2028", " "), "b"), ("c", "d e")]
    for task, label, header, names in [
        ("RTE", ("entailment", "not_entailment"), "index sentence1 sentence2", ()),
        ("QNLI", ("not_entailment", "entailment"), "index question sentence", ()),
        ("WNLI", ("0", "1"), "index sentence1 sentence2", ()),
        ("MNLI", ("neutral", "contradiction"), None, ("_matched", "_mismatched")),
    ]:
        columns = header.split() if header else MNLI_HEADER
        between = [""] * (len(columns) - 3)
        rows = [[str(i), *between, *pair] for i, pair in enumerate(pairs)]
        last = ["label"] if header else ["label1", "gold_label"]
        labelled = [[*row, *[label[i % 2]] * len(last)] for i, row in enumerate(rows)]
        for split in ("train", *(f"dev{name}" for name in names or [""])):
            _table(glue / task / f"{split}.tsv", [[*columns, *last], *labelled])
        for name in names or [""]:
            _table(glue / task / f"test{name}.tsv", [columns, *rows])
    _make_single(glue)
    quality = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    mrpc = [[str(i % 2), "7", "8", *pair] for i, pair in enumerate(pairs)]
    qqp = [[str(i), "1", "2", *pair, str(i % 2)] for i, pair in enumerate(pairs)]
    columns = "id qid1 qid2 question1 question2 is_duplicate".split()
    for split in ("train", "dev"):
        _table(glue / "MRPC" / f"{split}.tsv", [quality, *mrpc], bom=True)
        cut = [["402", "9", "9", "half a row"]] if split == "train" else []
        _table(glue / "QQP" / f"{split}.tsv", [columns, *qqp, *cut])
    rows = [[str(i), *row[1:]] for i, row in enumerate(mrpc)]
    _table(glue / "MRPC" / "test.tsv", [["index", *quality[1:]], *rows], bom=True)
    _table(glue / "QQP" / "test.tsv", [["id", *columns[3:5]], *[[r[0], *r[3:5]] for r in qqp]])


def _make_single(glue: Path) -> None:
    sentences = ['They drank "the pub dry.', "Them drank ☃ .", "Who did?"]
    for split in ("train", "dev"):
        rows = [["gj04", str(i % 2), "*" * (i % 2), text] for i, text in enumerate(sentences)]
        _table(glue / "CoLA" / f"{split}.tsv", rows)
        rows = [[text, str(i % 2)] for i, text in enumerate(sentences)]
        _table(glue / "SST-2" / f"{split}.tsv", [["sentence", "label"], *rows])
    rows = [[str(i), text] for i, text in enumerate(sentences)]
    for task in ("CoLA", "SST-2"):
        _table(glue / task / "test.tsv", [["index", "sentence"], *rows])


def _table(path: Path, rows: Iterable[Iterable[str]], bom: bool = False) -> None:
    text = "".join("\t".join(row) + "\n" for row in rows)
    write(path, ("\ufeff" if bom else "") + text)


def make_imagenet(folder: Path) -> None:
    """A class for each shape; WordNet's ids as names."""
    for label, shape in enumerate(SHAPES):
        for number, colour in enumerate(COLOURS):
            split, name = ("train", "val")[number == 3], f"n0144076{label}"
            path = folder / "imagenet" / split / name / f"{name}_{number}.JPEG"
            write(path, drawing(colour, shape))
