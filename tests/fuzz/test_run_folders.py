"""Run folders from strangers: what `caption`, `evaluate`, `train` and `export` read of one."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax.traverse_util import flatten_dict
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.hostile import FEW, MIB, SOME, at_most, bytes_like, changed_json
from simvlm_jax.captioner import Captioner
from simvlm_jax.data.pieces import LARGEST as LARGEST_VOCABULARY
from simvlm_jax.data.pieces import open_pieces
from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import runner
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.testing import tiny_model
from simvlm_jax.training import digests, folder, reading, sizes
from simvlm_jax.training.progress import progress
from trained_folder import CONFIG, PROMPT, STEP, make_model_dir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


VALUES = tiny_model(CONFIG, prompt=PROMPT).to_json()


@SOME
@given(changed_json(VALUES))
@example(VALUES | {"network": VALUES["network"] | {"encoder_layers": 10**9, "scan_layers": False}})
@example(VALUES | {"network": VALUES["network"] | {"conv_layers": [10**9]}})
@example(VALUES | {"network": VALUES["network"] | {"width": 10**30}})
@example(VALUES | {"network": VALUES["network"] | {"image_size": [1 << 40, 16]}})
@example(VALUES | {"network": VALUES["network"] | {"dtype": [], "dropout_rate": "0"}})
@example(VALUES | {"decoding": {"beams": 10**9}})
@example(VALUES | {"decoding": {"beams": float("nan"), "top_p": []}})
@example({"network": {}, "decoding": [], "prompt": None})
def test_a_model_s_configuration(values):
    with at_most(100):
        try:
            if not isinstance(values, dict):
                values = folder.parse_object(json.dumps(values), "model_config.json")
            model = PrefixLMModel.from_json(values)
        except UserError:
            return
    assert isinstance(model.config, SimVLMConfig) and isinstance(model.prompt, str)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("network", "width", 1 << 30),
        ("network", "decoder_layers", 10**9),
        ("network", "encoder_layers", 10**9),
        ("network", "conv_layers", [10**9]),
        ("network", "image_size", [1 << 40, 16]),
        ("network", "text_length", 1 << 40),
        ("decoding", "beams", 10**9),
        ("decoding", "temperature", float("nan")),
    ],
)
def test_monstrous_values_are_refused_by_name(part, name, value):
    with pytest.raises(UserError, match=name):
        PrefixLMModel.from_json(VALUES | {part: VALUES[part] | {name: value}})


@FEW
@given(bytes_like(json.dumps(VALUES).encode()))
@example(b"[" * 200_000)
@example(b"\xff\xfe")
@example(b"[]")
def test_the_file_of_a_configuration(tmp_path_factory, content):
    place = tmp_path_factory.mktemp("config")
    (place / "model_config.json").write_bytes(content)
    try:
        assert isinstance(folder.read_config(place), dict)
    except UserError as error:
        assert "model_config.json" in str(error)


@pytest.mark.parametrize("name", folder.FIXED_FILES)
def test_files_of_gigabytes_are_refused_by_their_size(copy, name):
    with (copy / name).open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with at_most(16), pytest.raises(UserError, match=f"{name} has 1099511627776 bytes, and"):
        Captioner.load(copy)
    assert folder.LARGEST[name] <= LARGEST_VOCABULARY


@SOME
@given(st.data())
def test_a_vocabulary(run, data):
    content = data.draw(bytes_like((run / "vocabulary.model").read_bytes()[:4000]))
    with at_most(100):
        try:
            vocabulary = open_pieces(content, "vocabulary.model")
        except UserError as error:
            assert "vocabulary.model is not a SentencePiece model" in str(error)
            return
        pieces = vocabulary.GetPieceSize()
        vocabulary.EncodeAsIds("a picture of a red \u00fc\0 circle")
        vocabulary.DecodeIds(list(range(1, min(pieces, 99))))


def test_pieces_that_are_no_text_are_refused_at_opening(copy):
    """Else a caption fails at the first such piece that the model says."""
    path = copy / "vocabulary.model"
    content = path.read_bytes()
    place = content.index("\u2581".encode())
    path.write_bytes(content[:place] + b"\xff\xfe\xfd" + content[place + 3 :])
    with pytest.raises(UserError, match="vocabulary.model is not a SentencePiece model"):
        Captioner.load(copy)


def store_of(run):
    item = run / "checkpoints" / str(STEP) / "params"
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{item}/"}).result()


def rewrite(run, name, **changes):
    """Lets a checkpoint's zarr metadata say something else of an array."""
    store = store_of(run)
    key = f"{name}/.zarray"
    values = json.loads(store.read(key).result().value) | changes
    store.write(key, json.dumps(values).encode()).result()


def test_arrays_that_do_not_fit_into_memory_are_refused_by_what_is_declared(copy):
    """A terabyte of a kilobyte: reading it would end the process without a word of ours."""
    rewrite(copy, "token_embedding", shape=[1 << 40, 4])
    with at_most(32), pytest.raises(UserError) as caught:
        reading.restore_params(copy)
    words = str(caught.value)
    assert (
        f"checkpoints/{STEP} declares arrays of " in words
        and "bytes of memory are available" in words
    )
    declared, there = (int(number) for number in words.split() if number.isdecimal())
    assert (1 << 44) < declared < (1 << 44) + MIB and there == pytest.approx(
        sizes.available_memory(), rel=0.5
    )


