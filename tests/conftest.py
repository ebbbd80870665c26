from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dali_cutmix.cli import demo, shapes

# Networks are so small here, and tests run on all cores anyway, that threads of torch only wait for
# each other: on two busy cores training took five times the CPU time, and eight times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is left alone, but for the fonts of matplotlib, which take seconds."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    with pytest.MonkeyPatch.context() as environment:
        if "MPLCONFIGDIR" not in os.environ:
            environment.setenv("MPLCONFIGDIR", os.path.join(own, "matplotlib"))
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos() -> Iterator[str]:
    """An ImageFolder of 5 classes with 16 real photographs each."""
    with demo.photo_folder(crops_a_class=16) as root:
        yield root


@pytest.fixture(scope="session")
def photo_masks(photos: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A mask for each of the photographs: 1 where it is bright, else 0."""
    root = tmp_path_factory.mktemp("photo_masks")
    for path in Path(photos).glob("*/*.jpg"):
        (root / path.parent.name).mkdir(exist_ok=True)
        with Image.open(path) as photo:
            bright = (np.asarray(photo.convert("L")) > 128).astype(np.uint8)
        Image.fromarray(bright).save(root / path.parent.name / f"{path.stem}.png")
    return str(root)


@pytest.fixture(scope="session")
def shape_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 images of 120 x 160 with 0 to 4 shapes each, and annotations.json."""
    folder = str(tmp_path_factory.mktemp("shapes"))
    shapes.write_shapes(folder, images=60)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's handwritten digits as JPEGs of 32 x 32: train/ with 1437, val/ with 360."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for position, i in enumerate(np.random.default_rng(0).permutation(len(data.target))):
        folder = root / ("val" if position < 360 else "train") / str(data.target[i])
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((data.images[i] * 15.9).astype(np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=95)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU: torch finds none on this machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
