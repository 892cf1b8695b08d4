"""What operators make of zeros: the kinds that a rule's ``flow`` can be.

``keeps``: f(0) = 0 or positions are only moved. ``multiplies``: one zero factor is enough.
``weighs``: ``input * weight + bias``. ``normalizes``: normalised, then weighted. ``zeros``: a tensor
of zeros. ``loses``: nothing is known, the default. A flow of one's own is a function from
:class:`Flow` to :class:`Signal`, made of ``add`` and ``multiply``.
"""

from ._flow import Flow as Flow
from ._flow import Signal as Signal
from ._flow import add as add
from ._flow import adds as adds
from ._flow import keeps as keeps
from ._flow import loses as loses
from ._flow import multiplies as multiplies
from ._flow import multiply as multiply
from ._flow import normalizes as normalizes
from ._flow import weighs as weighs
from ._flow import zeros as zeros
