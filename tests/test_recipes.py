"""The published recipes: their numbers, that every one runs, and that arguments go before them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, pipeline_def
from PIL import Image, ImageOps

import dali_cutmix as dcm
from dali_cutmix import recipes
from dali_cutmix.pipelines import imagenet
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

# Read from the papers and their code a second time, not from recipes.py: mixup alpha, smoothing (of
# targets, in the loss), mode, partner, policies, erasing, repeats, size, validation, interpolation
# of both, loss, threshold, epochs, batch, optimiser, rate, decay, warm-up.
RAND = {
    m: dcm.RandAugment(magnitude=m, magnitude_std=0.5, prob=0.5, interpolation="bicubic")
    for m in (6, 7, 9)
}
JITTER = {b: dcm.ColorJitter(brightness=b, contrast=b, saturation=b) for b in (0.3, 0.4)}
PIXEL = dcm.RandomErasing(prob=0.25, mode="pixel")
CONST = dcm.RandomErasing(prob=0.1, mode="const", area=(0.02, 0.33), ratio=(0.3, 3.3))
TIMM, ONE = ("batch", "flip", "paper"), ("batch", "permutation", "paper")
ROLL, CUBIC, LINEAR = ("batch", "roll", "torchvision"), ("bicubic",) * 2, ("bilinear",) * 2
TABLE: dict[str, tuple[Any, ...]] = {
    "resizemix": (
        *(0.0, 0.0, 0.0, ONE, (), None, 1, 224, (256, 224)),
        *(LINEAR, "ce", None, 300, 512, "sgd", 0.5, 4e-5, 0),
    ),
    "cmo-imagenet-lt": (
        *(0.0, 0.0, 0.0, ONE, (JITTER[0.4],), None, 1, 224, (256, 224)),
        *(LINEAR, "ce", None, 100, 128, "sgd", 0.1, 2e-4, 5),
    ),
    "cutmix-paper": (
        *(0.0, 0.0, 0.0, ONE, (JITTER[0.4], dcm.Lighting(std=0.1)), None, 1, 224, (256, 224)),
        *(LINEAR, "ce", None, 300, 256, "nesterov", 0.1, 1e-4, 0),
    ),
    "rsb-a1": (
        *(0.2, 0.1, 0.0, TIMM, (RAND[7],), None, 3, 224, (235, 224)),
        *(CUBIC, "bce", 0.2, 600, 2048, "lamb", 5e-3, 0.01, 5),
    ),
    "rsb-a2": (
        *(0.1, 0.0, 0.0, TIMM, (RAND[7],), None, 3, 224, (235, 224)),
        *(CUBIC, "bce", 0.2, 300, 2048, "lamb", 5e-3, 0.02, 5),
    ),
    "rsb-a3": (
        *(0.1, 0.0, 0.0, TIMM, (RAND[6],), None, 1, 160, (235, 224)),
        *(CUBIC, "bce", 0.2, 100, 2048, "lamb", 8e-3, 0.02, 5),
    ),
    "deit": (
        *(0.8, 0.1, 0.0, TIMM, (RAND[9],), PIXEL, 3, 224, (256, 224)),
        *(CUBIC, "ce", None, 300, 1024, "adamw", 1e-3, 0.05, 5),
    ),
    "deit3-s": (
        *(0.8, 0.0, 0.0, TIMM, (dcm.ThreeAugment(), JITTER[0.3]), None, 3, 224, (224, 224)),
        *(CUBIC, "bce", 0.0, 800, 2048, "lamb", 4e-3, 0.05, 5),
    ),
    "swin-t": (
        *(0.8, 0.1, 0.0, TIMM, (RAND[9],), PIXEL, 1, 224, (256, 224)),
        *(CUBIC, "ce", None, 300, 1024, "adamw", 1e-3, 0.05, 20),
    ),
    "convnext-t": (
        *(0.8, 0.1, 0.0, TIMM, (RAND[9],), PIXEL, 1, 224, (256, 224)),
        *(CUBIC, "ce", None, 300, 4096, "adamw", 4e-3, 0.05, 20),
    ),
    "torchvision-v2": (
        *(0.2, 0.0, 0.1, ROLL, (dcm.TrivialAugmentWide(),), CONST, 4, 176, (232, 224)),
        *(LINEAR, "ce", None, 600, 1024, "sgd", 0.5, 2e-5, 5),
    ),
}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_numbers_are_those_of_the_papers(name: str) -> None:
    r = recipes.get(name)
    assert r.mix is not None
    assert TABLE[name] == (
        *(r.mix.mixup_alpha, r.mix.label_smoothing, r.loss_smoothing),
        (r.mix.mode, r.mix.partner, r.mix.box),
        *(r.augment, r.erase, r.repeats, r.size, (r.val_resize, r.val_size)),
        (r.interpolation, r.val_interpolation),
        *(r.loss, r.target_threshold, r.epochs, r.batch_size, r.optimizer, r.lr),
        *(r.weight_decay, r.warmup_epochs),
    )
    # What all have in common.
    assert (r.mix.cutmix_alpha, r.mix.switch_prob) == (1.0, 0.5)
    assert r.mix.prob == (0.5 if name == "cmo-imagenet-lt" else 1.0)
    assert r.mix.methods == ((dcm.ResizeMix(scope=(0.1, 0.8)),) if name == "resizemix" else ())
    tail = ("tail", 1.0, (4, 3), (60, 80)) if name == "cmo-imagenet-lt" else (None, 1.0, (0, 0), ())
    assert (r.partners, r.tail_alpha, r.unmixed_epochs, r.steps) == tail
    assert (r.mix.correct_lam, r.mix.minmax, r.mix.targets) == (True, None, "soft")
    assert (r.area, r.ratio, r.hflip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (r.mean, r.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not r.erase_after_mix


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=recipes.RECIPES)
def test_every_number_that_is_used_has_a_source(recipe: dcm.Recipe) -> None:
    unused = {"erase", "erase_after_mix"} if recipe.erase is None else set()
    for field in dataclasses.fields(recipe):
        if field.name in {"name", "title", "sources"} | unused:
            continue
        value = getattr(recipe, field.name)
        if field.name == "tail_alpha" and recipe.partners is None:
            continue
        if value in (None, 0.0, (), (0, 0)) and field.name not in recipe.sources:
            continue  # not part of this recipe
        assert len(recipe.sources[field.name]) > 5, field.name


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_runs(name: str, photos: str, device: Any) -> None:
    r = recipes.get(name)
    with dcm.train_loader(photos, batch_size=16, recipe=name, device=device) as train:
        images, targets = next(iter(train))
    assert images.shape == (16, 3, r.size, r.size)
    assert images.dtype == targets.dtype == torch.float32
    assert targets.shape == (16, 5)
    assert (targets.sum(dim=1) - 1).abs().max() < 1e-5
    assert r.mix is not None
    assert (targets.amin(dim=1) - r.mix.label_smoothing / 5).abs().max() < 1e-6
    assert images.std(dim=(1, 2, 3)).min() > 0.1
    assert len(images.flatten(1).unique(dim=0)) == 16
    with dcm.val_loader(photos, batch_size=16, recipe=name, device=device) as val:
        images, labels = next(iter(val))
    assert images.shape == (16, 3, 224, 224)
    assert labels.dtype == torch.int64
    assert val._options["resize"] == r.val_resize


@pytest.fixture(scope="module")
def lossless(photos: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The photographs, 64 x 64, as PNGs: every decoder gives the same pixels of them."""
    root = tmp_path_factory.mktemp("lossless")
    for path in sorted(Path(photos).glob("*/*.jpg")):
        (root / path.parent.name).mkdir(exist_ok=True)
        with Image.open(path) as photo:
            small = ImageOps.fit(photo, (64, 64), Image.Resampling.BICUBIC)
        small.save(root / path.parent.name / f"{path.stem}.png")
    return str(root)


