"""Training steps side by side: images per second with each loader, and without one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dali_cutmix import losses
from dali_cutmix._validation import checked_choice
from dali_cutmix.cli.bench.loaders import Contestant, Step, check_job, chosen, compete, seeded
from dali_cutmix.cli.bench.peers import PEERS, Batch, Job, Peer, import_torchvision
from dali_cutmix.cli.bench.results import Result

__all__ = ["CEILING", "MODELS", "entered", "run"]

CEILING = "synthetic data (ceiling)"
MODELS = ("resnet50", "tiny")
_BY_DEFAULT = ("dali_cutmix", "dali_cutmix without mixing", "torchvision", "timm")


def run(
    job: Job,
    *,
    model: str,
    rounds: int,
    seconds: float,
    names: Sequence[str] | None,
    result: Result,
    advance: Callable[[], None],
) -> None:
    """Measures training with some of `PEERS`; rows of the group ``"train"``.

    A step is forward and backward pass and SGD with momentum, in channels_last, on the GPU with
    bfloat16 autocast. The first row trains on one batch that stays on the device, the most that a
    loader can reach.

    Args:
        model: ``"resnet50"``, of torchvision or timm, or ``"tiny"``, three layers for CPUs.
        names: of the peers; by default dali_cutmix with and without mixing, torchvision and timm.

    The other arguments are those of `loaders.run`.

    Raises:
        ValueError: as there, and `model` needs a package that is not there.
    """
    check_job(job)
    checked_choice("model", model, MODELS)
    if model != "tiny" and not any(map(find_spec, ("torchvision", "timm"))):
        raise ValueError(
            '`model` must be "tiny" where neither torchvision nor timm is installed, '
            f"got {model!r}."
        )
    alone = functools.partial(_training, None, job, model)
    entries = [Contestant(CEILING, (), alone, gpu=job.device == "gpu")]
    for peer in entered(names):
        entry = Contestant(
            name=peer.name,
            needs=peer.needs,
            open=functools.partial(_training, peer, job, model),
            ahead=peer.ahead(job),
            turn=job.workers,
            gpu=job.device == "gpu",
            options={peer.workers: job.workers},
        )
        entries.append(entry)
    compete("train", entries, rounds, seconds, result, advance)


def entered(names: Sequence[str] | None) -> list[Peer]:
    """Returns the peers that train, see `run`."""
    return chosen(PEERS, _BY_DEFAULT if names is None else names)


@contextmanager
def _training(peer: Peer | None, job: Job, model: str) -> Iterator[Step]:
    """Gives a step of training on batches of the peer, or on one batch again and again."""
    seeded(job)
    torch.backends.cudnn.benchmark = True
    network = _network(model, job.num_classes).train()
    network.to(job.torch_device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    half = torch.autocast(job.torch_device.type, torch.bfloat16, enabled=job.device == "gpu")
    source = nullcontext(_same_batch(job)) if peer is None else peer.open(job)
    with source as batches:

        def step() -> int:
            images, targets = next(batches)
            optimiser.zero_grad(set_to_none=True)
            with half:
                outputs = network(images.contiguous(memory_format=torch.channels_last))
            torch.autograd.backward(_loss(outputs.float(), targets))
            optimiser.step()
            return len(images)

        yield step


def _same_batch(job: Job) -> Iterator[Batch]:
    shape = (job.batch_size, 3, job.size, job.size)
    images = torch.randn(shape, device=job.torch_device)
    targets = torch.rand((job.batch_size, job.num_classes), device=job.torch_device).softmax(1)
    return itertools.repeat((images.contiguous(memory_format=torch.channels_last), targets))


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return losses.cross_entropy(logits, targets)
    return F.cross_entropy(logits, targets)  # of labels that were not mixed


def _network(model: str, num_classes: int) -> Any:
    if model == "tiny":
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, num_classes),
        )
    if find_spec("torchvision"):
        import_torchvision()
        import torchvision.models

        return torchvision.models.get_model(model, weights=None, num_classes=num_classes)
    import timm

    return timm.create_model(model, num_classes=num_classes)
