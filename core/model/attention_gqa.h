// Grouped-query attention: fused q, k, v projection (with bias in Qwen2), QK-norm before RoPE (Qwen3), half-split RoPE,
// causal attention inside documents, output projection.
#pragma once

#include <memory>
#include <string>

#include "core/model/config.h"
#include "core/model/linear.h"
#include "core/model/norm.h"
#include "kernels/rope.h"

namespace shoestring {

class AttentionGqa final : public Layer {
 public:
  /// `prefix` is "model.layers.N.self_attn."; `rope` must outlive the layer and be filled before the first forward.
  AttentionGqa(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix,
               const RopeTable& rope);

  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) override;
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) override;
  void backward_weight(Saved& saved, LayerContext& context) override;
  Linear* input_reader() override { return qkv_.get(); }
  bool keeps_input() const override { return qkv_->keeps_input(); }
  bool keeps_gradient() const override { return out_->keeps_gradient(); }
  std::vector<Parameter*> parameters() override;
  std::vector<Linear*> linears() override { return {qkv_.get(), out_.get()}; }
  void prepare(const PrepareContext& context) override;

 private:
  struct Record {
    TensorView qkv;  ///< [tokens, (heads + 2 kv_heads) * dim]: rotated in place, or as it was before QK-norm
    TensorView o;    ///< [tokens, heads * dim]
    TensorView lse;  ///< [heads, tokens]
  };
  /// Queries and keys as attention reads them, [tokens, heads, dim].
  struct Rotated {
    TensorView q;
    TensorView k;
  };
  Rotated rotated(const Record& record, bool again, Saved& saved, LayerContext& context);
  std::int64_t width() const { return (heads_ + 2 * kv_heads_) * dim_; }

  std::int64_t heads_;
  std::int64_t kv_heads_;
  std::int64_t dim_;
  double scale_;
  DType activation_;
  DType master_;
  const RopeTable& rope_;
  std::unique_ptr<Linear> qkv_;
  std::unique_ptr<Linear> out_;
  std::unique_ptr<Norm> q_norm_;  ///< QK-norm, or nothing
  std::unique_ptr<Norm> k_norm_;
};

}  // namespace shoestring
