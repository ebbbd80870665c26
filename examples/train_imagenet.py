"""Trains a published recipe on one GPU or many, validates, and resumes exactly.

    python examples/train_imagenet.py --train TRAIN --val VAL --recipe rsb-a2 --model resnet50
    torchrun --nproc-per-node=8 examples/train_imagenet.py --train TRAIN --val VAL --recipe deit

    train_loader(recipe) ─ images, mixed targets ─ model ─ loss of the recipe ─ optimiser ─ EMA
            └──────────────── state of both, every --save-every steps ────────────────┘

A run that was interrupted, however hard, goes on from its last state when the same command is
given again: model, optimiser, EMA, random numbers and loaders, to the same weights. Models are
timm's where it is installed, else torchvision's. TRAIN and VAL are anything that train_loader
reads: folders, lists, tar shards, TFRecord, RecordIO.

Where this is simpler than the recipes: the cosine begins after the warm-up and is set anew every
step, as torchvision and ConvNeXt have it (timm lays the warm-up over the cosine, and steps by
epochs); all rates are scaled by the batch size; a ViT gets no layer-wise settings of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from contextlib import nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import dali_cutmix as dcm


def main() -> None:
    args = parse_args()
    recipe = dcm.recipes.get(args.recipe)
    rank, world = start_process_group(args)
    device = torch.device("cuda" if args.device == "gpu" else "cpu")
    torch.manual_seed(args.seed)  # the same weights on every rank

    epochs = recipe.epochs if args.epochs is None else args.epochs
    first, last = recipe.unmixed_epochs
    if args.last_epochs_unmixed is not None:
        last = args.last_epochs_unmixed
    mixed_epochs = range(first, epochs - last)
    common = {"batch_size": args.batch_size, "recipe": recipe, "device": args.device}
    common |= {"num_classes": args.num_classes, "size": args.size, "num_threads": args.threads}
    common["layout"] = "NHWC" if args.channels_last else "NCHW"
    found = {"label_offset": args.label_offset, "make_indexes": True}
    sources = [dcm.find_source(source, **found) for source in (args.train, args.val)]
    switchable = len(mixed_epochs) < epochs
    train = dcm.train_loader(sources[0], seed=args.seed, switchable=switchable, **common)
    val = dcm.val_loader(sources[1], classes=train.classes, resize=args.resize, **common)

    model = create_model(args.model, train.num_classes, recipe.drop_path).to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    models = {"model": model}
    decay = recipe.ema_decay if args.ema is None else args.ema
    if decay:
        averaging = get_ema_multi_avg_fn(decay)
        models["EMA"] = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    scale = args.batch_size * world / recipe.batch_size
    peak = recipe.lr * scale if args.lr is None else args.lr
    optimiser = create_optimiser(recipe, model, peak)
    criterion = create_loss(recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=args.amp == "float16")
    autocast = nullcontext()
    if args.amp != "off":
        autocast = torch.autocast(device.type, dtype=getattr(torch, args.amp))
    forward = model
    if world > 1:
        forward = DistributedDataParallel(model)

    torch.manual_seed(args.seed + rank)  # own dropout on every rank
    parts = {**models, "optimiser": optimiser, "scaler": scaler}
    run = {"recipe": recipe.name, "model": args.model, "epochs": epochs, "lr": peak, "EMA": decay}
    run |= {"epochs unmixed": [first, last], "amp": args.amp, "processes": world}
    path = os.path.join(args.out, "last.pt")
    step = load_state(path, run, parts, train, device) if os.path.exists(path) else 0
    if rank == 0:
        os.makedirs(args.out, exist_ok=True)
        print(
            f"{recipe.name}: {args.model}, {epochs} epochs of {len(train)} steps, "
            f"{world} x {args.batch_size} images, lr {peak:g}"
            + (f"; goes on from step {step}" if step else ""),
            flush=True,
        )

    with train, val:
        for epoch in range(train.epoch, epochs):
            if switchable:
                train.mixing = epoch in mixed_epochs
            meter = Meter(f"epoch {epoch}", len(train), args.batch_size * world, rank == 0)
            model.train()
            for images, targets in train:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(
                        recipe, peak, step / len(train), epochs, scale if args.lr is None else 1.0
                    )
                with autocast:
                    loss = criterion(forward(images), targets)
                optimiser.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                if recipe.clip_grad is not None:
                    scaler.unscale_(optimiser)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
                scaler.step(optimiser)
                scaler.update()
                if decay:
                    models["EMA"].update_parameters(model)
                step += 1
                meter.update(step - epoch * len(train), loss)
                if step % args.save_every == 0:
                    save_state(path, run, parts, train, step, device)
            found = {name: accuracy(m, val, device, autocast) for name, m in models.items()}
            meter.close(", ".join(f"top-1 of {name} {share:.2%}" for name, share in found.items()))
            save_state(path, run, parts, train, step, device)
    if world > 1:
        dist.destroy_process_group()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--train", required=True, metavar="SOURCE", help="folder, list, shards, see train_loader")
    add("--val", required=True, metavar="SOURCE")
    add("--recipe", default="rsb-a2", help="see dali-cutmix recipes (default: %(default)s)")
    add("--model", default="resnet50", help="of timm or torchvision (default: %(default)s)")
    add("--num-classes", type=int, help="default: that of the folder")
    add("--label-offset", type=int, default=0, help="-1 for labels that begin at 1")
    add("--out", default="run", metavar="DIR", help="where the state goes (default: %(default)s)")
    add("--device", choices=("gpu", "cpu"), default="gpu")
    add("--batch-size", type=int, default=256, help="of each process (default: %(default)s)")
    add("--epochs", type=int, help="default: the recipe's")
    add("--lr", type=float, help="default: the recipe's, scaled by the batch size")
    add("--size", type=int, help="side of the images; default: the recipe's")
    add("--resize", type=int, help="of validation, before the crop; default: the recipe's")
    add("--last-epochs-unmixed", type=int, metavar="N", help="default: the recipe's")
    add("--ema", type=float, metavar="DECAY", help="0 for none; default: the recipe's")
    add("--amp", choices=("off", "bfloat16", "float16"), default="bfloat16")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    add("--threads", type=int, help="of DALI; default: the cores, at most 16")
    add("--save-every", type=int, default=1000, metavar="STEPS", help="default: %(default)s")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def start_process_group(args: argparse.Namespace) -> tuple[int, int]:
    """Returns rank and number of ranks; under torchrun, joins them and picks this rank's GPU."""
    if "RANK" not in os.environ:
        return 0, 1
    if args.device == "gpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if args.device == "gpu" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def create_model(name: str, num_classes: int, drop_path: float) -> torch.nn.Module:
    try:
        import timm
    except ImportError:
        import torchvision

        return torchvision.models.get_model(name, num_classes=num_classes)
    options = {"drop_path_rate": drop_path} if drop_path else {}
    return timm.create_model(name, num_classes=num_classes, **options)


