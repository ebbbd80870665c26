# DALI imports these without saying that it exports them, which strict mode asks for.
from nvidia.dali import data_node as data_node
from nvidia.dali import fn as fn
from nvidia.dali import math as math
from nvidia.dali import types as types
from nvidia.dali.pipeline import Pipeline as Pipeline
from nvidia.dali.pipeline import pipeline_def as pipeline_def

__version__: str
