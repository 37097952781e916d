// Ops that quantise what they make, and never write it down plain: what their rows share. For swiglu_quantize,
// rms_norm_quantize and gather_quantize.
#pragma once

#include <functional>

#include "kernels/base/memory.h"
#include "kernels/quantize.h"

namespace shoestring::quantization {

/// A matrix [rows, columns] that has no memory: it is quantised as it is made.
ConstTensorView unwritten(const Shape& shape, DType dtype, Device device);

/// What quantize() is to do with the matrix that a fused op makes.
template <class Args>
QuantizeArgs casts_of(const Args& args, const ConstTensorView& made) {
  QuantizeArgs casts{.x = made,
                     .row_tiles = args.row_tiles,
                     .column_tiles = args.column_tiles,
                     .scale_kind = args.scale_kind,
                     .counts = args.counts,
                     .stream = args.stream};
  if constexpr (requires { args.segments; }) casts.segments = args.segments;
  return casts;
}

/// Throws where arguments break quantize()'s contract; nothing here reads x. In quantize.cpp.
void check_arguments(const QuantizeArgs& args);
/// The same for `op`, whose row tiles are no taller than a row.
void check_casts(const QuantizeArgs& casts, const char* op);

/// Writes the rows of the matrix from `first` on into `rows`, of its format.
using MakeRows = std::function<void(TensorView rows, std::int64_t first)>;

/// quantize(casts) of a matrix that `make` makes, on a CPU: a block of rows is made, quantised while it is in cache,
/// and forgotten. Takes block_scratch_bytes(columns) of `scratch` meanwhile.
void quantize_in_blocks(const QuantizeArgs& casts, const MakeRows& make, Arena& scratch);
std::int64_t block_scratch_bytes(std::int64_t columns);

}  // namespace shoestring::quantization