def with_warps(recipe: dcm.Recipe, interpolation: Any) -> dcm.Recipe:
    """The recipe with another interpolation of RandAugment's warps."""
    policies = [
        dataclasses.replace(policy, interpolation=interpolation)
        if isinstance(policy, dcm.RandAugment)
        else policy
        for policy in recipe.augment
    ]
    return dataclasses.replace(recipe, augment=tuple(policies))


def levels_apart(root: str, recipe: dcm.Recipe, **options: Any) -> Array:
    """By how much of 255 the images of two batches differ on the two devices; targets agree."""
    found = []
    options = {"batch_size": 16, "recipe": recipe, "size": 64, "seed": 6, **options}
    with (
        dcm.train_loader(root, device="cpu", **options) as cpu,
        dcm.train_loader(root, device="gpu", **options) as gpu,
    ):
        both = itertools.islice(zip(cpu, gpu, strict=True), 2)
        for (images, targets), (others, same) in both:
            assert (targets - same.cpu()).abs().max() < 1e-6
            apart = (images.float() - others.cpu().float()).abs()
            found.append(255 * apart * torch.tensor(recipe.std)[:, None, None])
    return torch.cat(found).numpy()


@pytest.mark.gpu
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_gpu_agrees_with_the_cpu(name: str, lossless: str) -> None:
    # All is drawn and done alike, noise too. Left are halves that float32 makes in the resize and
    # in warps, and the two devices' bicubic interpolation.
    recipe = recipes.get(name)
    bilinear = with_warps(recipe, "bilinear")
    apart = levels_apart(lossless, bilinear)
    assert (apart > 0.5).mean() < 3e-4
    # Without a resize, a unit of which is up to 64 after posterizing.
    apart = levels_apart(lossless, bilinear, area=(1.0, 1.0), ratio=(1.0, 1.0))
    assert apart.max() <= 2
    assert (apart > 0.5).mean() < 3e-4
    if bilinear != recipe:
        assert levels_apart(lossless, recipe).mean() < 0.3


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mode", ["const", "color", "pixel"])
@pytest.mark.parametrize("after", [False, True])
def test_erasing_on_the_gpu_agrees_with_the_cpu(
    lossless: str, after: bool, mode: Any, dtype: str, layout: str
) -> None:
    recipe = dataclasses.replace(recipes.get("deit"), augment=(), erase_after_mix=after)
    erase = dcm.RandomErasing(prob=0.5, mode=mode)
    apart = levels_apart(lossless, recipe, erase=erase, dtype=dtype, layout=layout)
    assert apart.max() < (1.01 if dtype == "float32" else 1.2)  # float16: two units of 2**-9
    assert (apart > 0.5).mean() < 3e-4


