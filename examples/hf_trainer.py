"""Hugging Face's Trainer on these loaders, mixed on the GPU, resuming exactly.

    python examples/hf_trainer.py --train TRAIN --val VAL --recipe rsb-a3 --device gpu
    torchrun --nproc-per-node 8 examples/hf_trainer.py …

Three things to know:
 - the Trainer asks for its loaders in two methods, which give ours; those shuffle, shard and mix;
 - soft labels need a loss of their own, here in the model;
 - the Trainer's own way to resume is to read and throw away what was seen. `Position` saves where
   the loader stands with each checkpoint instead, and `ignore_data_skip` says that it does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import timm
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import dali_cutmix as dcm


class Classifier(torch.nn.Module):
    def __init__(self, recipe: dcm.Recipe, model: str, num_classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = timm.create_model(model, num_classes=num_classes)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.model(pixel_values)
        if labels.ndim == 1:  # validation; an image that comes again has label -100, see val_loader
            loss = torch.nn.functional.cross_entropy(logits, labels)
        elif self.recipe.loss == "bce":
            threshold = self.recipe.target_threshold
            loss = dcm.losses.binary_cross_entropy(logits, labels, target_threshold=threshold)
        else:
            smoothing = self.recipe.loss_smoothing
            loss = dcm.losses.cross_entropy(logits, labels, label_smoothing=smoothing)
        return {"loss": loss, "logits": logits}


class Named:
    """A loader whose batches are the dictionaries that the Trainer takes."""

    def __init__(self, loader: dcm.Loader) -> None:
        self.loader = loader

    def __iter__(self):
        for images, labels in self.loader:
            yield {"pixel_values": images, "labels": labels}

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str):  # dataset, batch_size, set_epoch …
        return getattr(self.__dict__["loader"], name)


class Position(TrainerCallback):
    """Saves where the training loader stands with each checkpoint, and goes on from there."""

    def __init__(self, loader: dcm.Loader) -> None:
        self.loader = loader

    def on_save(self, args, state, _control, **_) -> None:
        if state.is_world_process_zero:  # its state is that of every rank
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            (folder / "loader.json").write_text(json.dumps(self.loader.state_dict()))

    def restore(self, checkpoint: str) -> None:
        self.loader.load_state_dict(json.loads(Path(checkpoint, "loader.json").read_text()))


class MixedTrainer(Trainer):
    def __init__(self, *args, train: dcm.Loader, val: dcm.Loader, **options) -> None:
        super().__init__(*args, train_dataset=train.dataset, eval_dataset=val.dataset, **options)
        self.train_batches, self.val_batches = Named(train), Named(val)

    def get_train_dataloader(self) -> Named:
        return self.train_batches

    def get_eval_dataloader(self, _dataset=None) -> Named:
        return self.val_batches


def top_1(found) -> dict[str, float]:
    counted = found.label_ids >= 0
    return {"top-1": float((found.predictions.argmax(-1) == found.label_ids)[counted].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, metavar="SOURCE")
    parser.add_argument("--val", required=True, metavar="SOURCE")
    parser.add_argument("--recipe", default="rsb-a3")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--out", default="run", metavar="DIR")
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--stop-after", type=int, default=-1, metavar="STEPS")
    args = parser.parse_args()

    recipe = dcm.recipes.get(args.recipe)
    options = TrainingArguments(
        output_dir=args.out,
        num_train_epochs=recipe.epochs if args.epochs is None else args.epochs,
        max_steps=args.stop_after,
        per_device_train_batch_size=args.batch_size,
        learning_rate=1e-3,
        weight_decay=0.05,
        bf16=args.device == "gpu",
        use_cpu=args.device == "cpu",
        save_steps=args.save_every,
        eval_strategy="epoch",
        ignore_data_skip=True,
        report_to="none",
        seed=0,
    )
    # After TrainingArguments, which joins the other processes: every rank reads its own part.
    train = dcm.train_loader(
        args.train, batch_size=args.batch_size, recipe=recipe, size=args.size, device=args.device
    )
    val = dcm.val_loader(args.val, like=train)
    position = Position(train)
    trainer = MixedTrainer(
        Classifier(recipe, args.model, train.num_classes),
        options,
        train=train,
        val=val,
        callbacks=[position],
        compute_metrics=top_1,
    )
    checkpoint = get_last_checkpoint(args.out) if Path(args.out).is_dir() else None
    if checkpoint:
        position.restore(checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(Path(args.out, "final")))


if __name__ == "__main__":
    main()
