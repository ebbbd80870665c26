"""One process of programs of other trainers: each writes the weights that it ends at.

    tests/support/client_worker.py ROOT OUT NAME…       (as torchrun starts it)

Each trains three times. "first" trains until a checkpoint in the middle of the second epoch, "rest"
goes on from it, and "whole" does the same without stopping. Data and models are small, the steps
those of the trainers' own examples.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from dali_cutmix.cli.bench.peers import import_torchvision

import_torchvision()  # before what imports it

import dali_cutmix as dcm  # noqa: E402

EPOCHS, STOP, CLASSES = 3, 4, 26  # 4 batches: with 3 or 6 an epoch not the end of one


def loader_of(root: str) -> dcm.Loader:
    mix = dcm.MixConfig(mixup_alpha=0.2)
    return dcm.train_loader(root, batch_size=4, size=8, device="cpu", num_threads=1, mix=mix)


def model_of() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3 * 8 * 8, CLASSES)


def optimiser_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)


def loss_of(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    images, targets = batch
    return functional.cross_entropy(model(images.flatten(1)), targets)


def trained(
    loader: Any,
    model: torch.nn.Module,
    optimiser: Any,
    part: str,
    save: Callable[[], object],
    backward: Callable[[torch.Tensor], object] = torch.Tensor.backward,
) -> None:
    """Trains to the end, or with "first" until a checkpoint was saved."""
    step = STOP if part == "rest" else 0
    while loader.epoch < EPOCHS:
        for batch in loader:
            optimiser.zero_grad()
            backward(loss_of(model, batch))
            optimiser.step()
            step += 1
            if part == "first" and step == STOP:
                save()
                return


def distributed(model: torch.nn.Module) -> torch.nn.Module:
    if torch.distributed.get_world_size() == 1:
        return model
    return torch.nn.parallel.DistributedDataParallel(model)


def fabric(root: str, out: Path, part: str) -> torch.nn.Module:
    import lightning_fabric

    world = int(os.environ["WORLD_SIZE"])
    own = lightning_fabric.Fabric(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto"
    )
    own.launch()
    plain = model_of()
    model, optimiser = own.setup(plain, optimiser_of(plain))
    loader = loader_of(root)
    state = {"model": model, "optimiser": optimiser, "loader": loader}
    if part == "rest":
        own.load(out / "fabric", state)
    trained(loader, model, optimiser, part, lambda: own.save(out / "fabric", state), own.backward)
    return plain


def accelerate(root: str, out: Path, part: str) -> torch.nn.Module:
    import accelerate

    own, path = accelerate.Accelerator(cpu=True), str(out / "accelerate")
    plain = model_of()
    model, optimiser, loader = own.prepare(plain, optimiser_of(plain), loader_of(root))
    own.register_for_checkpointing(loader)
    if part == "rest":
        own.load_state(path)
    trained(loader, model, optimiser, part, lambda: own.save_state(path), own.backward)
    if part == "whole":
        # What an evaluation gathers in every batch: each image once.
        val = dcm.val_loader(root, like=loader)
        gathered = torch.cat([own.gather_for_metrics(labels) for _, labels in val])
        assert sorted(gathered[gathered >= 0].tolist()) == list(range(CLASSES))
    return plain


def ignite(root: str, out: Path, part: str) -> torch.nn.Module:
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver

    plain = model_of()
    model = distributed(plain)
    optimiser, loader = optimiser_of(plain), loader_of(root)

    def step(_: Engine, batch: Any) -> None:
        optimiser.zero_grad()
        loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    trainer = Engine(step)
    parts = {"model": plain, "optimiser": optimiser, "loader": loader}
    path = out / "ignite"
    if part == "rest":
        Checkpoint.load_objects(parts, torch.load(next(path.glob("*.pt")), weights_only=False))
    elif part == "first":
        saver = Checkpoint(parts, DiskSaver(str(path), create_dir=True))
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=STOP), saver)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=STOP), lambda e: e.terminate())
    # An epoch of ignite is a number of batches; where the loader ends, it begins the loader anew.
    left = EPOCHS * len(loader) - (STOP if part == "rest" else 0)
    trainer.run(loader, max_epochs=1, epoch_length=left)
    return plain


def checkpoint(root: str, out: Path, part: str) -> torch.nn.Module:
    from torch.distributed import checkpoint as dcp

    plain = model_of()
    model = distributed(plain)
    optimiser, loader = optimiser_of(plain), loader_of(root)

    def save() -> None:
        dcp.save({"loader": loader}, checkpoint_id=out / "dcp")
        parts = {"model": plain.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save(parts, out / "model")

    if part == "rest":
        saved = torch.load(out / "model", weights_only=True)
        plain.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        dcp.load({"loader": loader}, checkpoint_id=out / "dcp")
    trained(loader, model, optimiser, part, save)
    return plain


CLIENTS = {
    "fabric": fabric,
    "accelerate": accelerate,
    "ignite": ignite,
    "torch.distributed.checkpoint": checkpoint,
}


def main(root: str, out: str, *names: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name in names:
        for part in ("whole", "first", "rest"):
            model = CLIENTS[name](root, Path(out), part)
            torch.distributed.barrier()  # what is saved is there
            weights = [parameter.flatten()[:9].tolist() for parameter in model.parameters()]
            Path(out, f"{name} {part} {rank}").write_text(repr(weights))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
