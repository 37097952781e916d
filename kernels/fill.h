// One value everywhere: gradients back to zero, sums that begin.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

/// x_i = value, rounded to x's format: f64, f32, bf16, i64 or i32. Dense, of any shape.
void fill(TensorView x, double value, Stream& stream);

// What the table runs: an element's bytes, everywhere.
struct FillArgs {
  TensorView x;
  std::array<std::byte, 8> element;  ///< the first size_bytes(x.dtype) of it
  Stream& stream;
};
std::span<const Variant<FillArgs>> fill_variants();

namespace filling::cuda {
std::string refuses(const FillArgs& args);
void run(const FillArgs& args);
}  // namespace filling::cuda

}  // namespace shoestring
