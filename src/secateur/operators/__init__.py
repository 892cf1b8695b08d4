"""Operators of our own, which stay whole where a model is exported."""

from ._fake_quantize import fake_quantize as fake_quantize
from ._integers import AVERAGE as AVERAGE
from ._integers import DEQUANTIZE as DEQUANTIZE
from ._integers import LIMITS as LIMITS
from ._integers import QUANTIZE as QUANTIZE
from ._integers import along as along
from ._integers import dequantize as dequantize
from ._integers import global_average as global_average
from ._integers import quantize as quantize
