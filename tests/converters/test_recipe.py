import pytest

from converters import recipe
from edge.errors import UnknownNameError


def test_recipes_are_found_by_their_own_names() -> None:
    assert {name: recipe.get(name).name for name in recipe.RECIPES} == {name: name for name in recipe.RECIPES}
    assert [name for name in recipe.RECIPES if recipe.get(name).calibrated] == ["int8", "int8-full", "int16x8"]


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown recipe 'int-8'. Did you mean 'int8'"):
        recipe.get("int-8")