FORMS = [(dtype, layout) for dtype in ("float32", "float16") for layout in ("NCHW", "NHWC")]


def in_every_form(root: str, recipe: dcm.Recipe, device: str) -> Pipeline:
    """Of each dtype and layout: training images and targets, validation images and labels.

    The files are read once, so that DALI computes only once what does not depend on the form.
    """
    fields = ("augment", "erase", "erase_after_mix", "repeats", "area", "ratio", "interpolation")
    options: dict[str, Any] = {field: getattr(recipe, field) for field in fields}
    assert recipe.mix is not None
    mix = dataclasses.replace(recipe.mix, num_classes=5)

    @pipeline_def(
        **{"batch_size": 16, "num_threads": 2, "seed": 1, "prefetch_queue_depth": 1},
        device_id=0 if device == "gpu" else None,
    )
    def pipe() -> tuple[Any, ...]:
        files = imagenet.read(root, num_classes=5, shuffle=True, seed=1)
        outputs: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(imagenet, "read", lambda *_, **__: files)
            patch.setattr(imagenet, "read_with_maps", lambda *_, **__: (*files, None))
            for dtype, layout in FORMS:
                form = {"device": device, "size": (32, 48), "dtype": dtype, "layout": layout}
                outputs += imagenet.train.__wrapped__(root, mix, **options, **form)
                form["interpolation"] = recipe.val_interpolation
                outputs += imagenet.val.__wrapped__(root, resize=50, **form)
        return tuple(outputs)

    return pipe()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_value_is_a_number(name: str, lossless: str, device: str) -> None:
    pipeline = in_every_form(lossless, recipes.get(name), device)
    for _ in range(50):
        (outputs,) = graphs.run(pipeline)
        assert [array.dtype.name for array in outputs[::4]] == [dtype for dtype, _ in FORMS]
        for array in outputs:
            assert np.isfinite(array).all()
            assert np.abs(array).max() < 8  # deviations; labels are below 5


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("dtype", "layout"), FORMS)
def test_erased_images_leave_in_one_operator(
    photos: str, dtype: str, layout: str, mixed: bool, after: bool
) -> None:
    # A merged batch would be made contiguous by a copy for each image. Built, not run.
    options: dict[str, Any] = {"device_id": 0, "batch_size": 16, "num_threads": 1, "seed": 1}
    for erase in (PIXEL, CONST):
        pipeline = imagenet.train(
            photos,
            dcm.MixConfig(num_classes=5, mixup_alpha=0.2) if mixed else None,
            **{"erase": erase, "erase_after_mix": after, "device": "gpu"},
            **{"dtype": dtype, "layout": layout, **options},
        )
        images = pipeline._graph_out[0].source
        assert images._op.schema_name == "CropMirrorNormalize"


