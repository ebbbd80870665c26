"""Stored maps: the file, its way into a loader, and the command that makes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import pipeline_def

import dali_cutmix as dcm
from dali_cutmix.cli import saliency as command
from dali_cutmix.cli.bench.peers import import_torchvision
from dali_cutmix.cli.main import main
from dali_cutmix.data import readers
from dali_cutmix.data.saliency import Unfinished, find_maps, follow, write_maps
from tests import reference
from tests.support import graphs

Array = graphs.Array
SNAPMIX = dcm.MixConfig(methods=(dcm.SnapMix(),))


def files_of(root: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in Path(root).glob("*/*.jpg"))


@pytest.fixture(scope="module")
def maps(photos: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Array]:
    """A file of maps of the photographs, in another order, with one more; and they by file."""
    files, rng = files_of(photos), np.random.default_rng(0)
    found = rng.integers(0, 256, (len(files), 5, 7), dtype=np.uint8)
    path = str(tmp_path_factory.mktemp("maps") / "maps.npy")
    order = rng.permutation(len(files))
    more = np.concatenate([found[order], found[:1]])
    write_maps(path, [*(files[k] for k in order), "other/ü b.jpg"], more)
    return path, found


# The file


def test_what_is_written_is_found_and_numpy_reads_it(maps: tuple[str, Array], photos: str) -> None:
    path, values = maps
    found, files = find_maps(path), files_of(photos)
    assert found.shape == (len(files) + 1, 5, 7)
    assert np.array_equal(np.load(path)[found.numbers(files)], values)
    assert found == find_maps(path)


def test_other_files_are_refused(tmp_path: Path, maps: tuple[str, Array]) -> None:
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        find_maps(tmp_path / "none.npy")
    with pytest.raises(TypeError, match="must be a file of maps"):
        find_maps(3)
    (tmp_path / "text").write_text("no maps")
    np.save(tmp_path / "floats.npy", np.zeros((2, 3, 3)))
    np.save(tmp_path / "bare.npy", np.zeros((2, 3, 3), np.uint8))
    for name in ("text", "floats.npy"):
        with pytest.raises(ValueError, match="as `dali-cutmix saliency` writes it"):
            find_maps(tmp_path / name)
    content = Path(maps[0]).read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-40])
    (tmp_path / "short.npy").write_bytes(content[:1000])
    for name in ("bare.npy", "cut.npy", "short.npy"):
        with pytest.raises(ValueError, match="must be a complete file of maps"):
            find_maps(tmp_path / name)
    with pytest.raises(ValueError, match="must have a map for each of the 2"):
        find_maps(maps[0]).numbers(["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match="`names` must be different"):
        write_maps(str(tmp_path / "x"), ["a", "a"], np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="`maps` must be uint8"):
        write_maps(str(tmp_path / "x"), ["a"], np.zeros((1, 3, 257), np.uint8))


def test_what_was_not_finished_is_gone_on_with(tmp_path: Path) -> None:
    path, made_by = str(tmp_path / "maps.npy"), {"model": "a"}
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    first = Unfinished(path, made_by)
    first.add(["a", "b"], values[:2])
    first.close()
    part = Path(f"{path}.part")
    part.write_bytes(part.read_bytes()[:-7])  # as a crash may leave it
    second = Unfinished(path, made_by)
    assert list(second.maps) == ["a"]
    second.add(["b", "c"], values[1:])
    second.close()
    with pytest.raises(ValueError, match="must be of the same model and options"):
        Unfinished(path, {"model": "b"})
    third = Unfinished(path, made_by)
    third.finish(["c", "a", "b"])
    assert not part.exists()
    assert np.array_equal(np.load(path), values[[2, 0, 1]])
    assert find_maps(path).numbers(["a", "b", "c"]) == [1, 2, 0]


# In a graph


@pytest.mark.parametrize("repeats", [1, 2])
def test_each_image_is_read_with_its_label_and_its_map(
    maps: tuple[str, Array], photos: str, repeats: int
) -> None:
    path, values = maps
    source, files = dcm.find_source(photos, saliency=path), files_of(photos)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None)
    def pipe() -> Any:
        return readers.read_with_maps(source, shuffle=True, seed=3, repeats=repeats)

    built, seen = pipe(), set()
    by_size = {os.path.getsize(os.path.join(photos, file)): k for k, file in enumerate(files)}
    assert len(by_size) == len(files)
    for _ in range(len(files) * repeats // 16):
        encoded, labels, found = built.run()
        for k in range(16):
            number = by_size[len(np.array(encoded[k]))]
            assert np.array_equal(np.array(found[k]), values[number])
            label = sorted(os.listdir(photos)).index(files[number].split("/")[0])
            assert np.array(labels[k]).item() == label
            seen.add(number)
    assert len(seen) > 40


def test_chosen_and_repeated_images_keep_their_maps(maps: tuple[str, Array], photos: str) -> None:
    path, values = maps
    files = files_of(photos)
    source = dcm.find_source(photos, saliency=path, subset=[5, 70, 5, 33])
    assert source.saliency is not None
    assert [files[k] for k in (5, 70, 5, 33)] == list(source.files)

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def pipe() -> Any:
        return readers.read_with_maps(source, shuffle=False)[2]

    (found,) = pipe().run()
    assert np.array_equal(found.as_array(), values[[5, 70, 5, 33]])


def test_targets_beyond_one_class_have_maps_too(maps: tuple[str, Array], photos: str) -> None:
    path, values = maps
    files, rng = files_of(photos), np.random.default_rng(0)
    rows = {file: rng.random(3).round(3).tolist() for file in files}
    source = dcm.find_source(photos, targets=rows, saliency=path)

    @pipeline_def(batch_size=len(files), num_threads=1, device_id=None)
    def pipe() -> Any:
        return readers.read_with_maps(source, shuffle=True, seed=1)[1:]

    targets, found = pipe().run()
    by_row = {tuple(np.float32(row).tolist()): k for k, row in enumerate(rows.values())}
    numbers = [by_row[tuple(row.tolist())] for row in targets.as_array()]
    assert sorted(numbers) == list(range(len(files)))
    assert np.array_equal(found.as_array(), values[numbers])


def test_maps_follow_crop_and_flip() -> None:
    # Of a map that is linear along both axes each cell is known: where its middle was.
    count, rng = 256, np.random.default_rng(0)
    rows, columns = np.mgrid[:12, :10]
    area = (rows * 3 + columns * 7).astype(np.uint8)
    whole = rng.integers(20, 60, (count, 2)).astype(np.int32)
    ends = np.sort(rng.random((count, 2, 2)) * 0.6 + 0.2, axis=1) * whole[:, None]
    start, shape = ends[:, 0].astype(np.int64), (ends[:, 1] - ends[:, 0]).astype(np.int64) + 1
    width = rng.choice([-30.0, 30.0], count).astype(np.float32)

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def pipe() -> Any:
        fed = (graphs.feed(x) for x in (np.stack([area] * count), start, shape, whole, width))
        return follow(*fed)

    (found,) = pipe().run()
    for k, out in enumerate(found.as_array()):
        assert out.shape == (12, 10)
        y, x = (
            (start[k, a] + (np.arange(n) + 0.5) * shape[k, a] / n) * n / whole[k, a] - 0.5
            for a, n in enumerate((12, 10))
        )
        expected = 3 * y[:, None] + 7 * x[None]
        assert np.abs(out - (expected if width[k] > 0 else expected[:, ::-1])).max() < 1e-2


def test_a_loader_mixes_by_them_and_resumes_bit_for_bit(
    maps: tuple[str, Array], photos: str
) -> None:
    mix = dcm.MixConfig(methods=(dcm.SnapMix(), dcm.SaliencyMix(), dcm.AttentiveMix()))
    options: dict[str, Any] = {"batch_size": 16, "size": 32, "device": "cpu", "saliency": maps[0]}
    with dcm.train_loader(photos, mix=mix, **options) as loader:
        first = list(loader)
        assert any((targets.sum(dim=1) - 1).abs().max() > 0.01 for _, targets in first)
        passed = iter(loader)
        next(passed)
        state, expected = loader.state_dict(), next(passed)
    with dcm.train_loader(photos, mix=mix, **options) as loader:
        for _ in range(2):
            loader.load_state_dict(state)
            images, targets = next(iter(loader))
            assert torch.equal(images, expected[0])
            assert torch.equal(targets, expected[1])
            loader.seek(1, 1)  # computed, or a warning would tell
    other = np.array(np.load(maps[0]))
    path = f"{maps[0]}.other"
    write_maps(path, [*files_of(photos), "x"], other)
    with (
        dcm.train_loader(photos, mix=mix, **{**options, "saliency": path}) as loader,
        pytest.raises(ValueError, match="source"),
    ):
        loader.load_state_dict(state)


@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_snapmix_weighs_by_the_map_as_it_was_cropped_and_mirrored(
    hflip: float, tmp_path: Path
) -> None:
    # All mass in the left column, and a crop that is the whole image.
    root, path = tmp_path / "images", str(tmp_path / "maps.npy")
    root.mkdir()
    graphs.numbered_folder(root, 16, (32, 32))
    area = np.zeros((4, 4), np.uint8)
    area[:, 0] = 255
    write_maps(path, files_of(str(root)), np.stack([area] * 16))
    crop: dict[str, Any] = {"area": (1, 1), "ratio": (1, 1), "hflip": hflip}
    options: dict[str, Any] = {"batch_size": 16, "size": 32, "device": "cpu", "with_params": True}
    area = area[:, ::-1] if hflip else area
    seen = set()
    with dcm.train_loader(root, mix=SNAPMIX, saliency=path, **crop, **options) as loader:
        for _ in range(8):
            for _, (_, lam, box, *_) in loader:
                for share, one in zip(lam.tolist(), box.tolist(), strict=True):
                    covered = reference.mass_in(area, tuple(one), (32, 32))
                    assert share == pytest.approx(1 - (covered or 0), abs=1e-5)
                    seen.add(share)
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": SNAPMIX}, "`saliency` must be given where `mix` has SnapMix"),
        ({"mix": None, "saliency": "maps"}, "`saliency` must be left out where `mix` is None"),
        ({"mix": dcm.MixConfig(), "saliency": "maps"}, "must be left out unless `mix` has"),
    ],
)
def test_what_a_loader_refuses(
    photos: str, maps: tuple[str, Array], options: dict[str, Any], message: str
) -> None:
    if "saliency" in options:
        options = {**options, "saliency": maps[0]}
    with pytest.raises(ValueError, match=message):
        dcm.train_loader(photos, batch_size=16, device="cpu", **options)


# The command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a small model of timm, of the five classes of the photographs."""
    import_torchvision()
    timm = pytest.importorskip("timm", reason="the extra `peers` is not installed")

    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("model") / "model.pth")
    torch.save(timm.create_model("test_resnet", num_classes=5).state_dict(), path)
    return path


