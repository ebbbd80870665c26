"""Small images first, larger ones later, as FFCV-ImageNet and EfficientNetV2 train.

    python examples/progressive_sizes.py --train TRAIN --val VAL --device gpu
    torchrun --nproc-per-node 8 examples/progressive_sizes.py …

A phase is a loader of its own that begins with its epoch: the order of the data goes on as if
nothing had changed. Batches may grow smaller as images grow larger. Run again, it goes on where it
was stopped, in the middle of an epoch, too.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext

import timm
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import dali_cutmix as dcm

# As FFCV-ImageNet has them: until which part of the epochs, the side, and the batch's share.
PHASES = ((0.4, 128, 1.0), (0.75, 160, 0.75), (1.0, 192, 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, metavar="SOURCE")
    parser.add_argument("--val", required=True, metavar="SOURCE")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--smaller", type=int, default=1, metavar="TIMES", help="for a try")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--out", default="run", metavar="DIR")
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="as an interruption would")
    args = parser.parse_args()

    on_gpu = args.device == "gpu"
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if world > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    torch.manual_seed(0)
    mix = dcm.MixConfig(cutmix_alpha=1.0, mixup_alpha=0.2, label_smoothing=0.1)
    classes = len(dcm.find_source(args.train).classes)
    model = timm.create_model(args.model, num_classes=classes).to(device)
    forward = DistributedDataParallel(model) if world > 1 else model
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    autocast = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    path, saved, step = os.path.join(args.out, "last.pt"), None, 0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
    os.makedirs(args.out, exist_ok=True)

    begin = 0
    for part, side, share in PHASES:
        end = round(part * args.epochs)
        # A state at the end of a phase is that of its loader, in the epoch after its last.
        if begin == end or (saved and saved["loader"]["epoch"] >= end):
            begin = end
            continue
        train = dcm.train_loader(
            args.train, batch_size=round(args.batch_size * share), size=side // args.smaller,
            mix=mix, device=args.device, start_epoch=begin,
        )  # fmt: skip
        val = dcm.val_loader(args.val, like=train)
        if saved and saved["side"] == side:  # else it is the end of the phase before
            train.load_state_dict(saved["loader"])
        with train, val:
            while train.epoch < end:
                model.train()
                for images, targets in train:
                    with autocast:
                        loss = dcm.losses.cross_entropy(forward(images), targets)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    step += 1
                    at_end = train.epoch == end
                    if rank == 0 and (step % args.save_every == 0 or at_end):
                        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
                        state |= {"loader": train.state_dict(), "side": side, "step": step}
                        torch.save(state, path + ".new")
                        os.replace(path + ".new", path)
                    if step == args.stop_after:
                        return
                top_1 = accuracy(model, val, device)
                if rank == 0:
                    print(f"epoch {train.epoch - 1}: {side} pixels, top-1 {top_1:.2%}", flush=True)
        begin, saved = end, None
    if world > 1:
        dist.destroy_process_group()


@torch.no_grad()
def accuracy(model: torch.nn.Module, val: dcm.Loader, device: torch.device) -> float:
    model.eval()
    found = torch.zeros(2, dtype=torch.int64, device=device)
    for images, labels in val:
        counted = labels >= 0  # an image that comes twice is counted once, see val_loader
        right = model(images).argmax(dim=1) == labels
        found += torch.stack([(right & counted).sum(), counted.sum()])
    if dist.is_initialized():
        dist.all_reduce(found)
    return float(found[0] / found[1])


if __name__ == "__main__":
    main()
