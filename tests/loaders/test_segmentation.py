"""Images and masks arrive together: cropped, flipped, resized and mixed alike."""

from __future__ import annotations

import os
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli.main import main
from dali_cutmix.data.masks import Masks, fault_of
from dali_cutmix.data.verification import verify

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
COUNT, CLASSES, STEP = 40, 5, 6
SMALL: dict[str, Any] = {
    **{"batch_size": 20, "size": 32, "device": "cpu", "num_threads": 2},
    **{"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}


def painted(mask: np.ndarray[Any, Any], number: int) -> Image.Image:
    """An image whose red is 50 times the class, and whose green is STEP times its number."""
    return Image.fromarray(
        np.stack([mask * 50, np.full_like(mask, number * STEP), mask * 0], axis=2).astype(np.uint8)
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ and masks/ of 40 samples of 60 x 80, half of them in folders inside."""
    root = tmp_path_factory.mktemp("segmentation")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        name = f"{'deep/er/' if number % 2 else ''}{number}.png"
        mask = rng.integers(0, CLASSES, (6, 8), np.uint8).repeat(10, 0).repeat(10, 1)
        for folder, image in (("images", painted(mask, number)), ("masks", Image.fromarray(mask))):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(root / folder / name)
    return root


def agreement(images: torch.Tensor, masks: torch.Tensor) -> float:
    """The share of pixels whose red says the class of the mask; edges are smooth in images."""
    classes = images[:, 0].float().cpu() * 255 / 50
    return float(((classes - masks.cpu()).abs() < 0.5).float().mean())


MIXES = {
    "none": (None, {}),
    "CutMix": (dcm.MixConfig(), {}),
    "pairs": (dcm.MixConfig(mode="pair", partner="flip"), {}),
    "ResizeMix": (dcm.MixConfig(methods=(dcm.ResizeMix(),)), {}),
    "ObjectCutMix": (dcm.MixConfig(methods=(dcm.ObjectCutMix(classes=(1, 2)),)), {}),
    "Mosaic": (dcm.MixConfig(methods=(dcm.Mosaic(),)), {}),
    "GridMix": (dcm.MixConfig(methods=(dcm.GridMix(holes=3),)), {}),
    "FMix": (dcm.MixConfig(methods=(dcm.FMix(fields=2),)), {}),
    "SmoothMix": (dcm.MixConfig(methods=(dcm.SmoothMix(),)), {"blend": "heavier"}),
    "MixUp": (dcm.MixConfig(cutmix_alpha=0, mixup_alpha=0.4), {"blend": "heavier"}),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", MIXES)
def test_masks_go_with_their_images(case: str, device: str, root: Path) -> None:
    mix, options = MIXES[case]
    loader = dcm.segmentation_loader(
        root / "images", root / "masks", mix=mix, **{**SMALL, **options, "device": device}
    )
    mixed = 0
    with loader:
        for _ in range(3):
            for images, masks in loader:
                assert images.shape == (20, 3, 32, 32)
                assert (masks.shape, masks.dtype) == ((20, 32, 32), torch.int64)
                assert set(masks.unique().tolist()) <= set(range(CLASSES))
                shares = agreement(images, masks)
                assert shares > (0.6 if case in ("MixUp", "SmoothMix") else 0.85)
                assert agreement(images, masks.roll(1, 0)) < 0.5  # it can fail
                # Of two sources an image has two greens.
                greens = [len((x[1].cpu() * 255 / STEP).round().unique()) for x in images]
                mixed += sum(count > 1 for count in greens)
    assert (mixed > 20) == (mix is not None and case != "MixUp")


@pytest.mark.parametrize("device", DEVICES)
def test_validation_is_exact_and_in_order(device: str, root: Path) -> None:
    options = {**SMALL, "size": (60, 80), "resize": 80, "batch_size": 8, "device": device}
    with pytest.raises(ValueError, match="`resize` must be at least `size`"):
        dcm.segmentation_loader(
            root / "images", root / "masks", training=False, **{**options, "resize": 60}
        )
    options |= {"size": 60, "resize": 60}
    numbers = []
    loader = dcm.segmentation_loader(root / "images", root / "masks", training=False, **options)
    with loader:
        for _ in range(2):
            for images, masks in loader:
                classes = (images[:, 0] * 255 / 50).round()
                assert torch.equal(classes.long().cpu(), masks.cpu())
                numbers += (images[:, 1, 0, 0] * 255 / STEP).round().tolist()
    order = [
        Path(path).stem for path in dcm.find_source(root / "images", masks=root / "masks").files
    ]
    assert numbers == [float(stem) for stem in order] * 2


def test_masks_are_cut_where_their_images_are(tmp_path: Path) -> None:
    """The mask of each pixel is its number, and so is its colour: every pixel can be found."""
    y, x = np.mgrid[:90, :110]
    for number in range(4):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.stack([y, x, y * 0 + number], 2).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
        deep = (y * 256 + x).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / "masks" / f"{number}.png")
    options = {**SMALL, "batch_size": 4, "size": 64, "area": (0.3, 0.5)}
    loader = dcm.segmentation_loader(tmp_path / "images", tmp_path / "masks", **options)
    mirrored = set()
    with loader:
        for _ in range(10):
            ((images, masks),) = loader
            levels = images * 255
            for plane, of_mask in ((0, masks // 256), (1, masks % 256)):
                # Half a pixel of the source, which is at most as large as the crop's by the size.
                assert (levels[:, plane] - of_mask).abs().max() <= 1.0
            mirrored |= {bool(one[0, 0, -1] % 256 < one[0, 0, 0] % 256) for one in masks[:, None]}
    assert mirrored == {True, False}


@pytest.mark.parametrize("methods", [(), (dcm.ObjectCutMix(),)], ids=["CutMix", "ObjectCutMix"])
def test_the_stream_is_shared_seeded_and_resumed(root: Path, methods: Any) -> None:
    def batches(loader: dcm.Loader, epochs: int = 1) -> list[Any]:
        return [[x.clone() for x in batch] for _ in range(epochs) for batch in loader]

    def same(a: list[Any], b: list[Any]) -> bool:
        pairs = zip(chain(*a), chain(*b), strict=True)
        return len(a) == len(b) and all(torch.equal(x, y) for x, y in pairs)

    mix = dcm.MixConfig(methods=methods)
    options = {**SMALL, "mix": mix, "switchable": True, "seed": 3}
    paths = root / "images", root / "masks"
    with dcm.segmentation_loader(*paths, **options) as loader:
        assert len(loader) == 2
        whole = batches(loader, 3)
        state = loader.state_dict()
        rest = batches(loader)
        loader.seek(1, 1)
        assert same(batches(loader), whole[3:4])
    with dcm.segmentation_loader(*paths, **options) as loader:
        loader.load_state_dict(state)
        assert same(batches(loader), rest)
        loader.mixing = False
        batches(loader)
        for images, _ in loader:
            assert all(len((x[1] * 255 / STEP).round().unique()) == 1 for x in images)
    with dcm.segmentation_loader(*paths, **{**options, "seed": 4}) as other:
        assert not same(batches(other), whole[:2])
        with pytest.raises(ValueError, match="same options and data"):
            other.load_state_dict(state)
    seen: list[float] = []
    for shard_id in (0, 1):
        shard = {"shard_id": shard_id, "num_shards": 2, "mix": None, "switchable": False}
        with dcm.segmentation_loader(*paths, **{**options, **shard}) as loader:
            seen += [float(x[1, 0, 0] * 255 / STEP) for images, _ in loader for x in images]
    assert sorted(round(number) for number in seen) == list(range(COUNT))


def test_subsets_lists_and_paths(root: Path) -> None:
    source = dcm.find_source(root / "images", masks=root / "masks", subset=[3, 1, 1])
    options = {**SMALL, "size": 60, "training": False}
    with dcm.segmentation_loader(source, **options) as loader:
        ((images, _),) = loader
    found = (images[:, 1, 0, 0] * 255 / STEP).round().tolist()
    assert [f"{round(number)}" for number in found] == [Path(f).stem for f in source.files]
    split = root / "images" / "split.txt"
    split.write_text("deep/er/1.png\n4.png\n")
    paths = [root / "images" / "deep" / "er" / "1.png", root / "images" / "4.png"]
    for images_given in (split, paths):
        with dcm.segmentation_loader(images_given, root / "masks", **options) as loader:
            ((images, _),) = loader
            assert (images[:, 1, 0, 0] * 255 / STEP).round().tolist() == [1.0, 4.0]
    split.unlink()


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to / "copy")
    return to / "copy"


def test_names_that_differ(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    for folder, end in (("images", "_leftImg8bit.png"), ("masks", "_gtFine_labelIds.png")):
        for path in (other / folder).rglob("*.png"):
            path.rename(path.with_name(path.stem + end))
    paths = other / "images", other / "masks"
    with pytest.raises(FileNotFoundError, match=r"lacks 40: .*it has .*`mask_names` says how"):
        dcm.segmentation_loader(*paths, **SMALL)
    names = ("_leftImg8bit.png", "_gtFine_labelIds.png")
    options = {**SMALL, "size": 60, "training": False}
    with dcm.segmentation_loader(*paths, mask_names=names, **options) as loader:
        for images, masks in loader:
            assert agreement(images, masks) == 1
    with pytest.raises(ValueError, match="`mask_names` must end every image, '"):
        dcm.segmentation_loader(*paths, mask_names=("_other.png", "x.png"), **SMALL)


def damage(root: Path, case: str, name: str = "0.png") -> str:
    """Makes a fault, and returns a part of the words that must name it."""
    first = root / "masks" / name
    mask = Image.fromarray(np.asarray(Image.open(first)))
    if case == "missing":
        first.unlink()
        return "lacks 1: '0.png'"
    if case == "another size":
        mask.resize((40, 30)).save(first)
        return r"must be as large as its image, \(80, 60\), got \(40, 30\)"
    if case == "a palette":
        palette = Image.fromarray(np.asarray(mask), "P")
        palette.putpalette([50, 0, 0, 0, 50, 0] * 128)
        palette.save(first)
        return "must be gray, got a palette"
    if case == "colours":
        mask.convert("RGB").save(first)
        return "must be gray, of 8 or 16 bits, .* got mode 'RGB'"
    if case == "one bit":
        mask.convert("1").save(first)
        return "got mode '1' of 1 bits"
    if case == "16 bits":
        Image.fromarray(np.asarray(mask).astype(np.uint16)).save(first)
        return "must all have 8 bits, or all 16"
    first.write_bytes(first.read_bytes()[:40])
    return "cannot be read"


CASES = ["missing", "another size", "a palette", "colours", "one bit", "16 bits", "cut short"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_a_mask_is_said(case: str, root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    words = damage(other, case)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        dcm.segmentation_loader(other / "images", other / "masks", **SMALL)


def test_masks_without_an_image_are_named(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    (other / "images" / "0.png").unlink()
    with pytest.warns(UserWarning, match=r"1 mask\(s\) of .* belong to no image: '0.png'"):
        dcm.find_source(other / "images", masks=other / "masks")


@pytest.mark.parametrize("device", DEVICES)
def test_a_wrong_mask_among_many_is_named_or_left_out(
    device: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("dali_cutmix.data.sources._MASKS_LOOKED_AT", 1)
    other = copied(root, tmp_path)
    file, high = root_names(other)[7:9]
    wrong = other / "masks" / file
    Image.open(wrong).resize((30, 30)).save(wrong)
    paths = other / "images", other / "masks"
    options = {**SMALL, "batch_size": 40, "device": device}
    with pytest.raises(ValueError, match=f"Every mask must be as large as its image.*{file}"):
        dcm.segmentation_loader(*paths, **options)
    Image.fromarray(np.full((60, 80), 9, np.uint8)).save(other / "masks" / high)
    options |= {"batch_size": COUNT - 2, "num_classes": CLASSES}
    with pytest.warns(UserWarning, match="2 of 40 samples are left out"):
        loader = dcm.segmentation_loader(*paths, on_error="skip", **options)
    with loader:
        assert loader.skipped == (f"{file} (mask)", f"{high} (mask)")
        ((_, found),) = loader
        assert int(found.max()) < CLASSES


def root_names(root: Path) -> list[str]:
    return list(dcm.find_source(root / "images", masks=root / "masks").files)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", ["a palette", "colours", "one bit", "16 bits"])
def test_a_mask_of_another_kind_among_many_is_named(
    case: str, device: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dali_cutmix.data.sources._MASKS_LOOKED_AT", 1)
    other = copied(root, tmp_path)
    damage(other, case, "4.png")  # which is not the first one
    with pytest.raises(ValueError, match=r"Every mask must be gray, .*masks/4\.png"):
        dcm.segmentation_loader(
            other / "images", other / "masks", **{**SMALL, "batch_size": 40, "device": device}
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_a_value_that_is_no_class_is_named(
    bits: Any, training: bool, device: str, root: Path, tmp_path: Path
) -> None:
    other = copied(root, tmp_path)
    for path in (other / "masks").rglob("*.png"):
        mask = np.asarray(Image.open(path)).astype(bits)
        mask[0] = 200  # of no class
        Image.fromarray(mask).save(path)
    mask[:, 5] = CLASSES
    wrong = root_names(other)[9]
    paths = other / "images", other / "masks"
    options = {**SMALL, "area": (1, 1), "batch_size": 40, "device": device}
    options |= {"size": 80, "training": training, "ignore_index": 200, "num_classes": CLASSES}
    if not training:
        del options["area"]
    with dcm.segmentation_loader(*paths, **options) as loader:
        ((_, masks),) = loader
        assert {*masks.unique().tolist()} == {*range(CLASSES), 200}
    Image.fromarray(mask).save(other / "masks" / wrong)
    with pytest.raises(ValueError, match=f"class indices below `num_classes`, or .*{wrong}"):
        dcm.segmentation_loader(*paths, **options)
    with dcm.segmentation_loader(*paths, **{**options, "num_classes": CLASSES + 1}):
        pass


def test_masks_of_formats_that_change_values_are_refused(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    for path in (other / "masks").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(ValueError, match=r"of a format that keeps values, such as PNG, got '.jpg'"):
        dcm.segmentation_loader(other / "images", other / "masks", **SMALL)


def test_images_turned_by_exif_are_told(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    for path in (other / "images").rglob("*.png"):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 3
        image.rotate(180).save(path, exif=exif)
    with pytest.warns(UserWarning, match="images are turned upright as their EXIF tag says"):
        loader = dcm.segmentation_loader(
            other / "images", other / "masks", training=False, **{**SMALL, "size": 60}
        )
    with loader:
        for images, masks in loader:
            assert agreement(images, masks) == 1


def test_two_images_of_one_mask_are_refused(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    shutil.copy(other / "images" / "0.png", other / "images" / "0.bmp")
    with pytest.raises(ValueError, match=r"a mask for each image, got .*0.png' for '0.bmp' and"):
        dcm.find_source(other / "images", masks=other / "masks")


def test_names_beyond_ascii(root: Path, tmp_path: Path) -> None:
    other = copied(root, tmp_path)
    for folder, end in (("images", "_größe.png"), ("masks", "_fläche.png")):
        for path in (other / folder).rglob("*.png"):
            path.rename(path.with_name(f"ß{path.stem}{end}"))
    options = {**SMALL, "size": 60, "training": False, "mask_names": ("_größe.png", "_fläche.png")}
    with dcm.segmentation_loader(other / "images", other / "masks", **options) as loader:
        for images, masks in loader:
            assert agreement(images, masks) == 1


@pytest.mark.parametrize("case", CASES)
def test_any_wrong_mask_is_left_out_where_that_is_asked_for(
    case: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = copied(root, tmp_path)
    damage(other, case)
    with pytest.warns(UserWarning, match=r"1 of 40 samples are left out: 0.png \(mask\)"):
        loader = dcm.segmentation_loader(
            other / "images", other / "masks", on_error="skip", **SMALL
        )
    with loader:
        assert loader.num_images == COUNT - 1


def test_every_shard_has_the_same_validation_batches(root: Path) -> None:
    source = dcm.find_source(root / "images", masks=root / "masks", subset=range(5))
    options = {**SMALL, "size": 60, "training": False, "batch_size": 2, "num_shards": 2}
    lengths, ignored = [], 0
    for shard_id in (0, 1):
        with dcm.segmentation_loader(source, shard_id=shard_id, **options) as loader:
            batches = [masks for _, masks in loader]
        lengths.append([len(masks) for masks in batches])
        ignored += sum(int((one == 255).all()) for masks in batches for one in masks)
    assert lengths == [[2, 1], [2, 1]]
    assert ignored == 1
    with dcm.segmentation_loader(source, shard_id=0, even=False, **options) as loader:
        assert len(loader) == 1


def test_check_judges_masks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = copied(root, tmp_path)
    arguments = ["check", str(other / "images"), "--masks", str(other / "masks")]
    assert main([*arguments, "--num-classes", "5"]) == 0
    assert "no problems" in capsys.readouterr().out
    Image.fromarray(np.full((60, 80), 9, np.uint8)).save(other / "masks" / "4.png")
    assert main([*arguments, "--num-classes", "5"]) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "1 mask: has a mask that cannot be used" in out
    assert "must have values below 5, or 255, got 9" in out
    assert main([*arguments, "--num-classes", "5", "--ignore-index", "9"]) == 0


def test_the_verdict_of_a_mask(root: Path) -> None:
    masks = Masks(str(root / "masks"), ((4, ".png"),), num_classes=5)
    image, mask = str(root / "images" / "0.png"), str(root / "masks" / "0.png")
    assert fault_of(image, mask, masks) is None
    assert fault_of(image, mask, masks._replace(num_classes=2)) is not None
    assert fault_of(image, mask + "x", masks) == "is not there"
    assert "of the type" in str(fault_of(image, mask, masks._replace(dtype="uint16")))


def test_verification_of_masks_notices_a_changed_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = copied(root, tmp_path)
    source = dcm.find_source(other / "images", masks=other / "masks")
    assert not verify(source).problems
    assert verify(source).scanned == 0
    os.truncate(other / "masks" / "4.png", 50)
    again = verify(source)
    assert [(f.name, f.problem) for f in again.problems] == [("4.png", "mask")]
    assert again.scanned == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mix": dcm.MixConfig(mixup_alpha=0.2)}, '`blend` must be "heavier" where `mix` has MixUp'),
    ({"mix": 0.5}, "`mix` must be a MixConfig or None"),
    ({"switchable": True}, "`switchable` must be False where `mix` is None"),
    ({"training": False, "mix": dcm.MixConfig()}, "must be left out with `training=False`"),
    ({"resize": 40}, "`resize` must be left out for training"),
    ({"area": (0.5, 2.0)}, r"`area` must be within \(0, 1\]"),
    ({"ratio": (2.0, 1.0)}, r"`ratio` must be \(low, high\)"),
    ({"std": (0.0, 1.0, 1.0)}, "`std` must be above 0"),
    ({"blend": "mean"}, '`blend` must be one of "refuse", "heavier"'),
    ({"num_classes": 0}, "`num_classes` must be at least 1"),
    ({"classes": ["a", "b"], "num_classes": 3}, "`num_classes` must be that of `classes`"),
    ({"ignore_index": -1}, "`ignore_index` must be at least 0"),
    ({"batch_size": 41}, "`batch_size` must be at most the 40 images"),
    ({"mask_names": ("a",)}, "`mask_names` must be two ends of names"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_arguments_are_refused(options: dict[str, Any], words: str, root: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        dcm.segmentation_loader(root / "images", root / "masks", **{**SMALL, **options})


def test_wrong_sources_are_refused(root: Path) -> None:
    with pytest.raises(TypeError, match="`masks` must be given with `images`"):
        dcm.segmentation_loader(root / "images", **SMALL)
    with pytest.raises(FileNotFoundError, match="`masks` must be an existing folder"):
        dcm.segmentation_loader(root / "images", root / "nothing", **SMALL)
    source = dcm.find_source([(root / "images" / "0.png", 0)])
    with pytest.raises(ValueError, match="must be a source with masks"):
        dcm.segmentation_loader(source, **SMALL)
    with pytest.raises(ValueError, match="`weights` must be numbers with `masks`"):
        dcm.find_source(root / "images", masks=root / "masks", weights="balanced")
    source = dcm.find_source(root / "images", masks=root / "masks")
    with pytest.raises(ValueError, match="`masks` must be given to find_source"):
        dcm.segmentation_loader(source, root / "masks", **SMALL)
    with pytest.raises(ValueError, match="`source` has masks, which segmentation_loader reads"):
        dcm.train_loader(source, batch_size=4, size=8, device="cpu")