def test_the_command_stores_maps_and_goes_on_after_a_crash(
    photos: str, checkpoint: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    out, files = str(tmp_path / "maps.npy"), files_of(photos)
    call = ["saliency", photos, "--model", "test_resnet", "--checkpoint", checkpoint, "--side", "7"]
    call += ["--num-classes", "5", "--device", "cpu", "--batch-size", "24", "--json", "--out"]
    assert main([*call, out]) == 0
    assert json.loads(capsys.readouterr().out) == {"maps": len(files), "out": out}
    whole = np.load(out)[find_maps(out).numbers(files)]
    assert whole.shape == (len(files), 7, 7)
    assert (whole.min(axis=(1, 2)) == 0).all()
    assert (whole.max(axis=(1, 2)) == 255).all()

    made, again = [], str(tmp_path / "again.npy")
    maps_of = command.maps_of

    def crashing(*args: Any) -> Array:
        made.append(len(args[1]))
        if len(made) == 3:
            raise KeyboardInterrupt
        return maps_of(*args)

    monkeypatch.setattr(command, "maps_of", crashing)
    assert main([*call, again]) == 130
    assert not os.path.exists(again)
    assert main([*call, again]) == 0
    assert sum(made[3:]) == len(files) - 48
    assert np.array_equal(np.load(again)[find_maps(again).numbers(files)], whole)


def test_a_cam_is_what_each_place_adds_to_the_score(checkpoint: str) -> None:
    # Its mean is the score of the class, without the bias; of another number of classes it is that
    # of the class that the model finds.
    model = command.load_model("test_resnet", checkpoint, 5, "cpu")
    images = torch.rand(4, 3, 64, 96)
    labels = torch.tensor([0, 1, 4, 2])
    with torch.no_grad():
        features = model.forward_features(images)
        scores = model.forward_head(features)
    weights = model.get_classifier().weight
    for known, classes in ((5, labels), (7, scores.argmax(dim=1))):
        maps = command.maps_of(model, images, labels, "cam", 8, known)
        cam = torch.einsum("nchw,nc->nhw", features, weights[classes])
        bias = model.get_classifier().bias[classes]
        score = scores.gather(1, classes[:, None])[:, 0]
        assert torch.allclose(cam.mean(dim=(1, 2)) + bias, score, atol=1e-4)
        large = torch.nn.functional.interpolate(cam[:, None], size=(8, 8), mode="bilinear")[:, 0]
        for found, one in zip(maps, large.detach().numpy(), strict=True):
            assert np.corrcoef(found.ravel(), one.ravel())[0, 1] > 0.999


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_transformers_have_maps(name: str) -> None:
    import timm

    torch.manual_seed(0)
    small = {"embed_dim": 12, "depths": (1,) * 4, "num_heads": (1,) * 4} if "swin" in name else {}
    model = timm.create_model(name, num_classes=5, **small).eval()
    side = model.pretrained_cfg["input_size"][-1]
    images, labels = torch.rand(2, 3, side, side), torch.tensor([0, 3])
    for kind in command.KINDS:
        assert command.maps_of(model, images, labels, kind, 14, 5).shape == (2, 14, 14)


@pytest.mark.usefixtures("checkpoint")
def test_what_the_command_refuses(photos: str, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "maps.npy")
    assert main(["saliency", photos, "--model", "no_such_model", "--out", out]) == 1
    assert "`model` must be one of timm's" in capsys.readouterr().err
    assert main(["saliency", photos, "--out", str(tmp_path / "none" / "maps.npy")]) == 1
    assert "`out` must be in an existing folder" in capsys.readouterr().err
