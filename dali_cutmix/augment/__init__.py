"""Augmentations of timm, torchvision and DeiT III as graphs of native DALI operators."""