OVERRIDES: dict[str, Any] = {
    "mix": dcm.MixConfig(cutmix_alpha=0.5),
    "augment": (dcm.ThreeAugment(),),
    "erase": None,
    "erase_after_mix": True,
    "repeats": 2,
    "size": (32, 48),
    "area": (0.5, 1.0),
    "ratio": (1.0, 1.5),
    "interpolation": "random",
    "hflip": 0.25,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.1, 0.2, 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERRIDES)
def test_an_argument_goes_before_the_recipe(name: str, photos: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "recipe": "deit", "size": 32, "device": "cpu"}
    plain = dcm.train_loader(photos, **options)
    changed = dcm.train_loader(photos, **{**options, name: OVERRIDES[name]})
    mix = dataclasses.replace(OVERRIDES["mix"], num_classes=5)
    expected = {name: mix if name == "mix" else OVERRIDES[name]}
    if name == "size":
        expected["size"] = (32, 48)
    assert changed._options == {**plain._options, **expected, "source": changed._options["source"]}
    images, targets = next(iter(changed))
    before, before_targets = next(iter(plain))
    same = images.shape == before.shape and torch.equal(images, before)
    assert not same
    assert torch.equal(targets, before_targets) == (name not in ("mix", "repeats"))


def test_a_recipe_of_ones_own(photos: str) -> None:
    own = dataclasses.replace(recipes.get("rsb-a3"), size=48, val_size=40, val_resize=50)
    with dcm.train_loader(photos, batch_size=16, recipe=own, device="cpu") as train:
        assert next(iter(train))[0].shape == (16, 3, 48, 48)
    options: dict[str, Any] = {"batch_size": 16, "recipe": own, "device": "cpu"}
    assert dcm.val_loader(photos, **options)._options["resize"] == 50
    # In proportion to the size, where only that is given.
    assert dcm.val_loader(photos, size=80, **options)._options["resize"] == 100
    assert dcm.val_loader(photos, size=80, resize=90, **options)._options["resize"] == 90
    given = {"interpolation": "bilinear", "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    changed = dcm.val_loader(photos, **options, **given)._options
    assert {name: changed[name] for name in given} == given


def outputs(
    photos: str, mix: dcm.MixConfig, *, count: int = 3, **options: Any
) -> list[list[Array]]:
    """Images (HWC), [lam, box, own label, partner's label], of the training pipeline."""
    arguments: dict[str, Any] = {"batch_size": 16, "num_threads": 2, "device_id": None, "seed": 3}
    pipeline = imagenet.train(
        photos, mix, size=(32, 48), layout="NHWC", with_params=True, **arguments, **options
    )
    return graphs.run(pipeline, count)


MIXED, UNMIXED = dcm.MixConfig(num_classes=5), dcm.MixConfig(num_classes=5, prob=0.0)
ERASED = dcm.RandomErasing(prob=1.0, mode="const", area=(0.2, 0.3))


def test_erasing_before_mixing_is_mixed(photos: str) -> None:
    # Each image shows its own erased box outside of the pasted one, and its partner's inside.
    mixed = outputs(photos, MIXED, erase=ERASED)
    plain = outputs(photos, UNMIXED, erase=ERASED)
    found = 0
    for (images, _, _, box, _, _), (originals, *_) in zip(mixed, plain, strict=True):
        assert all((image == 0).all(axis=2).mean() > 0.15 for image in originals)
        for i in range(16):
            candidates = [reference.pasted(originals[i], o, tuple(box[i])) for o in originals]
            assert any(np.array_equal(images[i], c) for c in candidates)
            found += box[i][2] * box[i][3] > 0
    assert found > 30


def test_erasing_after_mixing_is_on_top(photos: str) -> None:
    erased = outputs(photos, MIXED, erase=ERASED, erase_after_mix=True)
    plain = outputs(photos, MIXED)
    for (images, target, _, box, *_), (mixed, same, _, same_box, *_) in zip(
        erased, plain, strict=True
    ):
        assert np.array_equal(target, same)  # erasing does not count for the label
        assert np.array_equal(box, same_box)
        for image, original in zip(images, mixed, strict=True):
            changed = (image != original).any(axis=2)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            y, x = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            assert (image[y, x] == 0).all()  # one whole rectangle, whatever was mixed in
            assert 0.15 < changed.mean() < 0.35


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_float16_and_nchw_after_erasing(photos: str, device: Any) -> None:
    options: dict[str, Any] = {"recipe": "deit", "batch_size": 16, "size": 32, "device": device}
    images, _ = next(iter(dcm.train_loader(photos, **options)))
    half, _ = next(iter(dcm.train_loader(photos, dtype="float16", **options)))
    last, _ = next(iter(dcm.train_loader(photos, layout="NHWC", **options)))
    assert half.dtype == torch.float16
    assert (half.float() - images).abs().max() < 0.01
    assert torch.equal(last, images)
    assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> str:
    return graphs.numbered_folder(tmp_path_factory.mktemp("numbered"), 24)


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeated_images_are_augmented_anew(numbered: str, repeats: int) -> None:
    options: dict[str, Any] = {"size": 24, "device": "cpu", "seed": 2, "batch_size": 12}
    loader = dcm.train_loader(numbered, repeats=repeats, **options)
    assert len(loader) == 2  # an epoch keeps its number of batches
    epochs = []
    for _ in range(8):
        seen = []
        for images, labels in loader:
            assert sorted(labels.unique(return_counts=True)[1].tolist()) == [repeats] * (
                12 // repeats
            )
            assert len(images.flatten(1).unique(dim=0)) == 12  # every copy has its own crop
            seen += labels.tolist()
        epochs.append(seen)
    assert len({label for seen in epochs for label in seen}) == 24  # over time all are seen
    assert all(len(set(seen)) == 24 // repeats for seen in epochs)


def test_random_interpolation_draws_one_of_two(photos: str) -> None:
    images = {}
    for kind in ("bilinear", "bicubic", "random"):
        loader = dcm.train_loader(
            photos, batch_size=16, size=32, interpolation=kind, device="cpu", seed=4
        )
        images[kind] = torch.cat([batch for _ in range(4) for batch, _ in loader])
    linear, cubic = (
        (images["random"] == images[kind]).all(dim=1).all(dim=1).all(dim=1)
        for kind in ("bilinear", "bicubic")
    )
    assert (linear ^ cubic).all()
    assert 120 < cubic.sum() < 200  # of 320, 4.5 deviations


def test_a_number_of_classes_goes_with_any_loader(photos: str) -> None:
    options: dict[str, Any] = {"batch_size": 16, "size": 16, "device": "cpu"}
    with dcm.train_loader(photos, recipe="rsb-a3", num_classes=9, **options) as train:
        assert next(iter(train))[1].shape == (16, 9)
        assert train.num_classes == 9
    with dcm.train_loader(photos, **options) as train:
        assert train.num_classes == 5
    with pytest.raises(ValueError, match="`num_classes` must be at least the 5 classes of `source"):
        dcm.val_loader(photos, num_classes=4, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recipe": "rsb-a4"}, ValueError, "`recipe` must be one of cutmix-paper, rsb-a1, .* got"),
        ({"recipe": 3}, TypeError, "`recipe` must be a name or a Recipe, got 3"),
        ({"mix": "cutmix"}, TypeError, "`mix` must be a MixConfig or None, got 'cutmix'"),
        ({"mean": (123.7, 116.3, 103.5)}, ValueError, r"`mean` must be in \[0, 1\], .* divide by"),
        ({"recipe": "deit", "repeats": 9}, ValueError, "`batch_size` must be at least twice `rep"),
        (
            {"mix": dcm.MixConfig(num_classes=9), "num_classes": 8},
            ValueError,
            "`num_classes` must be that of `mix`, got 8 and 9 there",
        ),
        ({"augment": "rand"}, TypeError, "`augment` must be a sequence of policies, got 'rand'"),
        ({"augment": [1]}, TypeError, r"`augment` must hold policies \(RandAugment, .* got 1"),
        ({"augment": [ERASED]}, TypeError, "`augment` must hold policies"),
        ({"erase": 0.25}, TypeError, "`erase` must be a RandomErasing or None, got 0.25"),
        ({"erase_after_mix": 1}, TypeError, "`erase_after_mix` must be a bool, got 1"),
        ({"repeats": 0}, ValueError, "`repeats` must be at least 1, got 0"),
        ({"interpolation": "nearest"}, ValueError, "`interpolation` must be one of"),
        ({"num_classes": 0}, ValueError, "`num_classes` must be at least 1, got 0"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(
    photos: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dcm.train_loader(photos, batch_size=16, device="cpu", **options)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("val_size", 0),
        ("val_resize", -1),
        ("val_interpolation", "random"),
        ("loss", "mse"),
        ("target_threshold", 2.0),
        ("loss_smoothing", -0.1),
        ("epochs", 0),
        ("batch_size", 0),
        ("optimizer", "adam"),
        ("lr", -1.0),
        ("weight_decay", float("nan")),
        ("schedule", "linear"),
        ("warmup_epochs", -1),
        ("warmup_lr", -1.0),
        ("min_lr", -1.0),
        ("ema_decay", 1.5),
        ("drop_path", 1.5),
        ("clip_grad", 0.0),
    ],
)
def test_wrong_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        dataclasses.replace(recipes.get("deit"), **{field: value})


def test_one_policy_may_stand_alone(photos: str) -> None:
    policy = dcm.ThreeAugment()
    loader = dcm.train_loader(photos, batch_size=16, size=32, augment=policy, device="cpu")
    assert loader._options["augment"] == (policy,)
    options: dict[str, Any] = {"batch_size": 16, "size": 32, "device": "cpu", "recipe": "deit"}
    assert dcm.train_loader(photos, augment=None, **options)._options["augment"] == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_random_operator_of_a_recipe_has_a_seed_of_its_own(name: str, photos: str) -> None:
    r = recipes.get(name)
    assert r.mix is not None
    seeds = []
    for shard_id in range(2):
        pipeline = imagenet.train(
            photos,
            dataclasses.replace(r.mix, num_classes=5),
            augment=r.augment,
            erase=r.erase,
            interpolation="random",
            **{"size": (32, 48), "shard_id": shard_id, "num_shards": 2, "seed": 1},
            **{"batch_size": 16, "num_threads": 1, "device_id": None},
        )
        for operator, arguments in graphs.serialised(pipeline):
            if operator.startswith("random__") or operator in (
                "BatchPermutation",
                "RandomCropGenerator",
            ):
                seeds.append(arguments["seed"][0])
    assert len(seeds) >= 14
    assert len(set(seeds)) == len(seeds)


def test_what_is_moved_in_from_outside_is_the_mean(photos: str) -> None:
    # Mean red: what a warp moves in is 0 after normalisation, and next to nothing else is.
    policy = dcm.RandAugment(magnitude=10, magnitude_std=0, num_layers=1, prob=1.0)
    options: dict[str, Any] = {"mean": (1.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "size": 64}
    with dcm.train_loader(photos, batch_size=80, augment=policy, device="cpu", **options) as train:
        images, _ = next(iter(train))
    filled = (images == 0).all(dim=1).float().mean(dim=(1, 2))
    assert 15 < (filled > 0.02).sum() < 40  # 5 operations of 15, of 80 images
