"""Training recipes: `Recipe`, and the published ones by name."""

from dali_cutmix.recipes.published import RECIPES, get
from dali_cutmix.recipes.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe, checked_tail_alpha

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "RECIPES", "Recipe", "checked_tail_alpha", "get"]
