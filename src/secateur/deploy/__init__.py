"""Deployment: a model as a file that another runtime runs, with real integers where they were simulated."""

from ..folding import FoldReport as FoldReport
from ..folding import fold_batch_norm as fold_batch_norm
from ._compare import Agreement as Agreement
from ._config_list import int8_config_list as int8_config_list
from ._executorch import ExecutorchModel as ExecutorchModel
from ._executorch import to_executorch as to_executorch
from ._exported import OpenVinoModel as OpenVinoModel
from ._exported import to_openvino as to_openvino
from ._exported import to_pt2 as to_pt2
from ._integers import to_integers as to_integers
from ._onnx import OnnxModel as OnnxModel
from ._report import DeployReport as DeployReport
from ._to_onnx import to_onnx as to_onnx
from ._torch_int8 import TorchInt8Model as TorchInt8Model
from ._torch_int8 import to_torch_int8 as to_torch_int8
