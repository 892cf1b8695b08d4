"""Targets as they are simulated: masks, and what reads them after that, on a model that goes on training."""

from ._blocks import block_counts as block_counts
from ._blocks import block_rows as block_rows
from ._blocks import spread as spread
from ._hooked import ActivationSite as ActivationSite
from ._hooked import BufferSite as BufferSite
from ._hooked import looking as looking
from ._parameters import SITES as SITES
from ._parameters import ParameterSite as ParameterSite
from ._site import Gate as Gate
from ._site import Key as Key
from ._site import Reading as Reading
from ._site import Site as Site
from ._site import key_of as key_of
from ._sites import Extra as Extra
from ._sites import Sites as Sites
