// Copies between views on any pair of devices.
#pragma once

#include "kernels/base/tensor.h"

namespace shoestring {

/// to = from, enqueued on `stream` (a CPU stream copies before the call returns). Same format and shape; the regions do
/// not overlap. Between CPU memory any strides will do. Where a CUDA device takes part, the stream is on that device,
/// rows (the last dim) are dense and earlier dims collapse into one pitch; host memory that is not pinned makes the
/// call wait.
void copy(TensorView to, ConstTensorView from, Stream& stream);

}  // namespace shoestring
