"""Persistence: a small model as weights and a recipe for the original's own code.

No code is stored and nothing is unpickled: a file holds tensors (safetensors) and JSON.
"""

from ._load import load as load
from ._notes import note_cut as note_cut
from ._recipe import Recipe as Recipe
from ._save import read_recipe as read_recipe
from ._save import save as save
