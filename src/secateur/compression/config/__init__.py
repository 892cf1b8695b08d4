"""The config list: NNI's language for what is compressed and how, checked before anything happens."""

from ._distillation import DISTILLATION as DISTILLATION
from ._distillation import DistillationSettings as DistillationSettings
from ._entries import Checked as Checked
from ._files import read_config as read_config
from ._files import write_config as write_config
from ._granularity import Channels as Channels
from ._granularity import Granularity as Granularity
from ._granularity import channels_of as channels_of
from ._keys import PRUNING as PRUNING
from ._keys import Key as Key
from ._keys import Mode as Mode
from ._parse import parse as parse
from ._quantization import AUTO_FUSION as AUTO_FUSION
from ._quantization import QUANTIZATION as QUANTIZATION
from ._quantization import QuantizationSettings as QuantizationSettings
from ._quantization import fusible as fusible
from ._resolved import AUTO as AUTO
from ._resolved import ModuleConfig as ModuleConfig
from ._resolved import Resolved as Resolved
from ._settings import Align as Align
from ._settings import PruningSettings as PruningSettings
from ._targets import Target as Target
from ._targets import TargetKind as TargetKind
from ._targets import find_target as find_target
from ._typed import Entry as Entry
from ._typed import Settings as Settings
