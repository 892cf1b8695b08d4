"""Recipes: model, data, and what is done to them, in one YAML file."""

from ._plan import Plan as Plan
from ._plan import plan as plan
from ._read import read_recipe as read_recipe
from ._run import Outcome as Outcome
from ._run import explain as explain
from ._run import run as run
from ._schema import Recipe as Recipe
