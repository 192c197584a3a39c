"""Multi30k: files of lines that lie beside one another."""

import itertools
from collections.abc import Iterator, Sequence

from simvlm_jax.data.benchmarks.json_files import text_lines
from simvlm_jax.data.sources.official import FAULT, Row
from simvlm_jax.errors import UserError

COCO = {"COCO_train2014": "train2014", "COCO_val2014": "val2014"}  # how names of images begin


def translation_rows(paths: Sequence[str], folder: str, languages: Sequence[str]) -> Iterator[Row]:
    """Yields image and sentences, line by line.

    Args:
      paths: of the list of images and, for each language, its sentences.
      folder: of the images, those of COCO excepted, which lie in train2014 and val2014.
      languages: of the other files, in order, for example ["en", "de"].

    Yields:
      image, image_id (its name), and the sentence of each language by its name.

    Raises:
      UserError: the files have not as many lines.
    """
    columns = [text_lines(path, keep_blank=True) for path in paths]
    for number, lines in enumerate(itertools.zip_longest(*columns), 1):
        if None in lines:
            raise UserError(
                f"{', '.join(paths)} lie line by line beside one another, and line {number} is not "
                "in each of them; bring the official files of one release."
            )
        if bad := next((line for line in lines if isinstance(line, dict)), None):
            yield {FAULT: bad[FAULT]}
            continue
        name = lines[0].partition("#")[0].strip()  # COCO's have the caption's number behind it
        place = COCO.get(name.rpartition("_")[0], folder)
        yield {
            "image": f"{place}/{name}",
            "image_id": name,
            **{language: line.strip() for language, line in zip(languages, lines[1:], strict=True)},
        }
