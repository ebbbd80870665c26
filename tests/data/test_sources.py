"""Every kind of data set gives what the ImageFolder gives; what is damaged is named."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

from dali_cutmix import Loader, train_loader, val_loader
from dali_cutmix.cli import main as cli
from dali_cutmix.data import readers, sources
from dali_cutmix.data.formats import paths, tars
from dali_cutmix.data.formats.compression import compression
from dali_cutmix.data.sources import Source, find_source
from dali_cutmix.pipelines import imagenet

Sample = tuple[Path, int]
KINDS = ("folder", "list", "webdataset", "tfrecord", "recordio")
SHARDED = KINDS[2:]


# An S3 service of one folder a bucket, in a process of its own: DALI keeps the interpreter's lock
# while it reads. It lists, and it answers with parts of objects.
S3_SERVER = """
import http.server, os, sys, urllib.parse as url

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        place = url.unquote(path).strip("/")
        if "list-type" in query:
            prefix = url.parse_qs(query)["prefix"][0]
            files = [os.path.join(r, f) for r, _, names in os.walk(place) for f in names]
            items = "".join(
                f"<Contents><Key>{file[len(place) + 1 :]}</Key>"
                f"<Size>{os.path.getsize(file)}</Size></Contents>"
                for file in sorted(files)
                if file[len(place) + 1 :].startswith(prefix)
            )
            data = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
            return self.send(200, data.encode())
        if not os.path.isfile(place):
            return self.send(404, b"")
        data = open(place, "rb").read()
        if "Range" not in self.headers:
            return self.send(200, data)
        first, last = map(int, self.headers["Range"][6:].split("-"))
        self.send(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

    do_HEAD = do_GET

    def send(self, status, data, part=None):
        self.send_response(status)
        self.send_header("Content-Length", len(data))
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


# --- the formats, by their definition


def write_tar(path: Path, samples: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def tar_samples(samples: list[Sample], end: str = "") -> list[tuple[str, bytes]]:
    return [
        part
        for i, (file, label) in enumerate(samples)
        for part in (
            (f"train/{i:04d}.jpg", file.read_bytes()),
            (f"train/{i:04d}.cls", f"{label}{end}".encode()),
        )
    ]


def varint(number: int) -> bytes:
    number %= 2**64
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, bytes | int]) -> bytes:
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            one = message(1, message(1, value))
        else:
            one = message(3, message(1, varint(value)))
        entries += message(1, message(1, name.encode()) + message(2, one))
    return message(1, entries)


def write_tfrecord(path: Path, records: Iterable[dict[str, bytes | int]]) -> None:
    with path.open("wb") as file:
        for record in records:
            data = example(record)
            # The two checksums, which DALI does not read, are left at zero.
            file.write(struct.pack("<QI", len(data), 0) + data + bytes(4))


def slim(samples: list[Sample], offset: int = 0) -> list[dict[str, bytes | int]]:
    return [
        {"image/encoded": file.read_bytes(), "image/class/label": label + offset, "image/height": 9}
        for file, label in samples
    ]


def write_recordio(path: Path, samples: list[Sample], labels: list[float] | None = None) -> None:
    with path.open("wb") as file:
        for i, (image, label) in enumerate(samples):
            value = label if labels is None else labels[i]
            data = struct.pack("<IfQQ", 0, value, i, 0) + image.read_bytes()
            file.write(struct.pack("<II", 0xCED7230A, len(data)) + data + bytes(-len(data) % 4))


@pytest.fixture(scope="module")
def samples(photos: str) -> list[Sample]:
    """The photos with their labels, in a random order."""
    folders = sorted(path for path in Path(photos).iterdir() if path.is_dir())
    found = [(file, k) for k, folder in enumerate(folders) for file in sorted(folder.iterdir())]
    random.Random(0).shuffle(found)
    assert len(found) == 80
    return found


@pytest.fixture(scope="module")
def data(samples: list[Sample], photos: str, tmp_path_factory: Any) -> dict[str, Any]:
    """What a user would pass for each kind; the shards without their indexes."""
    root = tmp_path_factory.mktemp("data set")
    text = "".join(f"{os.path.relpath(file, photos)} {label}\n" for file, label in samples)
    (root / "train.txt").write_text(text)
    for kind in ("tar", "tf"):
        (root / kind).mkdir()
    for k in range(4):
        part = samples[k * 22 : (k + 1) * 22]  # the last one is shorter
        write_tar(root / "tar" / f"train-{k:03d}.tar", tar_samples(part))
        write_tfrecord(root / "tf" / f"train-{k:05d}-of-00004", slim(part))
    write_recordio(root / "train.rec", samples)
    return {
        "folder": photos,
        "list": root / "train.txt",
        "webdataset": str(root / "tar" / "train-{000..003}.tar"),
        "tfrecord": str(root / "tf"),
        "recordio": root / "train.rec",
    }


@pytest.fixture
def copy(data: dict[str, Any], tmp_path: Path) -> dict[str, Path]:
    """One shard of each kind, to damage, without an index."""
    shards = {
        "webdataset": Path(data["tfrecord"]).parent / "tar" / "train-000.tar",
        "tfrecord": Path(data["tfrecord"]) / "train-00000-of-00004",
        "recordio": Path(data["recordio"]),
    }
    return {kind: Path(shutil.copy(path, tmp_path)) for kind, path in shards.items()}


def found(data: dict[str, Any], kind: str, **options: Any) -> Source:
    if kind == "list":
        options["file_root"] = data["folder"]
    return find_source(data[kind], make_indexes=kind in SHARDED, **options)


