"""Cost: what a model takes, computed from its graph for any keep sets, or measured."""

from ._functions import BoundCost as BoundCost
from ._functions import CostFunction as CostFunction
from ._functions import Macs as Macs
from ._functions import Measurable as Measurable
from ._functions import MeasuredCost as MeasuredCost
from ._functions import Parameters as Parameters
from ._functions import WidthCost as WidthCost
from ._latency import Latency as Latency
from ._latency import measure_latency as measure_latency
from ._macs import count_macs as count_macs
from ._macs import count_parameters as count_parameters
from ._macs import module_macs as module_macs
from ._polynomial import CostPolynomial as CostPolynomial
from ._polynomial import mac_cost as mac_cost
from ._polynomial import mac_savings as mac_savings
from ._polynomial import parameter_cost as parameter_cost
from ._polynomial import settled_widths as settled_widths
from ._predicted import PredictedLatency as PredictedLatency
from ._table import LatencyTable as LatencyTable
