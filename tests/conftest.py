from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dali_cutmix import demo


@pytest.fixture(scope="session")
def photos() -> Iterator[str]:
    """An ImageFolder of 5 classes with 16 real photographs each."""
    with demo.photo_folder(crops_a_class=16) as root:
        yield root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU: torch finds none on this machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