@pipeline_def
def pipeline(
    source: Source,
    shuffle: bool = True,
    shard_id: int = 0,
    num_shards: int = 1,
    initial_fill: int = readers.INITIAL_FILL,
    order_seed: int = 5,
) -> Any:
    encoded, labels = readers.read(
        source,
        shuffle=shuffle,
        seed=order_seed,
        shard_id=shard_id,
        num_shards=num_shards,
        initial_fill=initial_fill,
    )
    images = fn.resize(imagenet.decode(encoded, "cpu"), size=(32, 48))
    return images, fn.cast(fn.reshape(labels, shape=[]), dtype=types.INT64)


def loader(source: Source, **options: Any) -> Loader:
    arguments = {"batch_size": 8, "num_threads": 2, "device_id": None, "seed": 1, **options}
    return Loader(pipeline, source=source, **arguments)


def seen(batches: Iterable[Any]) -> list[tuple[str, int]]:
    """Each sample of the batches as (hash of the pixels, label)."""
    return [
        (hashlib.md5(image.numpy().tobytes()).hexdigest(), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    ]


# --- what comes out


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_images_of_the_folder(data: dict[str, Any], kind: str) -> None:
    source = found(data, kind)
    assert source.kind == kind
    with loader(found(data, "folder"), shuffle=False, last_batch="partial") as batches:
        expected = Counter(seen(batches))
    assert len(expected) == 80
    with loader(source) as batches:
        epochs = [seen(batches) for _ in range(3)]
    assert all(Counter(epoch) == expected for epoch in epochs)
    orders = {tuple(epoch) for epoch in epochs}
    assert len(orders) == 3, "the order changes every epoch"
    parts = []
    for shard_id in range(3):  # 26 or 27 each
        options = {"shard_id": shard_id, "num_shards": 3}
        with loader(source, shuffle=False, last_batch="partial", **options) as batches:
            parts.append([seen(batches), seen(batches)])
    for first, second in parts:
        assert first == second
    assert sum((Counter(first) for first, _ in parts), Counter()) == expected
    shuffled = []
    for shard_id in range(2):
        with loader(source, shard_id=shard_id, num_shards=2, initial_fill=8) as batches:
            shuffled.append([seen(batches) for _ in range(2)])
    for halves in zip(*shuffled, strict=True):
        assert sum(map(Counter, halves), Counter()) == expected
    first, second = shuffled[0]
    assert Counter(first) != Counter(second), "a process sees other samples in the next epoch"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_loaders_take_every_kind(data: dict[str, Any], kind: str) -> None:
    source = found(data, kind) if kind == "list" else data[kind]  # for its file_root
    options: dict[str, Any] = {"batch_size": 16, "size": 24, "device": "cpu"}
    classes = {"num_classes": 5} if kind in SHARDED else {}
    with train_loader(source, recipe="rsb-a3", **classes, **options) as train:
        batches = list(train)
        state = train.state_dict()
    assert len(batches) == 5
    assert train.num_classes == 5
    assert all(abs(float(targets.sum()) - 16) < 1e-4 for _, targets in batches)
    labels = sum((targets for _, targets in batches)).sum(dim=0)  # 16 images of each class
    assert (labels - 16).abs().max() < 5
    with val_loader(source, resize=24, **classes, **options) as val:
        counts = Counter(label for _, labels in val for label in labels.tolist())
    assert counts == dict.fromkeys(range(5), 16)
    if kind in SHARDED:
        with pytest.raises(ValueError, match="`num_classes` must be given to mix data that do not"):
            train_loader(source, recipe="rsb-a3", **options)
        wrong = {**options, "batch_size": 80}
        with pytest.raises(ValueError, match=r"`labels` must be .* in \[0, num_classes\)"):
            val_loader(source, resize=24, num_classes=4, **wrong)
        other = data["folder"]
    else:
        other = data["recordio"]
    with (
        train_loader(other, recipe="rsb-a3", num_classes=5, **options) as of_other,
        pytest.raises(ValueError, match="must come from a loader with the same options and data"),
    ):
        of_other.load_state_dict(state)


def test_a_pattern_of_all_shards_misses_one(data: dict[str, Any], tmp_path: Path) -> None:
    for path in Path(data["tfrecord"]).glob("*-of-00004"):
        shutil.copy(path, tmp_path)
    pattern = str(tmp_path / "train-*-of-00004")
    assert find_source(pattern, make_indexes=True).size == 80
    os.unlink(tmp_path / "train-00002-of-00004")
    with pytest.raises(FileNotFoundError, match="'train-00002-of-00004' is missing"):
        find_source(pattern)
    assert len(find_source(str(tmp_path / "train-0000[01]-of-00004")).paths) == 2


def test_a_relative_path_is_that_of_now(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(data["folder"]).parent)
    source = find_source(Path(data["folder"]).name)
    with loader(source) as batches:
        monkeypatch.chdir(tmp_path)
        assert len(seen(batches)) == 80


def test_another_folder_than_was_found_is_refused(photos: str, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "data")
    source = find_source(tmp_path / "data")
    identity = source.identity
    os.rename(tmp_path / "data" / "cat" / "000.jpg", tmp_path / "data" / "coffee" / "new.jpg")
    assert source.identity != identity  # a state of the one does not fit the other
    shutil.copytree(tmp_path / "data" / "cat", tmp_path / "data" / "a new class")
    with pytest.raises(ValueError, match=r"the classes in .* have changed: find it again"):
        loader(source)


@pytest.mark.parametrize("kind", SHARDED)
def test_without_shuffle_samples_come_in_the_order_of_the_shards(
    data: dict[str, Any], samples: list[Sample], kind: str
) -> None:
    with loader(found(data, kind), shuffle=False, last_batch="partial") as batches:
        assert [label for _, label in seen(batches)] == [label for _, label in samples]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [(0, 3), (1, 0), (2, 4)], ids=str)
