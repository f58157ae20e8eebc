"""Turn trained policies into proven TFLite files.

Needs TensorFlow; knows Keras networks, specs and observations, but nothing of how a policy was trained.
"""

from converters.conversion import Conversion, convert
from converters.recipe import RECIPES, Recipe

__all__ = ["RECIPES", "Conversion", "Recipe", "convert"]
