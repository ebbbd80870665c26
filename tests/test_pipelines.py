"""The ImageNet pipelines: what is in the graph, on both devices, and what comes out."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from nvidia.dali import Pipeline, backend
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.data import folders
from dali_cutmix.data.sources import tail_heavy
from dali_cutmix.pipelines import imagenet
from tests.support import graphs

MIX = dcm.MixConfig(num_classes=5)
MIXING = {"BatchPermutation", "MultiPaste", "PermuteBatch", "Beta", "OneHot"}


def train(root: str, mix: dcm.MixConfig | None = MIX, **options: Any) -> Pipeline:
    arguments = {"batch_size": 16, "num_threads": 2, "device_id": None, "seed": 1, **options}
    return imagenet.train(root, mix, **{"size": (32, 48), **arguments})


def val(root: str, **options: Any) -> Pipeline:
    arguments = {"batch_size": 16, "num_threads": 2, "device_id": None, **options}
    return imagenet.val(root, **{"size": (32, 48), "resize": 50, **arguments})


def serialised_operators(pipeline: Pipeline) -> list[str]:
    """The names of the operators of a serialised pipeline."""
    return [name for name, _ in graphs.serialised(pipeline)]


def test_the_training_graph_has_native_operators_only(photos: str) -> None:
    for mix in (MIX, dcm.MixConfig(num_classes=5, mode="batch", targets="pair", prob=0.5)):
        names = serialised_operators(train(photos, mix))
        assert {"BatchPermutation", "MultiPaste", "CropMirrorNormalize"} <= set(names)
        assert {"random__Beta", "random__Choice"} & set(names)
        foreign = [n for n in names if any(w in n for w in ("Python", "Numba", "ExternalSource"))]
        assert not foreign, foreign


@pytest.mark.parametrize(
    ("options", "size", "operators"),
    [
        ({}, (32, 48), 7),  # crop, flip, class of the box, its centre in y and x, partner, order
        ({}, (32, 32), 6),  # the centre in one draw
        ({"mode": "batch"}, (32, 48), 7),  # crop, flip, lam, whether to mix, position, …
        ({"mixup_alpha": 0.5}, (32, 48), 9),  # and MixUp's lam, which method
        ({"mixup_alpha": 0.5, "minmax": (0.2, 0.8)}, (32, 48), 9),  # sides, not CutMix's lam
    ],
    ids=str,
)
def test_every_random_operator_has_a_seed_of_its_own(
    photos: str, options: dict[str, Any], size: tuple[int, int], operators: int
) -> None:
    mix = dcm.MixConfig(num_classes=5, prob=0.5, **options)
    seeds = {}
    for shard_id in range(2):
        for name, arguments in graphs.serialised(
            train(photos, mix, size=size, shard_id=shard_id, num_shards=2)
        ):
            if name.startswith("random__") or name in ("BatchPermutation", "RandomCropGenerator"):
                seeds[f"{name} {len(seeds)}"] = arguments["seed"][0]
    assert len(seeds) == 2 * operators
    assert len(set(seeds.values())) == len(seeds), seeds


def test_the_pixels_are_composited_in_one_pass(photos: str) -> None:
    # One MultiPaste, and no gathered copy of the images: what else is pasted are the labels.
    names = serialised_operators(train(photos))
    assert names.count("MultiPaste") == 2
    assert "PermuteBatch" not in names
    pipeline = train(photos)
    found = graphs.operators(pipeline._graph_out)
    pasted = [o.spec.InputName(0) for o in found if o._op.schema_name == "MultiPaste"]
    assert sorted(name.strip("_").split("_")[0] for name in pasted) == ["Reshape", "Resize"]


def test_the_validation_graph_has_no_mixing(photos: str) -> None:
    names = serialised_operators(val(photos))
    assert "CropMirrorNormalize" in names
    assert not MIXING & set(names)
    assert "mix" not in inspect.getsource(imagenet.val.__wrapped__).replace("mixed", "")


def test_without_mix_the_training_graph_has_no_mixing(photos: str) -> None:
    assert not MIXING & set(serialised_operators(train(photos, None)))


def of_recipe(root: str, name: str, **options: Any) -> Pipeline:
    recipe = dcm.recipes.get(name)
    fields = ("augment", "erase", "erase_after_mix", "repeats", "area", "ratio", "interpolation")
    options |= {field: getattr(recipe, field) for field in fields}
    if recipe.partners is not None:
        options["partners"] = tail_heavy(dcm.find_source(root), recipe.tail_alpha)
    mix = None if recipe.mix is None else dataclasses.replace(recipe.mix, num_classes=5)
    return train(root, mix, **options)


PATTERNS = (dcm.GridMix(holes=4), dcm.FMix(fields=2), dcm.SmoothMix(), dcm.Cutout())
VARIANTS: dict[str, dict[str, Any]] = {
    "elem": {},
    "pair targets": {"targets": "pair"},
    "batch": {"mode": "batch"},
    "pair": {"mode": "pair", "partner": "flip"},
    "mixup": {"cutmix_alpha": 0.0, "mixup_alpha": 0.4},
    "both, elem": {"mixup_alpha": 0.4, "prob": 0.5},
    "both, batch": {"mixup_alpha": 0.4, "mode": "batch"},
    "minmax": {"minmax": (0.2, 0.8)},
    "inside": {"box": "inside", "label_smoothing": 0.1},
    "mosaic": {"methods": (dcm.CutMix(), dcm.Mosaic())},
    "gridmix": {"methods": (dcm.GridMix(holes=4), dcm.CutMix())},
    "patterns": {"methods": PATTERNS},
    "same": {"partner": "same", "prob": [0.5] * 5},
    "other": {"partner": "other", "mixup_alpha": 0.4},
}


GRAPHS = ["plain", "val", *VARIANTS, *dcm.recipes.RECIPES]


def graph(root: str, name: str, device: str = "gpu") -> Pipeline:
    options: dict[str, Any] = {"device": device, "device_id": 0 if device == "gpu" else None}
    if name in dcm.recipes.RECIPES:
        return of_recipe(root, name, **options)
    if name == "val":
        return val(root, **options)
    mix = None if name == "plain" else dcm.MixConfig(num_classes=5, **VARIANTS[name])
    return train(root, mix, **options)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_can_run_on_a_gpu(photos: str, name: str) -> None:
    # It is defined without a GPU, built only with one; what DALI would refuse then is seen here:
    # an operator that is not there for its device, data on the other device.
    pipeline = graph(photos, name)
    registered = {
        "cpu": backend.RegisteredCPUOps(),
        "gpu": backend.RegisteredGPUOps(),
        "mixed": backend.RegisteredMixedOps(),
    }
    assert {node.device for node in pipeline._graph_out} == {"gpu"}
    found = set()
    for operator in graphs.operators(pipeline._graph_out):
        kind, device, spec = operator._op.schema_name, operator._op.device, operator.spec
        found.add((kind, device))
        assert kind in registered[device], (kind, device)
        for i in range(spec.NumInput() if kind != "_Shape" else 0):  # which looks at no data
            expected = "gpu" if device == "gpu" and i < spec.NumRegularInput() else "cpu"
            assert spec.InputDevice(i) == expected, (kind, device, i, spec.InputName(i))
    assert ("decoders__Image", "mixed") in found
    pixels = {"Resize", "CropMirrorNormalize"}
    pixels |= {"Slice"} if name != "val" else set()
    pixels |= {"MultiPaste"} if name not in ("plain", "val", "mixup", "patterns") else set()
    assert {(kind, "gpu") for kind in pixels} <= found


# Kernels that an operator launches on a GPU, as counted with DALI's own, run in software. What
# decodes is not counted. Copies to the GPU are not either.
KERNELS = {
    "decoders__Image": 0,
    **dict.fromkeys(["Reshape", "Reinterpret", "_conditional__Split", "_conditional__Merge"], 0),
    **dict.fromkeys(["ExpandDims", "Constant"], 0),
    **dict.fromkeys(["Resize", "experimental__WarpPerspective"], 2),  # of up to 32 images a resize
    "Equalize": 4,
}
# A change that adds a kernel to a batch is to be seen, and wanted. Of the operations of a policy
# all are counted; a batch in which nobody gets one launches nothing for it.
KERNELS_A_BATCH = {
    "plain": 4,
    "val": 3,
    "elem": 7,
    "pair targets": 7,
    "batch": 7,
    "pair": 7,
    "mixup": 9,
    "both, elem": 10,
    "both, batch": 10,
    "minmax": 7,
    "inside": 7,
    "mosaic": 7,
    "gridmix": 7,
    "patterns": 24,
    "same": 7,
    "other": 10,
    "resizemix": 11,
    "cmo-imagenet-lt": 94,
    "cutmix-paper": 50,
    "rsb-a1": 150,
    "rsb-a2": 150,
    "rsb-a3": 150,
    "deit": 154,
    "deit3-s": 57,
    "swin-t": 154,
    "convnext-t": 154,
    "torchvision-v2": 78,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_kernels_of_a_batch_are_those_of_the_table(photos: str, name: str) -> None:
    pipeline = graph(photos, name)
    found = [
        operator._op.schema_name
        for operator in graphs.operators(pipeline._graph_out)
        if operator._op.device != "cpu"
    ]
    assert sum(KERNELS.get(kind, 1) for kind in found) == KERNELS_A_BATCH[name], sorted(found)


# Bytes of pixels that the GPU reads and writes from the resized batch to the normalised one, in
# bytes of the resized one: normalising float32 reads 1 and writes 4; pasting reads 1 and writes 1.
# Where a batch is split, each sample is counted on both ways.
BYTES_A_BATCH = {"plain": 5, "elem": 7, "pair": 7, "mixup": 14, "both, elem": 16, "both, batch": 16}


@pytest.mark.parametrize("name", BYTES_A_BATCH)
def test_the_bytes_moved_for_a_batch_are_those_of_the_table(photos: str, name: str) -> None:
    sizes: dict[str, float] = {}  # of a batch of images
    moved = 0.0
    pipeline = graph(photos, name)
    operators = graphs.operators(pipeline._graph_out)
    for operator in sorted(operators, key=lambda operator: operator.id):
        kind, spec = operator._op.schema_name, operator.spec
        outputs = [spec.OutputName(i) for i in range(spec.NumOutput())]
        if kind == "Resize":
            sizes |= dict.fromkeys(outputs, 1.0)
            continue
        inputs = [spec.InputName(i) for i in range(spec.NumRegularInput())]
        given = [sizes[name] for name in inputs if name in sizes]
        if operator._op.device == "cpu" or not given:
            continue
        if kind == "_conditional__Merge":
            size = max(given)
        else:
            factor = {"Stack": len(given), "CoordTransform": 1 / 2, "CropMirrorNormalize": 4}
            size = given[0] * factor.get(kind, 1)
        sizes |= dict.fromkeys(outputs, size)
        if KERNELS.get(kind, 1):
            moved += sum(given) * (kind != "MultiPaste" or 1 / len(given)) + size
    assert moved == BYTES_A_BATCH[name]


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("plain", "val")])
def test_all_inputs_of_a_multi_paste_have_one_width(photos: str, name: str, device: str) -> None:
    # On a GPU it reads every input with the width of the first (DALI 2.4.0): others are garbage,
    # and read from outside of their memory.
    if (name, device) == ("resizemix", "cpu"):
        pytest.skip("on the CPU patches are pasted as wide as they are")
    pipeline = graph(photos, name, device)
    pasted = [
        [node for node in operator.inputs if node.name in names]
        for operator in graphs.operators(pipeline._graph_out)
        if operator._op.schema_name == "MultiPaste"
        for names in [[operator.spec.InputName(i) for i in range(operator.spec.NumRegularInput())]]
    ]
    several = [nodes for nodes in pasted if len(nodes) > 1]
    pipeline.set_outputs(*(node for nodes in several for node in nodes), *pipeline._graph_out)
    for _ in range(4):
        outputs = iter(pipeline.run())
        for nodes in several:
            inputs = [next(outputs).as_cpu() for _ in nodes]
            widths = [[batch.at(i).shape[1] for i in range(len(batch))] for batch in inputs]
            assert all(of_one == widths[0] for of_one in widths)


@pytest.mark.parametrize(("dtype", "kind"), [("float32", np.float32), ("float16", np.float16)])
@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (3, 32, 48)), ("NHWC", (32, 48, 3))])
def test_dtype_and_layout(photos: str, dtype: str, kind: type, layout: str, shape: Any) -> None:
    for pipeline in (
        train(photos, dtype=dtype, layout=layout),
        val(photos, dtype=dtype, layout=layout),
    ):
        ((images, targets),) = graphs.run(pipeline)
        assert images.dtype == kind
        assert images.shape == (16, *shape)
        assert targets.dtype == (np.float32 if targets.ndim == 2 else np.int64)


@pytest.mark.parametrize("mix", [None, dcm.MixConfig(num_classes=5, prob=0.0)])
def test_hflip_mirrors_the_image(photos: str, mix: Any) -> None:
    never, always, half = (graphs.run(train(photos, mix, hflip=p))[0][0] for p in (0.0, 1.0, 0.5))
    # The resize mirrors: halves between two levels are rounded in the order of its additions.
    levels = (
        np.abs(always - never[..., ::-1]) * 255 * np.array(imagenet.IMAGENET_STD)[:, None, None]
    )
    assert levels.max() < 1.01
    assert (levels > 0.5).mean() < 0.001
    flipped = [np.array_equal(a, b) for a, b in zip(half, always, strict=True)]
    plain = [np.array_equal(a, b) for a, b in zip(half, never, strict=True)]
    assert all(a != b for a, b in zip(flipped, plain, strict=True))
    assert 2 < sum(flipped) < 14


def test_crops_have_the_asked_area_and_ratio(photos: str) -> None:
    # A crop of the whole image is a plain resize: compare with Pillow's, bilinear, antialiased.
    options = {"area": (1.0, 1.0), "ratio": (0.5, 2.0), "hflip": 0.0, "layout": "NHWC"}
    ((images, labels),) = graphs.run(train(photos, None, **options))
    resized = []
    for path in folders.image_files(photos):
        with Image.open(path) as photo:
            small = photo.resize((48, 32), Image.Resampling.BILINEAR)
        mean, std = np.array(imagenet.IMAGENET_MEAN), np.array(imagenet.IMAGENET_STD)
        resized.append((np.asarray(small, float) / 255 - mean) / std)
    sources = [np.abs(np.stack(resized) - image).mean(axis=(1, 2, 3)) for image in images]
    # With this area and this freedom of ratio the window keeps within a few pixels of the image.
    assert np.median([distance.min() for distance in sources]) < 0.1
    assert [int(np.argmin(d)) // 16 for d in sources] == labels.tolist()


def test_a_pasted_region_shows_what_the_parameters_say(photos: str) -> None:
    # The same stream with prob=0 gives the images before mixing: same crops, flips and order.
    options = {"with_params": True, "layout": "NHWC", "seed": 3}
    mixed = graphs.run(train(photos, MIX, **options), 2)
    plain = graphs.run(train(photos, dcm.MixConfig(num_classes=5, prob=0.0), **options), 2)
    cut = 0
    for (out, target, lam, box, own, other), (original, _, _, _, labels, _) in zip(
        mixed, plain, strict=True
    ):
        assert np.array_equal(own, labels)
        for i, (y, x, h, w) in enumerate(box):
            inside = np.zeros((32, 48), bool)
            inside[y : y + h, x : x + w] = True
            assert np.array_equal(out[i][~inside], original[i][~inside])
            assert lam[i] == np.float32((~inside).mean())
            row = lam[i] * np.eye(5)[own[i]] + (1 - lam[i]) * np.eye(5)[other[i]]
            assert np.abs(target[i] - row).max() < 1e-6
            if inside.any():
                cut += 1
                givers = [
                    j for j in range(16) if np.array_equal(out[i][inside], original[j][inside])
                ]
                assert any(labels[j] == other[i] for j in givers)
    assert cut > 20


# In a pipeline with conditionals, which DALI's auto_aug and any `if` of a user's need


def recipe_options(name: str) -> dict[str, Any]:
    recipe = dcm.recipes.get(name)
    options = {
        field: getattr(recipe, field)
        for field in ("augment", "erase", "erase_after_mix", "repeats", "interpolation", "hflip")
    }
    mix = None if recipe.mix is None else dataclasses.replace(recipe.mix, num_classes=5)
    return {"mix": mix, "size": (32, 32), **options}


def _on() -> list[Any]:
    return [np.array(True)] * 16


@pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(recipe_options(name), id=name) for name in dcm.recipes.RECIPES),
        pytest.param({"mix": None}, id="no mix"),
        pytest.param({"until": "augment"}, id="a stage"),
        pytest.param({"with_params": True, "layout": "NHWC", "dtype": "float16"}, id="params"),
        pytest.param({"mix": MIX, "mixing": _on}, id="switchable"),
        pytest.param({"mix": MIX, "partners": None}, id="a second reader"),
        *(
            pytest.param({"mix": dcm.MixConfig(num_classes=5, **mix)}, id=str(mix))
            for mix in (
                {"partner": "flip", "mode": "pair", "targets": "pair"},
                {"partner": "roll", "mixup_alpha": 0.2},
                {"minmax": (0.2, 0.8)},
                {"methods": (dcm.ResizeMix(), dcm.MixUp())},
                {"methods": (dcm.Mosaic(),)},
                {"methods": PATTERNS},
                {"partner": "same", "prob": [0.5] * 5},
            )
        ),
    ],
)
def test_conditionals_change_nothing_in_training(photos: str, options: dict[str, Any]) -> None:
    if "partners" in options:
        options = {**options, "partners": dcm.find_source(photos)}
    plain = graphs.run(train(photos, **options), 2)
    unconverted = graphs.run(train(photos, enable_conditionals=True, **options), 2)
    for one, other in zip(plain, unconverted, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("options", [{}, {"num_classes": 7, "dtype": "float16"}], ids=str)
def test_conditionals_change_nothing_in_validation(photos: str, options: dict[str, Any]) -> None:
    ((images, labels),) = graphs.run(val(photos, **options))
    ((same, alike),) = graphs.run(val(photos, enable_conditionals=True, **options))
    assert np.array_equal(images, same)
    assert np.array_equal(labels, alike)