def test_arrays_whose_chunks_are_not_there_are_damage(copy):
    rewrite(copy, "token_embedding", shape=[1 << 20, 16])
    with at_most(200), pytest.raises(reading.DamagedError):
        reading.restore_params(copy)


def test_a_chunk_that_unpacks_to_gigabytes_is_damage(copy):
    import zstandard

    packed = zstandard.ZstdCompressor().compressobj(size=2 << 30)
    bomb = b"".join(packed.compress(bytes(64 * MIB)) for _ in range(32)) + packed.flush()
    store_of(copy).write("token_embedding/0.0", bomb).result()
    with at_most(500), pytest.raises(reading.DamagedError):
        reading.restore_params(copy)


def test_declared_bytes_are_exact_however_large():
    leaves = [jax.ShapeDtypeStruct((1 << 40, 1 << 40), jnp.bfloat16), ocp.PLACEHOLDER, 3, None]
    assert sizes.declared_bytes(leaves) == 1 << 81
    assert sizes.declared_bytes([np.zeros((3, 5), np.int8), np.float32(1)]) == 19


def test_memory_is_that_of_the_machine_or_of_its_container(tmp_path, monkeypatch):
    whole = sizes.available_memory()
    assert 64 * MIB < whole < 1 << 50
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(sizes, "_CONTROL_GROUPS", (str(tmp_path / "absent"), str(limit)))
    for text, wanted in (("1048576\n", MIB), ("max\n", None)):
        limit.write_text(text)
        found = sizes.available_memory()
        assert found == wanted or (wanted is None and found == pytest.approx(whole, rel=0.5))


@pytest.mark.parametrize(
    "name", ["manifest/metadata", "params/_METADATA", "params/manifest.ocdbt", "params/_sharding"]
)
def test_metadata_of_gigabytes_are_refused_by_their_size(copy, name):
    path = copy / "checkpoints" / str(STEP) / name
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with at_most(16), pytest.raises(UserError, match=f"{path.name} has 1099511627776 bytes"):
        reading.restore_params(copy)


MANIFEST = {
    name: {"a/b": {"shape": [2], "dtype": "float32", "digest": 3}}
    for name in ("params", "optimizer")
}


@SOME
@given(changed_json(MANIFEST))
@example({})
@example({"params": {}, "optimizer": {"a": []}})
@example([])
def test_a_manifest(content):
    try:
        manifest = digests.unseal(content, ("params", "optimizer"))
    except ValueError:
        return
    digests.first_difference(manifest["params"], digests.layout({"a": np.zeros(3)}))


@FEW
@given(st.data())
def test_a_checkpoint_s_manifest(run, tmp_path_factory, data):
    """Whatever it says: the right parameters, or damage that is named."""
    place = shutil.copytree(run, tmp_path_factory.mktemp("manifest") / "run")
    path = place / "checkpoints" / str(STEP) / "manifest" / "metadata"
    path.write_bytes(data.draw(bytes_like(path.read_bytes())))
    try:
        found = reading.restore_params(place)
    except UserError as error:
        assert f"checkpoints/{STEP}" in str(error)
    else:
        assert flatten_dict(found).keys() == flatten_dict(reading.restore_params(run)).keys()
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["\u00b2", "\u0663", "-7", "7.orbax-checkpoint-tmp", "x"])
def test_folders_that_are_no_steps(copy, name):
    (copy / "checkpoints" / name).mkdir(exist_ok=True)
    assert reading.saved_steps(copy / "checkpoints") == [STEP]


POINTS = b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo'
NOTED = b'{"steps": 3, "total_steps": 9, "seconds": 2.5}'


@SOME
@given(bytes_like(POINTS), bytes_like(NOTED))
@example(b'{"step": 1}\n' + b"[" * 100_000 + b"\n" + bytes(900) + b"\n7\n", b'{"seconds": NaN}')
@example(b"", b'{"seconds": "2"}')
@example(b'{"step": [1]}\n', b"[" * 100_000)
def test_what_a_run_noted(tmp_path_factory, losses, noted):
    """A crash may leave anything in these two: they are no reason not to go on, but are told."""
    place = tmp_path_factory.mktemp("noted")
    (place / "losses.jsonl").write_bytes(losses)
    (place / "training.json").write_bytes(noted)
    with progress(place, 2, 9, 1.0, tensorboard=False) as told:
        assert 0 <= told._former_seconds < float("inf")
    kept = (place / "losses.jsonl").read_bytes().splitlines()
    assert all(json.loads(line)["step"] <= 2 for line in kept)
    if losses == POINTS:
        assert [json.loads(line)["step"] for line in kept] == [1, 2]


@FEW
@given(bytes_like(POINTS + b"\n"), bytes_like(NOTED), bytes_like(b"a\t2.5\nb\t3\n"))
@example(POINTS, NOTED, b"a\n")
@example(POINTS, b"[]", b"a\t\xff\n")
def test_what_a_report_reads(tmp_path_factory, losses, noted, stages):
    place = tmp_path_factory.mktemp("report")
    for name, content in (
        ("losses.jsonl", losses),
        ("training.json", noted),
        ("stages.tsv", stages),
    ):
        (place / name).write_bytes(content)
    for read in (runner._training, runner._curves):
        try:
            read(place)
        except UserError as error:
            assert str(place) in str(error)
