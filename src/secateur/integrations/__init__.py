"""What other libraries keep beside a model's weights, made to fit a cut."""

from ._transformers import FittedConfig as FittedConfig
from ._transformers import fit_config as fit_config
