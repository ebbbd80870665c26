"""PyTorch Lightning: a LightningDataModule around the loaders. It needs nothing but this.

    python examples/lightning_module.py --train TRAIN --val VAL --recipe rsb-a3 --device gpu

A loader is an iterable with a length and a state, which is all that Lightning asks for:
 - the batches are on the GPU already, so Lightning moves nothing;
 - the loaders are made when Lightning asks for them, so every rank reads its own shard, and
   Lightning, which wraps torch DataLoaders alone in a DistributedSampler, leaves them alone;
 - Lightning saves and restores the state of the training loader with its checkpoints, so a run
   goes on in the middle of an epoch (--resume), on every rank from the state of the first; from a
   checkpoint of an epoch's end it goes on because Lightning sets the epoch of `loader.sampler`.
"""

from __future__ import annotations

import argparse

import pytorch_lightning as pl
import timm
import torch

import dali_cutmix as dcm


class ImageData(pl.LightningDataModule):
    def __init__(self, train: str, val: str, device: str = "gpu", resize=None, **options) -> None:
        super().__init__()
        self.train, self.val, self.resize = train, val, resize
        self.options = {"device": device, **options}

    def train_dataloader(self) -> dcm.Loader:
        return dcm.train_loader(self.train, **self.options)

    def val_dataloader(self) -> dcm.Loader:
        return dcm.val_loader(self.val, resize=self.resize, **self.options)


class Classifier(pl.LightningModule):
    def __init__(self, recipe: dcm.Recipe, model: str, num_classes: int, epochs: int) -> None:
        super().__init__()
        self.recipe, self.epochs = recipe, epochs
        self.model = timm.create_model(model, num_classes=num_classes)

    def training_step(self, batch) -> torch.Tensor:
        images, targets = batch
        if self.recipe.loss == "bce":
            threshold = self.recipe.target_threshold
            return dcm.losses.binary_cross_entropy(
                self.model(images), targets, target_threshold=threshold
            )
        smoothing = self.recipe.loss_smoothing
        return dcm.losses.cross_entropy(self.model(images), targets, label_smoothing=smoothing)

    def validation_step(self, batch) -> None:
        images, labels = batch
        right = self.model(images).argmax(dim=1) == labels
        counted = labels >= 0  # an image that comes twice is counted once, see val_loader
        share, count = right[counted].float().mean(), int(counted.sum())
        self.log("top-1", share, prog_bar=True, batch_size=count, sync_dist=True)

    def configure_optimizers(self):
        optimiser = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)
        # Not by trainer.estimated_stepping_batches: asked here, it makes Lightning (2.6) set up the
        # loaders before it has read a checkpoint, and their state is then not restored.
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)
        return [optimiser], [schedule]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, metavar="SOURCE")
    parser.add_argument("--val", required=True, metavar="SOURCE")
    parser.add_argument("--recipe", default="rsb-a3")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int)
    parser.add_argument("--resize", type=int, help="of validation, before the crop")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--devices", type=int, help="processes; default: one for each GPU")
    parser.add_argument("--out", default="run", metavar="DIR")
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--resume", metavar="CHECKPOINT")
    parser.add_argument("--stop-after", type=int, metavar="EPOCHS", help="of all the epochs")
    args = parser.parse_args()

    pl.seed_everything(0)
    recipe = dcm.recipes.get(args.recipe)
    data = ImageData(
        args.train,
        args.val,
        args.device,
        recipe=recipe,
        batch_size=args.batch_size,
        size=args.size,
        resize=args.resize,
        num_classes=args.num_classes,
    )
    saver = pl.callbacks.ModelCheckpoint(
        args.out, "{step}", every_n_train_steps=args.save_every, save_top_k=-1
    )
    epochs = recipe.epochs if args.epochs is None else args.epochs
    trainer = pl.Trainer(
        max_epochs=args.stop_after or epochs,
        accelerator=args.device,
        devices=args.devices or ("auto" if args.device == "gpu" else 1),
        precision="bf16-mixed" if args.device == "gpu" else "32-true",
        callbacks=[saver],
        default_root_dir=args.out,
        logger=False,
    )
    model = Classifier(recipe, args.model, args.num_classes, epochs)
    trainer.fit(model, datamodule=data, ckpt_path=args.resume)
    trainer.save_checkpoint(f"{args.out}/final.ckpt")


if __name__ == "__main__":
    main()
