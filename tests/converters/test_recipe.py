import dataclasses

import pytest

from converters import recipe
from edge.errors import UnknownNameError, UsageError


def test_recipes_are_found_by_their_own_names() -> None:
    assert {name: recipe.get(name).name for name in recipe.RECIPES} == {name: name for name in recipe.RECIPES}
    assert [name for name in recipe.RECIPES if recipe.get(name).calibrated] == ["int8", "int8-full", "int16x8"]
    assert {name: recipe.get(name).name for name in recipe.TRAINED_RECIPES} == {"int8x4": "int8x4", "int8x2": "int8x2"}


def test_what_cannot_be_combined_is_refused() -> None:
    for changes in ({"weight_bits": 16}, {"activations": "float32"}, {"weight_bits": 3}):
        with pytest.raises(UsageError, match=r"cannot be combined; these can: 32 and float32, 16 and float32, 8 and"):
            dataclasses.replace(recipe.RECIPES["int8"], **changes)
    with pytest.raises(UsageError, match="Calibrate on at least 100 observations, not 99"):
        dataclasses.replace(recipe.RECIPES["int8"], calibration_observations=99)
    with pytest.raises(UsageError, match="The recipe int8-full has no float layers to choose"):
        dataclasses.replace(recipe.RECIPES["int8-full"], float_layers=("a",))


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown recipe 'int-8'. Did you mean 'int8'"):
        recipe.get("int-8")