def create_optimiser(
    recipe: dcm.Recipe, model: torch.nn.Module, lr: float
) -> torch.optim.Optimizer:
    """Returns the recipe's optimiser; biases and norms decay only if the recipe says so."""
    kept = getattr(model, "no_weight_decay", set)()  # by timm, such as the places of a ViT
    decaying, others = [], []
    for name, parameter in model.named_parameters():
        whole = recipe.decay_all or (parameter.ndim > 1 and name not in kept)
        (decaying if whole else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "lamb":
        from timm.optim import Lamb  # torch has none

        return Lamb(groups, lr=lr, max_grad_norm=None)  # clipped by this script
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=recipe.optimizer == "nesterov")


def learning_rate(
    recipe: dcm.Recipe, peak: float, epoch: float, epochs: int, scale: float
) -> float:
    """Returns the rate at a time, in epochs: linear warm-up, then the recipe's schedule."""
    warmup = min(recipe.warmup_epochs, epochs / 2)
    if epoch < warmup:
        start = recipe.warmup_lr * scale
        return start + (peak - start) * epoch / warmup
    if recipe.schedule == "step":
        steps = [step * epochs / recipe.epochs for step in recipe.steps]
        steps = steps or [epochs / 4, epochs / 2, epochs * 3 / 4]
        return peak * 0.1 ** sum(epoch >= step for step in steps)
    low, done = recipe.min_lr * scale, (epoch - warmup) / (epochs - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * done)) / 2


