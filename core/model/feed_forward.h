// The gated feed-forward: y = down(silu(gate x) * (up x)), gate and up fused in one Linear.
//
// Kept for the backward pass: [gate | up], in FP8 under cache_fp8 (where its width allows whole tiles). SwiGLU's output
// is made again in the backward pass (DeepSeek-V3, section 3.3.3).
#pragma once

#include <memory>
#include <string>

#include "core/model/linear.h"

namespace shoestring {

struct FeedForwardOptions {
  std::int64_t hidden = 0;
  std::int64_t width = 0;
  double init_std = 0;
  std::string prefix;  ///< "model.layers.N.mlp."
  PrecisionSpec precision;
};

class FeedForward final : public Layer {
 public:
  explicit FeedForward(const FeedForwardOptions& options);

  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) override;
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) override;
  void backward_weight(Saved& saved, LayerContext& context) override;
  Linear* input_reader() override { return &gate_up_; }
  bool keeps_input() const override { return gate_up_.keeps_input(); }
  bool keeps_gradient() const override { return down_.keeps_gradient(); }
  std::vector<Parameter*> parameters() override;
  std::vector<Linear*> linears() override { return {&gate_up_, &down_}; }
  void prepare(const PrepareContext& context) override;

 private:
  struct Record {
    ConstScaledView gate_up;  ///< [tokens, 2 * width]
    TensorView plain;         ///< its memory where it was not quantised: the gradient overwrites it
  };

  std::int64_t width_;
  DType activation_;
  bool cached_fp8_;
  Linear gate_up_;
  Linear down_;
};

/// Whether [gate | up] of `width` columns each is kept in FP8 under `precision`.
bool caches_gate_up(const LinearPrecision& precision, std::int64_t width);
/// `gate_up` quantised along columns into `arena`, as SwiGLU's gradient reads it.
ConstScaledView cache_gate_up(const LinearPrecision& precision, ConstTensorView gate_up, Arena& arena,
                              LayerContext& context);
/// SwiGLU's output, times `row_weight` unless that is empty, on its way to `down`: plain from scratch, or without data
/// where `down` takes it in FP8 and finds it there.
ConstTensorView activate(Linear& down, const ConstScaledView& gate_up, ConstTensorView row_weight, Saved& saved,
                         LayerContext& context, ExpertOffsets offsets = {});
/// The same output made again, kept for the weight gradient of `down`, which takes it in FP8.
void keep_activation(Linear& down, const ConstScaledView& gate_up, ConstTensorView row_weight, Saved& saved,
                     LayerContext& context, ExpertOffsets offsets = {});

}  // namespace shoestring
