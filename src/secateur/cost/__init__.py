"""Cost: what a model takes, computed from its graph for any keep sets, or measured."""

from ._latency import Latency as Latency
from ._latency import measure_latency as measure_latency
from ._macs import count_macs as count_macs
from ._macs import count_parameters as count_parameters
from ._polynomial import CostPolynomial as CostPolynomial
from ._polynomial import mac_cost as mac_cost
from ._polynomial import mac_savings as mac_savings
from ._polynomial import parameter_cost as parameter_cost
from ._polynomial import settled_widths as settled_widths