def create_loss(recipe: dcm.Recipe):
    if recipe.loss == "bce":
        threshold = recipe.target_threshold
        return partial(dcm.losses.binary_cross_entropy, target_threshold=threshold)
    return partial(dcm.losses.cross_entropy, label_smoothing=recipe.loss_smoothing)


@torch.no_grad()
def accuracy(model: torch.nn.Module, val: dcm.Loader, device: torch.device, autocast) -> float:
    """Returns the share of the validation images, of all ranks, that are classified right."""
    model.eval()
    count = torch.zeros(2, device=device)  # right, seen
    for images, labels in val:
        with autocast:
            right = (model(images).argmax(dim=1) == labels).sum()
        # An image that comes twice, so that all ranks have the same batches, has one label -100.
        count += torch.stack([right, (labels >= 0).sum()])
    if dist.is_initialized():
        dist.all_reduce(count)
    return (count[0] / count[1]).item()


def save_state(
    path: str, run: dict, parts: dict, train: dcm.Loader, step: int, device: torch.device
) -> None:
    """Writes everything that the rest of the run depends on, at once or not at all."""
    own = {"loader": train.state_dict(), "random": torch.get_rng_state()}
    if device.type == "cuda":
        own["random_cuda"] = torch.cuda.get_rng_state()
    rank, ranks = 0, [own]
    if dist.is_initialized():
        rank = dist.get_rank()
        ranks = [None] * dist.get_world_size() if rank == 0 else None
        dist.gather_object(own, ranks)
    if rank == 0:
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "run": run, "step": step, "ranks": ranks}, path + ".part")
        os.replace(path + ".part", path)


def load_state(path: str, run: dict, parts: dict, train: dcm.Loader, device: torch.device) -> int:
    """Puts a run back to where it was saved and returns its step."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, value in run.items():
        if state["run"][name] != value:
            sys.exit(
                f"{path} is of a run with {name} {state['run'][name]}, not {value}: "
                "give the same options, or another --out"
            )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    own = state["ranks"][rank]
    train.load_state_dict(own["loader"])
    torch.set_rng_state(own["random"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(own["random_cuda"])
    return state["step"]


class Meter:
    """One line: progress, loss and images a second."""

    def __init__(self, name: str, steps: int, images_a_step: int, shown: bool) -> None:
        self.name, self.steps, self.images_a_step, self.shown = name, steps, images_a_step, shown
        self.every = 10 if sys.stdout.isatty() else 100
        self.start, self.since, self.text = time.perf_counter(), 0, ""

    def update(self, done: int, loss: torch.Tensor) -> None:
        self.since += 1
        if self.shown and (done % self.every == 0 or done == self.steps):
            loss = loss.item()  # waits for the GPU, so the rate is that of finished work
            rate = self.since * self.images_a_step / (time.perf_counter() - self.start)
            self.text = f"{self.name}: {done}/{self.steps}, loss {loss:.4f}, {rate:,.0f} images/s"
            if done < self.steps:
                print(self.text, end="\r" if sys.stdout.isatty() else "\n", flush=True)

    def close(self, result: str) -> None:
        if self.shown:
            print(f"{self.text}, {result}", flush=True)


if __name__ == "__main__":
    main()
