"""The rules of PyTorch's own operators, one file a family.

Importing this package fills the table. A rule states in a few lines how the dimensions of its
operator relate; what it returns are the dimensions of the result.
"""

from . import attention as attention
from . import convolution as convolution
from . import creation as creation
from . import elementwise as elementwise
from . import indexing as indexing
from . import joining as joining
from . import linear as linear
from . import matrices as matrices
from . import modules as modules
from . import normalization as normalization
from . import pooling as pooling
from . import recurrent as recurrent
from . import reduction as reduction
from . import shape as shape
