"""Quantisers: values are rounded to grids of integers, simulated while a model is trained (NNI's names)."""

from ._bnn import BNNQuantizer as BNNQuantizer
from ._calibration import CalibrationConfig as CalibrationConfig
from ._carry import carry_calibration as carry_calibration
from ._dorefa import DoReFaQuantizer as DoReFaQuantizer
from ._equalize import EqualPair as EqualPair
from ._equalize import equalize as equalize
from ._grid import Grid as Grid
from ._lsq import LsqPlusQuantizer as LsqPlusQuantizer
from ._lsq import LsqQuantizer as LsqQuantizer
from ._ptq import PTQQuantizer as PTQQuantizer
from ._ptq import PtqQuantizer as PtqQuantizer
from ._qat import QATQuantizer as QATQuantizer
from ._quantizer import Quantizer as Quantizer
