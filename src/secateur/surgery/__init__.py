"""Surgery: a plan of what happens to every tensor and attribute, and carrying it out."""

from ._apply import Cut as Cut
from ._apply import ParameterMap as ParameterMap
from ._apply import Undo as Undo
from ._apply import cut_copy as cut_copy
from ._apply import cut_inplace as cut_inplace
from ._attention import MultiheadAttention as MultiheadAttention
from ._code import Followed as Followed
from ._code import Following as Following
from ._code import explain as explain
from ._code import unfoldable as unfoldable
from ._follow import follow as follow
from ._graph_module import graph_module as graph_module
from ._masking import masked_model as masked_model
from ._plan import Plan as Plan
from ._plan import build_plan as build_plan
from ._plan import keep_sets as keep_sets
from ._plan import removed_positions as removed_positions
from ._replay import Replayed as Replayed
