"""Helpers under NNI's import path (``nni.compression.utils``)."""

from ..evaluators import BackwardHook as BackwardHook
from ..evaluators import ForwardHook as ForwardHook
from ..evaluators import TensorHook as TensorHook
from ._groups import auto_set_denpendency_group_ids as auto_set_denpendency_group_ids
from ._groups import auto_set_dependency_group_ids as auto_set_dependency_group_ids
from ._nested import get_nested_attr as get_nested_attr
from ._nested import has_nested_attr as has_nested_attr
from ._nested import set_nested_attr as set_nested_attr
from ._scaling import Scaling as Scaling
from ._sparsity import compute_sparsity_compact2origin as compute_sparsity_compact2origin
from ._sparsity import compute_sparsity_mask2compact as compute_sparsity_mask2compact
