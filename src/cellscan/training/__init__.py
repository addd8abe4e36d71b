"""Training: the recipe, the augmentations, and a step for your own training loop."""

from cellscan.tasks.augment import make_augment as make_augment
from cellscan.tasks.augment import random_background as random_background
from cellscan.tasks.programs import TrainState as TrainState
from cellscan.tasks.recipe import Recipe as Recipe
from cellscan.training.step import init_state as init_state
from cellscan.training.step import make_train_step as make_train_step
from cellscan.training.step import trained_module as trained_module
