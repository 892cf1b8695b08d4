"""Capture: a model and its inputs become a graph of operators.

One real run is watched at the dispatcher (:func:`record`); the model is given back as it was.
"""

from ._copies import copy_with as copy_with
from ._copies import like as like
from ._ghost import Ghost as Ghost
from ._graph import Graph as Graph
from ._graph import Node as Node
from ._graph import Ref as Ref
from ._graph import Site as Site
from ._graph import Source as Source
from ._graph import Value as Value
from ._graph import map_tree as map_tree
from ._modules import ModuleStack as ModuleStack
from ._modules import owned_tensors as owned_tensors
from ._modules import unwrap as unwrap
from ._operators import gives_views as gives_views
from ._operators import is_composite as is_composite
from ._operators import is_inplace_view as is_inplace_view
from ._pytree import map_tensors as map_tensors
from ._pytree import named_tensors as named_tensors
from ._pytree import tensors_in as tensors_in
from ._recorder import Detail as Detail
from ._recorder import ModuleCall as ModuleCall
from ._recorder import Recorder as Recorder
from ._recorder import below_autograd as below_autograd
from ._recorder import call_site as call_site
from ._recorder import record as record
from ._state import untouched as untouched
from ._state import without_gc as without_gc
from ._watch import Visit as Visit
from ._watch import Watch as Watch
from ._written_once import written_once as written_once
