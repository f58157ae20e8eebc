"""Named, serialisable ways to convert a policy.

A name says what the integers are: `int8` has 8-bit weights and 8-bit activations, with float input and output.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import UnknownNameError


@dataclass(frozen=True)
class Recipe:
    """A way to convert.

    Attributes:
      name: what it is called on the command line and in the manifest.
      weight_bits: bits of a weight; 32 is float.
      activation_bits: bits of an activation; 32 is float.
      summary: one line for people.
    """

    name: str
    weight_bits: int
    activation_bits: int
    summary: str

    @property
    def quantised(self) -> bool:
        """Whether the recipe needs calibration."""
        return self.activation_bits < 32


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", 32, 32, "32-bit floats throughout"),
        Recipe("int8", 8, 8, "8-bit integer kernels between float input and output; weights per channel"),
    )
}


def get(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
      UnknownNameError: there is none.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]
