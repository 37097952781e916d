// What RMSNorm hands to its CUDA kernels. Included by rms_norm_cuda.cu and rms_norm_cuda.cpp only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/base/tensor.h"

namespace shoestring::rms_norm::cuda {

/// Rows of a [tokens, hidden] or [tokens, heads, dim] tensor, or one number per row; data == nullptr when absent.
struct DeviceRows {
  void* data;
  std::int64_t inner;  ///< rows in the second dim: heads, or 1
  std::int64_t outer_stride;
  std::int64_t inner_stride;
  SHOESTRING_HOST_DEVICE std::int64_t at(std::int64_t row) const {
    return row / inner * outer_stride + row % inner * inner_stride;
  }
};

struct ForwardParameters {
  DeviceRows y;
  DeviceRows rstd;
  DeviceRows x;
  DeviceRows residual;
  DeviceRows sum;
  const float* gamma;
  std::int64_t rows;
  std::int64_t width;
  float eps;
};

struct InputGradientParameters {
  DeviceRows dx;
  DeviceRows dy;
  DeviceRows x;
  DeviceRows rstd;
  const float* gamma;
  std::int64_t rows;
  std::int64_t width;
  bool accumulate;
};

struct WeightGradientParameters {
  float* dgamma;
  DeviceRows dy;
  DeviceRows x;
  DeviceRows rstd;
  std::int64_t rows;
  std::int64_t width;
};

void launch(const ForwardParameters& p, DType dtype, cudaStream_t stream);
void launch(const InputGradientParameters& p, DType dtype, cudaStream_t stream);
void launch(const WeightGradientParameters& p, DType dtype, cudaStream_t stream);

}  // namespace shoestring::rms_norm::cuda
