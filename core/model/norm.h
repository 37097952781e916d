// RMSNorm with its gain: a part of other layers.
//
// The gain's gradient is a small sum over a large tensor: it is taken in backward_input, where that tensor is at hand,
// kept in Saved ([width] numbers), and added to the parameter by backward_weight.
#pragma once

#include <cstdint>
#include <string>

#include "core/model/layer.h"
#include "core/model/precision.h"

namespace shoestring {

struct NormOptions {
  std::string name;  ///< on disk
  std::int64_t width = 0;
  std::int64_t heads = 1;  ///< rows per token: QK-norm normalises each head
  double eps = 1e-6;
  DType master = DType::f32;
};

class Linear;

class Norm {
 public:
  explicit Norm(const NormOptions& options);
  Norm(const Norm&) = delete;
  Norm& operator=(const Norm&) = delete;

  /// x and y are [tokens, width], or [tokens, heads, width]. x must stay until backward_input. Where y has no data it
  /// goes to `reader` in FP8 (Linear::expect_input).
  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, Linear* reader = nullptr);
  /// sum = x + residual, y = norm(sum); sum takes the place of x.
  void forward(ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView y, Saved& saved,
               LayerContext& context, Linear* reader = nullptr);
  /// y again, from the x that forward was given.
  void recompute(ConstTensorView x, TensorView y, LayerContext& context) const;
  /// dx is overwritten (and may be dy), or added to with `accumulate`.
  void backward_input(ConstTensorView dy, TensorView dx, bool accumulate, Saved& saved, LayerContext& context);
  void backward_weight(Saved& saved, LayerContext& context);

  Parameter gain;

 private:
  struct Record {
    ConstTensorView x;
    TensorView rstd;
    TensorView dgain;
  };
  void normalise(ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView y, TensorView rstd,
                 LayerContext& context) const;
  void normalise_into(Linear& reader, ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView rstd,
                      Saved& saved, LayerContext& context) const;
  TensorView take_rstd(ConstTensorView x, Saved& saved, LayerContext& context) const;
  ConstTensorView gamma() const { return gain.value.reshaped({options_.width}); }

  NormOptions options_;
};

}  // namespace shoestring
