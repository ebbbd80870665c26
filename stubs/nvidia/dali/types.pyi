# DALI's module takes the members of its enums from a binary, so that a type checker sees none.
from collections.abc import Sequence
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
from nvidia.dali._backend_enums import DALIDataType as DALIDataType
from nvidia.dali._backend_enums import DALIImageType as DALIImageType
from nvidia.dali._backend_enums import DALIInterpType as DALIInterpType
from nvidia.dali.data_node import DataNode

BOOL: Final = DALIDataType.BOOL
UINT8: Final = DALIDataType.UINT8
INT16: Final = DALIDataType.INT16
UINT16: Final = DALIDataType.UINT16
INT32: Final = DALIDataType.INT32
UINT32: Final = DALIDataType.UINT32
INT64: Final = DALIDataType.INT64
FLOAT16: Final = DALIDataType.FLOAT16
FLOAT: Final = DALIDataType.FLOAT
FLOAT64: Final = DALIDataType.FLOAT64
INTERP_TYPE: Final = DALIDataType.INTERP_TYPE

RGB: Final = DALIImageType.RGB
GRAY: Final = DALIImageType.GRAY
ANY_DATA: Final = DALIImageType.ANY_DATA

INTERP_NN: Final = DALIInterpType.INTERP_NN
INTERP_LINEAR: Final = DALIInterpType.INTERP_LINEAR
INTERP_CUBIC: Final = DALIInterpType.INTERP_CUBIC

class ScalarConstant:
    value: float
    dtype: DALIDataType

@overload
def Constant(
    value: npt.NDArray[np.generic] | Sequence[float],
    dtype: DALIDataType | None = ...,
    shape: Sequence[int] | None = ...,
    layout: str | None = ...,
    device: str | None = ...,
) -> DataNode: ...
@overload
def Constant(value: float, dtype: DALIDataType | None = ...) -> ScalarConstant: ...
def to_numpy_type(dali_type: DALIDataType) -> Any: ...
