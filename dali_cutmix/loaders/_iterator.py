"""DALI's iterator over one pipeline, and all that this package knows of its inside.

Beside `dali_cutmix._dali` the only module with private names of DALI; tests/test_dali.py has a
test for each.
"""

from __future__ import annotations

import numpy as np
import torch
from nvidia.dali import Pipeline
from nvidia.dali.backend import TensorCPU, TensorGPU
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator
from torch.utils.dlpack import from_dlpack

from dali_cutmix import _dali

__all__ = ["Batches", "to_torch"]


class Batches(DALIGenericIterator):
    """DALI's iterator over one pipeline, which loses no exception of a signal and no pinned output.

    In DALI's own __next__, torch.from_dlpack compares the device of the tensor, a pybind11 enum of
    DALI, with an enum of torch. pybind11 asks the class of that for an attribute, by
    PyObject_HasAttrString, which drops every exception; and before Python 3.12 the answer is Python
    code, EnumType.__getattr__, where a signal can arrive. A KeyboardInterrupt of that moment is
    gone, and the loop goes on: of Ctrl-C in a loop over tiny images, one in some 250. And
    torch.from_dlpack refuses pinned memory.
    """

    def __init__(self, pipeline: Pipeline, reader_name: str, *, even: bool = False) -> None:
        if even and not pipeline.exec_dynamic:  # DALI's __next__ then drops the padding itself
            raise ValueError("`even` must be False for a pipeline with exec_dynamic=False.")
        super().__init__(
            pipeline,
            [f"output {i}" for i in range(pipeline.num_outputs)],
            reader_name=reader_name,
            last_batch_policy=LastBatchPolicy.PARTIAL,
            auto_reset=True,
            prepare_first_batch=False,
        )

    def outputs(self) -> list[torch.Tensor]:
        """Returns what __next__ does, without the names, and with the samples that are padding."""
        (pipeline,) = self._pipes
        if not pipeline.exec_dynamic:  # then DALI copies them, without any from_dlpack
            return list(next(self)[0].values())
        self._ever_consumed = True
        tensors = [to_torch(output.as_tensor()) for output in self._get_outputs()[0]]
        self._schedule_runs()
        self._advance_and_check_drop_last()
        return tensors

    def close(self) -> None:
        """Stops the pipeline and frees its memory.

        Not left to its __del__, where an exception of a signal would be lost.
        """
        for pipeline in self._pipes:
            _dali.shut_down(pipeline)

    def abandon(self) -> None:
        """Lets go of the pipeline, in a forked child, where its threads are not."""
        for pipeline in self._pipes:
            _dali.abandon(pipeline)


_PINNED = 3  # kDLCUDAHost, among DLPack's types of devices


def to_torch(tensor: TensorCPU | TensorGPU) -> torch.Tensor:
    """Returns a tensor of DALI as one of torch, for torch's current stream.

    Without a copy, but of a CPU output that also goes to the GPU, as lam does: that is in pinned
    memory. DALI would use it again while a ``.cuda(non_blocking=True)`` still reads it, because
    torch delays only the release of pinned memory of its own.
    """
    if isinstance(tensor, TensorGPU):
        stream = torch.cuda.current_stream(tensor.device_id()).cuda_stream
        return from_dlpack(tensor.__dlpack__(stream=stream or 1))  # 1: the default stream
    if int(tensor.__dlpack_device__()[0]) == _PINNED:
        return torch.from_numpy(np.array(tensor))
    return from_dlpack(tensor.__dlpack__())
