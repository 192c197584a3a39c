"""Rows, tables, texts, folders and TFDS in a bucket: the same records as from local files."""

import csv
import gzip
import json

import etils.epath.gpath
import fsspec
import pyarrow as pa
import pytest
import tensorflow as tf
import zstandard
from pyarrow import parquet as pq

import gcs_stand_in
from simvlm_jax.data import sources
from simvlm_jax.data.sources import Unreadable, cached_text, files, named_files
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError
from tfds_writer import write_tfds

STRING = tf.io.FixedLenFeature([], tf.string)
PAIR = {"image/encoded": STRING, "caption": STRING}
COLOURS = ["red", "green", "blue", "yellow", "black"]
CAPTIONS = [f"{colour} circle" for colour in COLOURS]
IMAGES = [draw(colour, "circle", "left") for colour in COLOURS]
NAMES = [f"images/{colour} #1.png" for colour in COLOURS]
BUCKET = "gs://bucket/set"


@pytest.fixture(scope="module")
def server():
    with gcs_stand_in.serving() as store:
        yield store


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    server.objects.clear()
    server.downloads.clear()
    server.put("gs://bucket/secret.png", IMAGES[0])
    yield server
    server.failures = 0


def write_files(folder):
    """One data set in every format."""
    (folder / "images").mkdir(parents=True)
    for name, image, caption in zip(NAMES, IMAGES, CAPTIONS, strict=True):
        (folder / name).write_bytes(image)
        (folder / name).with_suffix(".txt").write_text(caption)
    rows = [{"image": name, "caption": text} for name, text in zip(NAMES, CAPTIONS, strict=True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with open(folder / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "caption"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "a.txt").write_text("\n".join(CAPTIONS))
    (folder / "b.txt.zst").write_bytes(zstandard.compress("\n".join(CAPTIONS).encode()))
    columns = {"image": [{"bytes": image, "path": "x"} for image in IMAGES], "caption": CAPTIONS}
    pq.write_table(pa.table(columns), folder / "a.parquet", row_group_size=2)


def upload(store, folder, to=BUCKET):
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(f"{to}/{path.relative_to(folder)}", path.read_bytes())


def parquet(place):
    return sources.ParquetSource("x", {"train": place}, PAIR, {"image/encoded": "image"})


MAKERS = {
    "a.jsonl": lambda place: sources.JSONLinesSource("x", {"train": place}, PAIR),
    "b.jsonl.gz": lambda place: sources.JSONLinesSource("x", {"train": place}, PAIR),
    "a.csv": lambda place: sources.CSVSource("x", {"train": place}, PAIR),
    "a.txt": lambda place: sources.TextSource("x", {"train": place}),
    "b.txt.zst": lambda place: sources.TextSource("x", {"train": place}),
    "*.parquet": parquet,
    "images": lambda place: sources.FolderSource("x", {"train": place}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_records_as_from_local_files(store, tmp_path, name):
    write_files(tmp_path / "set")
    upload(store, tmp_path / "set")
    local = MAKERS[name](f"{tmp_path}/set/{name}").random_access("train")
    remote = MAKERS[name](f"{BUCKET}/{name}").random_access("train")
    assert len(remote) == len(local) == 5
    wanted = local.read(range(5))
    assert remote.read([3, 0, 4, 0, 1, 2]) == [wanted[index] for index in (3, 0, 4, 0, 1, 2)]
    assert not any(isinstance(record, Unreadable) for record in wanted)
    assert remote.name(2)[0].startswith(f"{BUCKET}/")
    assert remote.name(2)[1] == local.name(2)[1]


@pytest.mark.parametrize("name", ["a.jsonl", "*.parquet"])
def test_the_same_records_over_http(store, tmp_path, name):
    write_files(tmp_path / "set")
    upload(store, tmp_path / "set", "gs://bucket")  # a web server's folders are not percent-encoded
    base = fsspec.config.conf["gs"]["endpoint_url"] + "/download/storage/v1/b/bucket/o"
    place = f"{base}/{name.replace('*', 'a')}?alt=media"
    wanted = MAKERS[name](f"{tmp_path}/set/{name}").random_access("train").read(range(5))
    assert MAKERS[name](place).random_access("train").read(range(5)) == wanted


def test_hugging_faces_imagefolder_in_a_bucket(store):
    rows = [{"file_name": f"{c}.png", "text": t} for c, t in zip(COLOURS, CAPTIONS, strict=True)]
    store.put(f"{BUCKET}/metadata.jsonl", "\n".join(map(json.dumps, rows)).encode())
    for colour, image in zip(COLOURS, IMAGES, strict=True):
        store.put(f"{BUCKET}/{colour}.png", image)
    made = sources.FolderSource("x", {"train": f"{BUCKET}/"})
    found = [made.parse(record, 0) for record in made.random_access("train").read(range(5))]
    assert [example["image/encoded"].numpy() for example in found] == IMAGES
    assert [example["caption"].numpy().decode() for example in found] == CAPTIONS


def test_folders_that_do_not_serve(store):
    with pytest.raises(UserError, match="gs://bucket/none has 0 images"):
        sources.FolderSource("x", {"train": "gs://bucket/none"}).random_access("train")
    with pytest.raises(UserError, match="http://.* cannot be listed, as web servers"):
        address = fsspec.config.conf["gs"]["endpoint_url"] + "/none"
        sources.FolderSource("x", {"train": address}).random_access("train")


def captions(made):
    records = made.random_access("train")
    return [
        record.cause
        if isinstance(record, Unreadable)
        else made.parse(record, 0)["caption"].numpy().decode()
        for record in records.read(range(len(records)))
    ]


def test_no_name_leaves_the_remote_folder(store, tmp_path, monkeypatch):
    (tmp_path / "secret.png").write_bytes(IMAGES[0])
    store.put(f"{BUCKET}/a.png", IMAGES[0])
    store.put(f"{BUCKET}/empty.png", b"")
    store.put(f"{BUCKET}/large.png", bytes(2 << 20))
    read = named_files.RemoteFolder.read
    monkeypatch.setattr(read, "__defaults__", ("image", 1 << 20))
    leaves, absent = "the image's path leaves the folder", "there is no such image file"
    wanted = {
        "/a.png": leaves,
        "../secret.png": leaves,
        "sub/../../secret.png": leaves,
        "..": leaves,
        "gs://bucket/secret.png": leaves,
        f"file://{tmp_path}/secret.png": leaves,
        f"x::file://{tmp_path}/secret.png": leaves,
        f"x::{tmp_path}/secret.png": leaves,
        "x:://a.png": leaves,
        "%2e%2e/secret.png": absent,
        "absent.png": absent,
        "nul\0.png": absent,
        "line\r\nHost: x": absent,
        "\ud83d.png": absent,
        "": absent,
        "*.png": absent,
        "empty.png": "the image file is empty",
        "large.png": "the image file is larger than 1 MiB",
        "a.png": "ok",
        "sub/../a.png": "ok",
    }
    rows = [{"image": name, "caption": "ok"} for name in [*wanted, 3, None]]
    store.put(f"{BUCKET}/a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    found = captions(sources.JSONLinesSource("x", {"train": f"{BUCKET}/a.jsonl"}, PAIR))
    assert dict(zip(wanted, found, strict=False)) == wanted
    assert found[-2:] == ["the image's path is not text", "the field image is null"]


def test_images_of_a_batch_are_asked_for_together(store, tmp_path):
    write_files(tmp_path / "set")
    upload(store, tmp_path / "set")
    records = MAKERS["a.jsonl"](f"{BUCKET}/a.jsonl").random_access("train")
    store.delete(f"{BUCKET}/{NAMES[1]}")
    store.stall = 0.3
    start = gcs_stand_in.time.monotonic()
    found = records.read(range(5))
    passed = gcs_stand_in.time.monotonic() - start
    store.stall = 0.0
    assert passed < 4 * 0.3
    assert [i for i, record in enumerate(found) if isinstance(record, Unreadable)] == [1]
    store.failures = 1 << 30
    causes = {record.cause for record in records.read([0, 2])}
    assert causes == {"the image file cannot be read"}


def test_text_is_copied_once_and_anew_when_it_changes(store, tmp_path):
    source = sources.TextSource("x", {"train": f"{BUCKET}/a.txt"})
    store.put(f"{BUCKET}/a.txt", b"one\ntwo")
    reader = source.random_access("train")
    store.downloads.clear()
    assert len(source.random_access("train")) == 2 and not store.downloads
    store.put(f"{BUCKET}/a.txt", b"1\n2\n3\n.")  # of the same size
    assert len(source.random_access("train")) == 4
    assert b"one" in reader.read([0])[0]  # what was opened stays what it was
    assert len(list((tmp_path / "cache" / "texts").iterdir())) == 2


def test_copies_are_bounded_and_whole(store, tmp_path, monkeypatch):
    store.put(f"{BUCKET}/a.txt", b"one\ntwo")
    source = sources.TextSource("x", {"train": f"{BUCKET}/a.txt"}, largest_unpacked=6)
    with pytest.raises(UserError, match="a.txt has 7 bytes and gives more than 6"):
        source.random_access("train")
    store.put(f"{BUCKET}/a.txt.gz", gzip.compress(bytes(1 << 22)))
    with pytest.raises(UserError, match="decompression bomb"):
        sources.TextSource("x", {"train": f"{BUCKET}/a.txt.gz"}).random_access("train")
    store.put(f"{BUCKET}/a.txt.gz", gzip.compress(b"one\n" * 100)[:-5])
    with pytest.raises(UserError, match="damaged or truncated"):
        sources.TextSource("x", {"train": f"{BUCKET}/a.txt.gz"}).random_access("train")
    pieces = cached_text._pieces

    def changing(file, path):
        yield from pieces(file, path)
        store.put(f"{BUCKET}/a.txt", b"ONE\nTWO")

    monkeypatch.setattr(cached_text, "_pieces", changing)
    with pytest.raises(UserError, match="a.txt cannot be opened: the shard has changed"):
        sources.TextSource("x", {"train": f"{BUCKET}/a.txt"}).random_access("train")
    store.failures = 1 << 30
    with pytest.raises(UserError, match="a.txt cannot be opened: the shard cannot be read"):
        sources.TextSource("x", {"train": f"{BUCKET}/a.txt"}).random_access("train")
    assert not list((tmp_path / "cache" / "texts").iterdir())


def test_parquet_is_read_by_ranges_and_watched(store, tmp_path):
    columns = {"image": [bytes([n]) * 50_000 for n in range(40)], "caption": ["a"] * 40}
    pq.write_table(
        pa.table(columns), tmp_path / "a.parquet", row_group_size=4, compression="none",
        use_dictionary=False,
    )  # fmt: skip
    content = (tmp_path / "a.parquet").read_bytes()
    store.put(f"{BUCKET}/a.parquet", content)
    records = parquet(f"{BUCKET}/a.parquet").random_access("train")
    store.downloads.clear()
    assert bytes([9]) * 50_000 in records.read([9])[0]
    spans = [span.removeprefix("bytes=").split("-") for _, span in store.downloads]
    assert 200_000 < sum(int(last) + 1 - int(first) for first, last in spans) < 300_000
    store.failures = 1 << 30
    assert records.read([20, 21]) == [Unreadable("the shard cannot be read")] * 2
    store.failures = 0
    assert isinstance(records.read([20])[0], bytes)
    damaged = content.replace(bytes([30]) * 100, bytes(100))
    store.put(f"{BUCKET}/a.parquet", damaged)
    changed = Unreadable("the shard has changed since it was opened")
    assert records.read([9, 30]) == [changed] * 2
    store.delete(f"{BUCKET}/a.parquet")
    assert records.read([9]) == [Unreadable("the shard has vanished since it was opened")]
    store.put(f"{BUCKET}/a.parquet", content[:-9])
    with pytest.raises(UserError, match="a.parquet is not a readable Parquet file"):
        parquet(f"{BUCKET}/a.parquet").random_access("train")
    store.failures = 1 << 30
    with pytest.raises(UserError, match="a.parquet cannot be opened: the shard cannot be read"):
        parquet(f"{BUCKET}/a.parquet").random_access("train")


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "images"])
def test_what_is_not_there(store, name):
    with pytest.raises(UserError, match="There is no file gs://|nothing is found at gs://"):
        MAKERS[name](f"{BUCKET}/{name}").random_access("train")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_data_set_of_tfds_in_a_bucket(store, tmp_path, monkeypatch, file_format):
    folder = tmp_path / "prepared"
    write_tfds(folder, {"text": "text"}, [{"text": caption} for caption in CAPTIONS], file_format)
    upload(store, folder)
    features = {"text": STRING}
    wanted = sources.TFDSSource("own", {"train": "train"}, features, str(folder))
    # TensorFlow's client, which would be taken for a bucket of Google's, knows no stand-in.
    monkeypatch.setattr(etils.epath.gpath, "_is_tf_installed", lambda: False)
    made = sources.TFDSSource("own", {"train": "train"}, features, BUCKET)
    if file_format == "array_record":
        with pytest.raises(UserError, match="gs://bucket/set/own.* cannot be read by index"):
            made.random_access("train")
    else:
        expected = wanted.random_access("train").read(range(5))
        assert made.random_access("train").read(range(5)) == expected
    with pytest.raises(UserError, match="data set another is not prepared in gs://bucket/set"):
        sources.TFDSSource("another", {"train": "train"}, features, BUCKET).random_access("train")


def test_a_store_that_tfds_does_not_know():
    made = sources.TFDSSource("own", {"train": "train"}, {"text": STRING}, "nowhere://bucket")
    with pytest.raises(UserError, match="nowhere://bucket, a store that"):
        made.random_access("train")