def test_a_state_resumes_bit_for_bit(
    data: dict[str, Any], kind: str, place: tuple[int, int]
) -> None:
    epoch, position = place
    # 26 or 27 samples a part, in batches of 5: the last one is incomplete, and dropped.
    options = {"shard_id": 0, "num_shards": 3, "initial_fill": 8, "batch_size": 5}
    source = found(data, kind)
    with loader(source, **options) as first, loader(source, **options) as second:
        for _ in range(epoch):
            seen(first)
        batches = iter(first)
        for _ in range(position):
            next(batches)
        second.load_state_dict(first.state_dict())
        assert seen(second) == seen(batches)  # type: ignore[arg-type]
        for _ in range(2):
            assert seen(second) == seen(first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_without_shuffling_is_computed(data: dict[str, Any], kind: str) -> None:
    options: dict[str, Any] = {"batch_size": 5, "size": 8, "resize": 8, "num_classes": 5}
    options |= {"device": "cpu", "num_threads": 1, "shard_id": 1, "num_shards": 3}
    source = found(data, kind)
    with (
        val_loader(source, **options) as whole,
        val_loader(source, **options) as loader,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")  # nothing is read on
        expected = [seen([batch]) for batch in whole]
        for position in (3, 1, 5):
            loader.seek(0, position)
            assert [seen([batch]) for batch in loader] == expected[position:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_gives_the_order(data: dict[str, Any], kind: str) -> None:
    source = found(data, kind)
    orders = []
    for seed in (5, 5, 6):
        with loader(source, order_seed=seed, initial_fill=8) as batches:
            orders.append([seen(batches) for _ in range(2)][1])
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_the_window_is_no_larger_than_a_part(data: dict[str, Any]) -> None:
    source = found(data, "recordio")
    assert readers._window(source, 3, 4096) == 26
    assert readers._window(source, 3, 20) == 20
    assert readers._window(dataclasses.replace(source, size=None), 3, 4096) == 4096
    with pytest.raises(ValueError, match="`num_shards` must be at most the 80 samples"):
        readers.read(source, shuffle=True, num_shards=81)


def test_the_window_moves_over_the_samples(data: dict[str, Any]) -> None:
    # A sample comes at most 8 places before its own.
    source = found(data, "recordio")
    with loader(source, initial_fill=8) as batches:
        window = seen(batches)
    with loader(source, shuffle=False, last_batch="partial") as batches:
        plain = seen(batches)
    distance = [plain.index(one) - place for place, one in enumerate(window)]
    assert max(distance) <= 8
    assert window != plain
    with loader(source) as batches:
        assert max(plain.index(one) - place for place, one in enumerate(seen(batches))) > 30


@pytest.mark.parametrize("kind", KINDS[1:])
def test_label_offset(data: dict[str, Any], kind: str) -> None:
    source = found(data, kind, label_offset=3)
    with loader(source, shuffle=False, last_batch="partial") as batches:
        shifted = seen(batches)
    with loader(found(data, kind), shuffle=False, last_batch="partial") as batches:
        assert shifted == [(image, label + 3) for image, label in seen(batches)]
    assert source.identity != found(data, kind).identity


@pytest.mark.parametrize("kind", SHARDED)
def test_a_negative_label_fails(data: dict[str, Any], kind: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match="at least 0"):
        seen(loader(found(data, kind, label_offset=-1)))


@pytest.mark.parametrize("kind", ["list", "folder"])
def test_a_negative_label_of_a_list_is_refused(data: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValueError, match="label_offset"):
        found(data, kind, label_offset=-1)


def label_of(text: bytes) -> int:
    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipe() -> Any:
        batch = [np.frombuffer(text, np.uint8)]
        return readers._decimal(fn.external_source(lambda: batch, batch=True))

    return int(pipe().run()[0].as_array()[0, 0])


@pytest.mark.parametrize("text", ["0", "7", "007", "12", "999", "21840", "4\n", "31\r\n", "5 \t\n"])
def test_the_label_of_a_tar_is_decimal_text(text: str) -> None:
    assert label_of(text.encode()) == int(text)


@pytest.mark.parametrize("digits", range(1, 11))
def test_labels_of_every_length(digits: int) -> None:
    text = "9876543210"[:digits]
    assert label_of(text.encode()) == int(text)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "-1", "+1", "1.0", "1 2", " 1", "n01440764", "1\x00", "1e3", "1" * 11, "\xb2"],
)
def test_a_label_that_is_no_number_fails(text: str) -> None:
    # A bare pipeline prints the rule as the name of a function.
    with pytest.raises(RuntimeError, match="in dali_cutmix: A label must be one whole number"):
        label_of(text.encode("latin-1"))


def test_recordio_takes_whole_labels_only(samples: list[Sample], tmp_path: Path) -> None:
    write_recordio(tmp_path / "a.rec", samples[:8], [0, 1, 2, 3, 4, 5, 6, 7.5])
    source = find_source(tmp_path / "a.rec", make_indexes=True)
    message = r"A label must be one whole number.*a.rec \(record 8, at byte \d+: label\)\. Mend it"
    with pytest.raises(ValueError, match=message):
        loader(source)
    (bad,) = sources.damaged(source)
    assert "a.rec (record 8, at byte" in bad
    assert bad.endswith(": label)")


def test_tfrecord_needs_a_label_in_every_record(samples: list[Sample], tmp_path: Path) -> None:
    records = slim(samples[:8])
    del records[5]["image/class/label"]
    write_tfrecord(tmp_path / "a.tfrecord", records)
    source = find_source(tmp_path / "a.tfrecord", make_indexes=True)
    message = r"A label must be one whole number.*a.tfrecord \(record 6, at byte \d+: label\)"
    with pytest.raises(ValueError, match=message):
        loader(source)
    (bad,) = sources.damaged(source)
    assert "a.tfrecord (record 6, at byte" in bad
    assert bad.endswith(": label)")


def test_the_features_of_tfds(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "imagenet-train.tfrecord-00000-of-00001"
    write_tfrecord(path, [{"image": f.read_bytes(), "label": k} for f, k in samples[:8]])
    source = find_source(tmp_path, make_indexes=True)
    assert source.fields == ("image", "label")
    with loader(source, shuffle=False) as batches:
        assert [k for _, k in seen(batches)] == [k for _, k in samples[:8]]


def test_features_of_other_names(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, [{"jpeg": f.read_bytes(), "class": k} for f, k in samples[:8]])
    with pytest.raises(ValueError, match=r"a\.tfrecord.*class \(int64\), jpeg \(bytes\)"):
        find_source(path)
    source = find_source(path, fields=("jpeg", "class"), make_indexes=True)
    with loader(source, shuffle=False) as batches:
        assert [k for _, k in seen(batches)] == [k for _, k in samples[:8]]
    with pytest.raises(ValueError, match="image in bytes and a label in int64"):
        find_source(path, fields=("class", "jpeg"))


def test_a_tar_with_newlines_capitals_and_other_files(
    samples: list[Sample], tmp_path: Path
) -> None:
    parts = [(name.replace(".jpg", ".JPG"), d) for name, d in tar_samples(samples[:8], end="\n")]
    extra = [(f"train/{i:04d}.json", b"{}") for i in range(8)]
    parts = [*sorted([*parts, *extra]), (".hidden", b"x")]
    write_tar(tmp_path / "a.tar", parts)
    with loader(find_source(tmp_path, make_indexes=True), shuffle=False) as batches:
        assert [k for _, k in seen(batches)] == [k for _, k in samples[:8]]


# --- told apart


def test_names_with_blanks_and_other_alphabets(samples: list[Sample], tmp_path: Path) -> None:
    names = [
        "two words.jpg",
        "größe.jpg",
        "画像 1.jpg",
        "a  b.jpg",
        "3.jpg",
        "x 4.jpg",
        "-.jpg",
        "'.jpg",
    ]
    (tmp_path / "ü ü").mkdir()
    for name, (file, _) in zip(names, samples, strict=False):
        shutil.copy(file, tmp_path / "ü ü" / name)
    lines = [f"ü ü/{name} {i}" for i, name in enumerate(names)]
    (tmp_path / "list ü.txt").write_text("\ufeff" + "\r\n\n".join(lines) + "\t\n", "utf-8")
    long = "d" * 90 + "/" + "n" * 80  # beyond what a plain header holds
    parts = []
    for i, (name, (file, _)) in enumerate(zip([*names[:-1], long + ".jpg"], samples, strict=False)):
        stem = f"{name[:-4]}{i}"
        parts += [(stem + ".jpg", file.read_bytes()), (stem + ".cls", str(i).encode())]
    write_tar(tmp_path / "shard ü 0.tar", parts)
    for name in ("list ü.txt", "shard ü 0.tar"):
        with loader(find_source(tmp_path / name, make_indexes=True), shuffle=False) as batches:
            assert [label for _, label in seen(batches)] == list(range(8)), name


def test_what_is_passed_is_told_apart(data: dict[str, Any]) -> None:
    tars, records = Path(data["webdataset"]).parent, Path(data["tfrecord"])
    for passed, kind, count in [
        (data["folder"], "folder", 1),
        (Path(data["folder"]), "folder", 1),
        (tars, "webdataset", 4),
        (tars / "train-000.tar", "webdataset", 1),
        (tars / "*.tar", "webdataset", 4),
        (tars / "train-{000..002}.tar", "webdataset", 3),
        (tars / "train-00{0,3}.ta[r]", "webdataset", 2),
        ([tars / "train-003.tar", str(tars / "train-00{0..1}.tar")], "webdataset", 3),
        (records, "tfrecord", 4),
        (records / "train-0000?-of-00004", "tfrecord", 4),
        (data["recordio"], "recordio", 1),
    ]:
        source = find_source(passed)
        assert (source.kind, len(source.paths)) == (kind, count), passed
    assert find_source([tars / "train-00{3,1}.tar"]).paths[0].endswith("train-003.tar")
    source = found(data, "list")
    assert (source.num_classes, source.size, len(source.files)) == (5, 80, 80)
    assert find_source(data["folder"]).classes == tuple(sorted(os.listdir(data["folder"])))


def test_braces() -> None:
    assert paths._braces("a{08..11}b") == ["a08b", "a09b", "a10b", "a11b"]
    assert paths._braces("{9..11}") == ["9", "10", "11"]
    assert paths._braces("{a,b}{0..1}") == ["a0", "b0", "a1", "b1"]
    for wrong in ("{3..1}", "{0..99999999}", "{x}", "{}"):
        with pytest.raises(ValueError, match="`source` must have"):
            paths._braces(wrong)


def test_what_cannot_be_told_apart(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.bin").write_bytes(b"x")
    (tmp_path / "data.tar.gz").write_bytes(b"x")
    mixed = tmp_path / "mixed"
    shutil.copytree(data["folder"], mixed)
    shutil.copy(Path(data["webdataset"]).parent / "train-000.tar", mixed)
    for passed, error, match in [
        (tmp_path / "nothing", FileNotFoundError, "nothing"),
        (tmp_path / "empty", FileNotFoundError, r"ImageFolder, a list .*empty"),
        (tmp_path / "data.bin", ValueError, r"RecordIO \(\*\.rec\), got .*data\.bin"),
        (tmp_path / "data.tar.gz", ValueError, "uncompressed.*data.tar.gz"),
        (tmp_path / "*.tar", FileNotFoundError, r"\*\.tar"),
        (mixed, ValueError, "mixed.*class folders, webdataset"),
        ([], ValueError, "empty sequence"),
        ([data["recordio"], data["list"]], ValueError, "one kind, got list, recordio"),
        ([data["recordio"]] * 2, ValueError, "one RecordIO file, got 2"),
        ([str(data["webdataset"])] * 2, ValueError, "train-000.tar' more than once"),
        ([data["folder"]], ValueError, "got folders"),
        ("http://host/a.tar", ValueError, "s3:// or gs://"),
        ("s3://bucket/*.tar", ValueError, "name its remote shards"),
        (5, TypeError, "got 5"),
    ]:
        with pytest.raises(error, match=match):
            find_source(passed)
    assert find_source(mixed, kind="folder").kind == "folder"
    assert find_source(mixed, kind="webdataset").kind == "webdataset"
    with pytest.raises(ValueError, match="`kind` must be one of"):
        find_source(mixed, kind="tar")  # type: ignore[arg-type]


def test_a_missing_shard_is_named(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-004\.tar"):
        find_source(str(data["webdataset"]).replace("003", "009"))
    for file in Path(data["tfrecord"]).glob("*-of-00004"):
        shutil.copy(file, tmp_path)
    (tmp_path / "train-00002-of-00004").unlink()
    with pytest.raises(FileNotFoundError, match="'train-00002-of-00004' is missing"):
        find_source(tmp_path)
    assert len(find_source(tmp_path / "train-*").paths) == 3


def test_arguments_of_another_kind_are_refused(data: dict[str, Any]) -> None:
    for kind, options in [
        ("folder", {"file_root": "/"}),
        ("tfrecord", {"file_root": "/"}),
        ("folder", {"index_dir": "/"}),
        ("list", {"fields": ("jpg", "cls")}),
        ("recordio", {"fields": ("jpg", "cls")}),
        ("tfrecord", {"fields": ("image",)}),
        ("folder", {"label_offset": 1}),
    ]:
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            find_source(data[kind], **options)


# --- lists


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("a.jpg 0\nb.jpg x\n", ValueError, r"list\.txt', line 2: .*integer label"),
        ("a.jpg 0\n\nb.jpg\n", ValueError, "line 3"),
        ("a.jpg 0.5\n", ValueError, "line 1"),
        ("a.jpg \u0663\n", ValueError, "line 1"),
        ("a.jpg -1\n", ValueError, "line 1: .*at least 0, got -1"),
        (f"a.jpg {2**31}\n", ValueError, "line 1"),
        (
            "a.jpg 0\nb.jpg 1\n./a.jpg 1\n",
            ValueError,
            "line 3: must name every image once, got 'a.jpg' as in line 1",
        ),
        ("a.jpg 0\nc.jpg 1\n", FileNotFoundError, r"line 2: .*c\.jpg"),
        ("a.jpg 0\nx/c.jpg 1\n", FileNotFoundError, r"line 2: .*x/c\.jpg"),
        ("a.jpg 0\nfolder 1\n", FileNotFoundError, "line 2"),
        ("a.jpg 0\n../a.jpg 1\n", ValueError, r"line 2: must lie in .*\.\./a\.jpg"),
        ("/etc/passwd 0\n", ValueError, "line 1: must lie in"),
        ("\n  \n", ValueError, "at least one line"),
        ("0\t3.0\ta.jpg\n", ValueError, "line 1"),
        (b"\xff\xfe 0\n", ValueError, "UTF-8"),
    ],
    ids=repr,
)
def test_a_wrong_list_is_refused_by_line(tmp_path: Path, text: Any, error: Any, match: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=match):
        find_source(tmp_path / "list.txt")


def test_paths_of_a_list_lie_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images2").mkdir()
    for folder in ("images", "images2"):
        (tmp_path / folder / "a.jpg").write_bytes(b"")
    listed = tmp_path / "l.txt"
    listed.write_text(f"{tmp_path}/images/a.jpg 0\n")
    for root in (None, "/", tmp_path / "images", f"{tmp_path}/images/"):
        source = find_source(listed, file_root=root)
        (name,) = source.files
        assert f"{source.file_root}/{name}".replace("//", "/") == f"{tmp_path}/images/a.jpg"
    listed.write_text("images/../images/.//a.jpg 0\n")
    assert find_source(listed).files == ("images/a.jpg",)
    listed.write_text("..a.jpg 0\n")
    (tmp_path / "..a.jpg").write_bytes(b"")
    assert find_source(listed).files == ("..a.jpg",)
    listed.write_text("../images2/a.jpg 0\n")
    with pytest.raises(ValueError, match="must lie in"):
        find_source(listed, file_root=tmp_path / "images")


# --- indexes


def test_an_index_has_the_bytes_of_dalis_scripts(copy: dict[str, Path], tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    expected = tmp_path / "expected"
    for kind, script in (("webdataset", "wds2idx"), ("tfrecord", "tfrecord2idx")):
        command = [sys.executable, scripts / script, copy[kind], expected]
        subprocess.run(command, check=True, capture_output=True)
        made = sources.make_index(copy[kind])
        assert Path(made).read_bytes() == expected.read_bytes(), kind
    # rec2idx needs MXNet. It writes a running number and the byte of each record.
    offsets, at = [], 0
    content = copy["recordio"].read_bytes()
    while at < len(content):
        offsets.append(at)
        at += 8 + -(-struct.unpack_from("<I", content, at + 4)[0] // 4) * 4
    lines = [f"{i}\t{offset}\n" for i, offset in enumerate(offsets)]
    assert Path(sources.make_index(copy["recordio"])).read_text() == "".join(lines)


@pytest.mark.parametrize("kind", SHARDED)
def test_indexes_are_made_where_missing(copy: dict[str, Path], tmp_path: Path, kind: str) -> None:
    shard, seen_bytes = copy[kind], []
    place = f"{shard}.idx"
    source = find_source(shard)
    assert sources.missing_indexes(source) == [(str(shard), place)]
    assert source.size is None
    with pytest.raises(FileNotFoundError, match=r"index .*\.idx"):
        readers.read(source, shuffle=True)
    made = sources.index(shard, progress=lambda done, total: seen_bytes.append((done, total)))
    assert made == [place]
    assert seen_bytes[-1] == (shard.stat().st_size,) * 2
    assert sorted(seen_bytes) == seen_bytes
    assert sources.missing_indexes(source) == []
    assert find_source(shard).size == (80 if kind == "recordio" else 22)
    assert sources.index(shard) == []
    # elsewhere
    out = tmp_path / "new" / "folder"
    assert sources.index([shard] if kind != "recordio" else shard, out) == [
        str(out / (shard.name + ".idx"))
    ]
    Path(place).unlink()
    assert find_source(shard, index_dir=out).index_paths == (str(out / (shard.name + ".idx")),)
    assert find_source(shard, make_indexes=True).size is not None


def test_existing_indexes_are_found_by_their_usual_names(
    copy: dict[str, Path], tmp_path: Path
) -> None:
    places = {"webdataset": "train-000.idx", "recordio": "train.idx"}
    for kind, name in places.items():
        sources.make_index(copy[kind], tmp_path / name)
        assert find_source(copy[kind]).index_paths == (str(tmp_path / name),)
    other = tmp_path / "idx"
    other.mkdir()
    shard = copy["tfrecord"]
    sources.make_index(shard, other / shard.name)
    assert find_source(shard, index_dir=other).index_paths == (str(other / shard.name),)


def test_shards_of_one_stem_do_not_share_an_index(copy: dict[str, Path], tmp_path: Path) -> None:
    tar, rec = tmp_path / "x.tar", tmp_path / "x.rec"
    copy["webdataset"].rename(tar)
    copy["recordio"].rename(rec)
    sources.make_index(rec, tmp_path / "x.idx")  # im2rec's name
    with pytest.raises(ValueError, match=r"x\.idx.*x\.tar"):
        find_source(tar)
    before = (tmp_path / "x.idx").read_bytes()
    assert sources.index(tar) == [f"{tar}.idx"]
    assert find_source(tar).size == 22
    assert find_source(rec).size == 80
    assert (tmp_path / "x.idx").read_bytes() == before
    for name in ("a.0.tar", "a.1.tar"):
        shutil.copy(tar, tmp_path / name)
    shutil.copy(f"{tar}.idx", tmp_path / "a.idx")
    with pytest.raises(ValueError, match=r"an index each.*a\.0\.tar.*a\.1\.tar"):
        find_source(tmp_path / "a.*.tar")


def test_several_processes_make_an_index_at_once(copy: dict[str, Path], tmp_path: Path) -> None:
    shard = copy["webdataset"]
    with ThreadPoolExecutor(8) as pool:
        found_ones = list(pool.map(lambda _: find_source(shard, make_indexes=True), range(8)))
    assert {source.size for source in found_ones} == {22}
    assert [name for name in os.listdir(tmp_path) if "idx" in name] == [f"{shard.name}.idx"]


@pytest.mark.parametrize("kind", SHARDED)
def test_no_part_of_an_index_is_left_after_an_error(
    copy: dict[str, Path], tmp_path: Path, kind: str, monkeypatch: Any
) -> None:
    before = sorted(os.listdir(tmp_path))

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.make_index(copy[kind], progress=fails)
    assert sorted(os.listdir(tmp_path)) == before
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        sources.make_index(copy[kind])
    assert sorted(os.listdir(tmp_path)) == before

    def read_only(*_: Any) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(PermissionError, match=r"--out DIR.*index_dir"):
        find_source(copy[kind], make_indexes=True)
    assert sorted(os.listdir(tmp_path)) == before


# --- damage


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "without"])
@pytest.mark.parametrize("keep", [0.5, 0.999, "to the record"], ids=str)
@pytest.mark.parametrize("kind", SHARDED)
def test_a_shard_cut_short_is_named(
    copy: dict[str, Path], kind: str, keep: Any, indexed: bool
) -> None:
    shard = copy[kind]
    place = sources.make_index(shard)
    if keep == "to the record":  # nothing is cut within
        if kind == "webdataset":
            with tarfile.open(shard) as tar:
                last = tar.getmembers()[-1]
            size = last.offset_data + 512
        else:
            size = int(Path(place).read_text().splitlines()[-1].split()[kind == "recordio"])
    else:
        size = int(shard.stat().st_size * keep) if kind != "webdataset" or keep == 0.5 else 0
        size = size or int(Path(place).read_text().split()[-3]) + 100
    os.truncate(shard, size)
    if not indexed:
        os.unlink(place)
        if keep == "to the record" and kind != "webdataset":
            return  # nothing tells that there were more records
        with pytest.raises(ValueError, match=f"{shard.name}.*(cut short|whole)"):
            sources.make_index(shard)
        assert not os.path.exists(place)
    with pytest.raises(ValueError, match=shard.name):
        find_source(shard, make_indexes=True)


@pytest.mark.parametrize("kind", SHARDED)
def test_an_index_of_another_shard_is_named(
    copy: dict[str, Path], samples: list[Sample], kind: str
) -> None:
    shard = copy[kind]
    write = {"webdataset": write_tar, "tfrecord": write_tfrecord, "recordio": write_recordio}[kind]
    content: Any = {
        "webdataset": tar_samples,
        "tfrecord": slim,
        "recordio": lambda part: part,
    }[kind]
    count = 80 if kind == "recordio" else 22
    place = sources.make_index(shard)
    good = Path(place).read_bytes()

    def refused(match: str = "") -> None:
        with pytest.raises(ValueError, match=f"{shard.name}.idx.*{match}.*dali-cutmix index"):
            find_source(shard)

    write(shard, content(samples[:count][::-1]))  # the same length, another order
    refused()
    write(shard, content(samples[: count - 1]))  # longer index
    refused()
    write(shard, content([*samples[:count], *samples[:3]]))  # older index
    refused()
    assert sources.index(shard) == [place]
    assert find_source(shard).size == count + 3
    write(shard, content(samples[:count]))
    for wrong in (
        b"",
        b"x y\n",
        b"1\n",
        b"v1.2 0\n",
        b"v9 1\njpg 512 1 a\n",
        good[: len(good) // 2],
    ):
        Path(place).write_bytes(wrong)
        refused()
    Path(place).write_bytes(good)
    assert find_source(shard).size == count


def test_a_tar_that_goes_on_after_its_index(copy: dict[str, Path]) -> None:
    shard = copy["webdataset"]
    sources.make_index(shard)
    with tarfile.open(shard, "a") as tar:
        info = tarfile.TarInfo("train/9999.cls")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(ValueError, match=r"goes on with 'train/9999\.cls'"):
        find_source(shard)


def test_an_index_with_a_gap(copy: dict[str, Path]) -> None:
    # Each entry is right, one is missing.
    for kind in SHARDED:
        place = Path(sources.make_index(copy[kind]))
        lines = place.read_text().splitlines(keepends=True)
        place.write_text("".join(lines[:6] + lines[7:]))
        with pytest.raises(ValueError, match=copy[kind].name):
            find_source(copy[kind])


def test_an_index_that_takes_images_for_labels(copy: dict[str, Path]) -> None:
    place = Path(sources.make_index(copy["webdataset"]))
    swapped = place.read_text().replace("jpg ", "x ").replace("cls ", "jpg ").replace("x ", "cls ")
    place.write_text(swapped)
    with pytest.raises(ValueError, match=r"there is 'train/0000\.jpg', no \.cls"):
        find_source(copy["webdataset"])


@pytest.mark.parametrize("missing", ["jpg", "cls"])
def test_a_sample_without_a_component_is_named(
    samples: list[Sample], tmp_path: Path, missing: str
) -> None:
    parts = [p for p in tar_samples(samples[:8]) if p[0] != f"train/0005.{missing}"]
    write_tar(tmp_path / "a.tar", parts)
    with pytest.raises(ValueError, match=r"a\.tar' must have one .* got 0 in sample 6"):
        find_source(tmp_path, make_indexes=True)
    parts = [*tar_samples(samples[:8]), ("train/0007.png", samples[0][0].read_bytes())]
    write_tar(tmp_path / "b.tar", parts)
    with pytest.raises(ValueError, match=r"b\.tar' must have one image .* got 2 in sample 8"):
        find_source(tmp_path / "b.tar", make_indexes=True)
    with pytest.raises(ValueError, match=r"must have one \.txt"):
        find_source(tmp_path / "b.tar", fields=("jpg", "txt"))
    assert find_source(tmp_path / "b.tar", fields=("jpg", "cls")).size == 8


@pytest.mark.parametrize("name", ["a.tar", "a.rec", "a.tfrecord"])
def test_an_empty_file_and_one_of_another_kind_are_named(tmp_path: Path, name: str) -> None:
    for content in (b"", b"\x1f\x8b" + bytes(range(256)) * 4, b"no records at all " * 100):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            find_source(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            sources.make_index(tmp_path / name)
    write_tar(tmp_path / "e.tar", [])
    with pytest.raises(ValueError, match=r"e\.tar"):
        find_source(tmp_path / "e.tar", make_indexes=True)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    # Its first bytes could be those of a TFRecord of 559,903 bytes.
    "gzip, no time": lambda data: gzip.compress(data, mtime=0),
    "gzip, with a name": lambda data: (
        b"\x1f\x8b\x08\x08\0\0\0\0\0\x03train\0" + gzip.compress(data, mtime=0)[10:]
    ),
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: b"\x28\xb5\x2f\xfd\x04\x58" + data,
    "lz4": lambda data: b"\x04\x22\x4d\x18\x64\x40" + data,
}


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("kind", SHARDED)
def test_a_compressed_shard_of_a_plain_name_is_named(
    copy: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    kind: str,
    name: str,
) -> None:
    shard = copy[kind]
    shard.write_bytes(COMPRESSIONS[name](shard.read_bytes()))
    said = f"must be uncompressed, is compressed by {name.partition(',')[0]}: unpack it"
    for call in (find_source, sources.make_index, sources.index):
        with pytest.raises(ValueError, match=said):
            call(shard)
    assert cli.main(["check", str(shard)]) in (1, 3)
    assert said in "".join(capsys.readouterr())


def test_what_unpacks_to_no_shard_is_not_said_to_be_a_compressed_one() -> None:
    packed = gzip.compress(b"no shard" * 99)
    assert compression(packed, lambda inside: inside.startswith(b"no")) == "gzip"
    assert compression(packed, tars.begins) is None


def test_a_record_as_long_as_a_magic_number_is_no_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    for length in (0x8B1F, 0x088B1F, 0x9C78, 0x0178):  # gzip's first bytes, and zlib's
        record: dict[str, bytes | int] = {"image": b"", "label": 1}
        filled = ({**record, "filling": bytes(n)} for n in range(length, 0, -1))
        record = next(one for one in filled if len(example(one)) == length)
        write_tfrecord(path, [record])
        assert find_source(path, make_indexes=True).size == 1
        Path(f"{path}.idx").unlink()


@pytest.mark.parametrize("kind", SHARDED)
def test_a_damaged_image_is_named(samples: list[Sample], tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image, but some bytes")
    part = [*samples[:5], (broken, 1), *samples[5:7]]
    name = {"webdataset": "a.tar", "tfrecord": "a.tfrecord", "recordio": "a.rec"}[kind]
    if kind == "webdataset":
        write_tar(tmp_path / name, tar_samples(part))
    elif kind == "tfrecord":
        write_tfrecord(tmp_path / name, slim(part))
    else:
        write_recordio(tmp_path / name, part)
    source = find_source(tmp_path / name, make_indexes=True)
    (bad,) = sources.damaged(source)
    assert bad.startswith(str(tmp_path / name))
    assert ("train/0005.jpg: image" if kind == "webdataset" else "record 6") in bad
    assert bad.endswith("image)")
    assert sources.damaged(dataclasses.replace(source, label_offset=-5))[0].endswith(": label)")
    with pytest.raises((RuntimeError, ValueError)):
        loader(source)


def test_recordio_in_parts(samples: list[Sample], tmp_path: Path) -> None:
    # Where the magic number stands in the data, the writer splits the record around it.
    path, parts = tmp_path / "a.rec", []
    magic = struct.pack("<I", 0xCED7230A)
    for i, (file, label) in enumerate(samples[:8]):
        data = struct.pack("<IfQQ", 0, label, i, 0) + file.read_bytes()
        pieces = [data]
        if i == 3:
            data += bytes(-len(data) % 4) + magic + b"end of image"
            cut = data.index(magic)
            pieces = [data[:cut], data[cut + 4 :]]
        for number, piece in enumerate(pieces):
            flag = 0 if len(pieces) == 1 else (1, 3)[number]
            parts.append(magic + struct.pack("<I", flag << 29 | len(piece)) + piece)
            parts.append(bytes(-len(piece) % 4))
    path.write_bytes(b"".join(parts))
    source = find_source(path, make_indexes=True)
    assert source.size == 8
    with loader(source, shuffle=False) as batches:
        assert [label for _, label in seen(batches)] == [label for _, label in samples[:8]]


# --- remote


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """The folder behind s3://bucket."""
    (tmp_path / "bucket").mkdir()
    command = [sys.executable, "-c", S3_SERVER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield tmp_path / "bucket"
        server.terminate()


@pytest.mark.slow
def test_s3(data: dict[str, Any], bucket: Path, tmp_path: Path) -> None:
    # One test for all kinds: DALI makes its S3 client once in a process.
    shutil.copytree(data["folder"], bucket / "train")
    for kind, name in (("webdataset", "*.tar"), ("tfrecord", "*-of-00004"), ("recordio", "*.rec")):
        passed = data[kind] if kind == "tfrecord" else os.path.dirname(data[kind])
        for shard in Path(passed).glob(name):
            shutil.copy(shard, bucket)
        sources.index(str(bucket / name))
    fields = {"fields": ("image/encoded", "image/class/label")}
    remote = {"index_dir": "s3://bucket/"}
    local = {"index_dir": tmp_path / "indexes"}
    shutil.copytree(bucket, tmp_path / "indexes", ignore=shutil.ignore_patterns("*.tar", "train"))
    records = "s3://bucket/train-{00000..00003}-of-00004"
    with loader(found(data, "folder"), shuffle=False, last_batch="partial") as batches:
        expected = Counter(seen(batches))
    for passed, options, size in [
        ("s3://bucket/train", {}, None),
        (data["list"], {"file_root": "s3://bucket/train"}, 80),
        ("s3://bucket/train-{000..003}.tar", remote, None),
        ("s3://bucket/train-{000..003}.tar", local, 80),
        (records, {**remote, **fields}, None),
        (records, {**local, **fields}, 80),
        ("s3://bucket/train.rec", remote, None),
    ]:
        source = find_source(passed, **options)
        assert source.size == size
        with loader(source, initial_fill=8) as batches:
            assert Counter(seen(batches)) == expected, passed
    with pytest.raises((RuntimeError, ValueError), match=r"object=none\.rec"):
        loader(find_source("s3://bucket/none.rec", **remote))


def test_remote_shards_need_what_cannot_be_looked_up(data: dict[str, Any], tmp_path: Path) -> None:
    shards = "gs://bucket/train-{00000..00003}-of-00004"
    with pytest.raises(ValueError, match="`index_dir` of find_source must be given for tfrecord"):
        find_source(shards)
    with pytest.raises(ValueError, match="`fields` of find_source must be given for TFRecords"):
        find_source(shards, index_dir="gs://bucket/idx")
    with pytest.raises(FileNotFoundError, match=r"train-00000-of-00004\.idx"):
        find_source(shards, index_dir=tmp_path, fields=("a", "b"))
    with pytest.raises(ValueError, match="on this machine"):
        find_source("s3://bucket/train.txt")
    with pytest.raises(ValueError, match="on this machine"):
        sources.index(shards)
    source = find_source(shards, index_dir="gs://bucket/idx/", fields=("a", "b"))
    assert source.index_paths[3] == "gs://bucket/idx/train-00003-of-00004.idx"
    assert find_source("gs://bucket/{a,b}.tar").index_paths == ()
    assert find_source("s3://bucket/train/").num_classes is None
    (tmp_path / "l.txt").write_text("../a.jpg 0\n")
    for line in ("../a.jpg 0", "/a.jpg 0", "a/../../b.jpg 0"):
        (tmp_path / "l.txt").write_text(line)
        with pytest.raises(ValueError, match="line 1: must lie in 's3://bucket/train'"):
            find_source(tmp_path / "l.txt", file_root="s3://bucket/train")
    assert find_source(data["list"], file_root="gs://bucket/train").size == 80
