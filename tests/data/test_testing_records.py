import io

import numpy as np
import seqio
from PIL import Image

from simvlm_jax.data.sources.array_record import ArrayRecords
from simvlm_jax.data.testing_records import (
    DOCUMENT_COUNTS,
    OPENMOJI_COUNTS,
    VOCABULARY_PIECES,
    draw,
    make_data,
)


def test_the_folder_holds_what_it_says(made_data):
    for folder, counts in [("openmoji", OPENMOJI_COUNTS), ("documents", DOCUMENT_COUNTS)]:
        for split, count in counts.items():
            paths = sorted((made_data / folder).glob(f"{split}-*.array_record"))
            assert len(ArrayRecords(paths)) == count
    vocabulary = seqio.SentencePieceVocabulary(str(made_data / "vocabulary.model"), extra_ids=0)
    assert vocabulary.vocab_size == VOCABULARY_PIECES
    assert vocabulary.decode(vocabulary.encode("roter Kreis grün")) == "roter Kreis grün"


def test_it_is_the_same_every_time(made_data, tmp_path):
    again = make_data(tmp_path)
    files = {path.relative_to(made_data) for path in made_data.rglob("*") if path.is_file()}
    assert len(files) == 11
    assert all((again / name).read_bytes() == (made_data / name).read_bytes() for name in files)


def test_a_drawing_shows_its_caption():
    for place, half in [("left", slice(0, 12)), ("right", slice(12, 24))]:
        pixels = np.asarray(Image.open(io.BytesIO(draw("red", "square", place))))
        shown = pixels[..., 3] > 0
        assert shown[:, half].sum() == shown.sum() > 50
        assert (pixels[shown][:, :3] == [255, 0, 0]).all()
