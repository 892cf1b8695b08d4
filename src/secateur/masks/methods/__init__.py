"""``torch.nn.utils.prune``, name for name, safe, and with more methods.

What is better than in torch, with the same calls:

- a call that fails, a second one on the same parameter too, leaves everything as it was;
- a pruned module can be copied and pickled at any time, and ``module.weight`` is never out of date;
- who reads ``module.weight`` past the hook, as ``nn.MultiheadAttention`` does, gets it masked;
- parameters keep their order, so the state of an optimizer still fits;
- all owners of a tied parameter are masked together.
"""

from ._base import BasePruningMethod as BasePruningMethod
from ._base import PruningContainer as PruningContainer
from ._blocks import LnBlocks as LnBlocks
from ._blocks import NOfM as NOfM
from ._blocks import Scored as Scored
from ._checkpoint import hold_masked as hold_masked
from ._checkpoint import load_state_dict as load_state_dict
from ._functions import by_score as by_score
from ._functions import custom_from_mask as custom_from_mask
from ._functions import identity as identity
from ._functions import is_pruned as is_pruned
from ._functions import l1_unstructured as l1_unstructured
from ._functions import ln_blocks as ln_blocks
from ._functions import ln_structured as ln_structured
from ._functions import n_of_m as n_of_m
from ._functions import random_structured as random_structured
from ._functions import random_unstructured as random_unstructured
from ._functions import remove as remove
from ._global import global_structured as global_structured
from ._global import global_unstructured as global_unstructured
from ._masked import MaskedParameter as MaskedParameter
from ._methods import CustomFromMask as CustomFromMask
from ._methods import Identity as Identity
from ._methods import L1Unstructured as L1Unstructured
from ._methods import LnStructured as LnStructured
from ._methods import RandomStructured as RandomStructured
from ._methods import RandomUnstructured as RandomUnstructured
