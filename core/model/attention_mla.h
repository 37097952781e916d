// Multi-head latent attention: queries and keys/values pass through small latents; a rotated key part is shared by all
// heads.
//
//   [cq | ckv | kr] = x Wa;   q = norm(cq) Wqb (or straight from x);   [k_own | v] per head = norm(ckv) Wkvb
//   q = [q_own | rope(q_rope)],  k = [k_own | rope(kr)] per head,   scale = qk_dim^-0.5 (times mscale^2 under YaRN)
//
// In generation the latents may be kept instead of the heads' keys and values (key_value_cache.h): then
//   scores = (q_own Wk_head) . ckv + rope(q_rope) . rope(kr),   o = (sum of p ckv) Wv_head
// the same numbers, but for rounding: Wkvb is moved over to the queries and to what comes out.
//
// Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1; V3, section 2.1.1. RoPE is interleaved. The inner norms' epsilon
// is 1e-6 whatever the model's: readers of the exported model build them so.
#pragma once

#include <memory>
#include <string>

#include "core/model/config.h"
#include "core/model/linear.h"
#include "core/model/norm.h"
#include "kernels/rope.h"

namespace shoestring {

class AttentionMla final : public Layer {
 public:
  /// `prefix` is "model.layers.N.self_attn."; `rope` must outlive the layer and be filled before the first forward.
  AttentionMla(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix,
               const RopeTable& rope);

  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) override;
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) override;
  void backward_weight(Saved& saved, LayerContext& context) override;
  Linear* input_reader() override { return down_.get(); }
  bool keeps_input() const override { return down_->keeps_input(); }
  bool keeps_gradient() const override { return out_->keeps_gradient(); }
  std::vector<Parameter*> parameters() override;
  std::vector<Linear*> linears() override;
  void prepare(const PrepareContext& context) override;

 private:
  struct Record {
    TensorView down;  ///< [tokens, query part + kv latent + rope], its rope part rotated
    TensorView q;     ///< [tokens, heads * qk_dim], rotated
    TensorView kv;    ///< [tokens, heads * (nope + v_dim)]
    TensorView o;     ///< [tokens, heads * v_dim]
    TensorView lse;   ///< [heads, tokens]
  };
  TensorView keys(const Record& record, LayerContext& context) const;  ///< into scratch
  TensorView shared_key(TensorView down) const { return down.slice(1, query_ + latent_, rope_dim_); }
  TensorView query_rope(TensorView q) const { return heads_of(q, 0, heads_, qk_dim()).slice(2, nope_, rope_dim_); }
  void rotate(TensorView q, TensorView down, bool inverse, LayerContext& context) const;
  void project_heads(const Record& record, Saved& saved, LayerContext& context);
  void attend_latents(const Record& record, Saved& saved, LayerContext& context);
  /// The weights of one head's keys, [nope, latent], or values, [v_dim, latent].
  ConstTensorView head_weights(std::int64_t head, bool values) const;
  TensorView take_input(const Linear& reader, std::int64_t tokens, Saved& saved, LayerContext& context) const;
  TensorView take(bool saved_too, std::int64_t tokens, std::int64_t columns, Saved& saved, LayerContext& context) const;
  std::int64_t qk_dim() const { return nope_ + rope_dim_; }
  std::int64_t down_width() const { return query_ + latent_ + rope_dim_; }
  std::int64_t kv_width() const { return heads_ * (nope_ + v_dim_); }

  std::int64_t heads_;
  std::int64_t nope_;
  std::int64_t rope_dim_;
  std::int64_t v_dim_;
  std::int64_t query_;   ///< columns of the first product that belong to queries: their latent, or all heads
  std::int64_t latent_;  ///< kv_lora_rank
  double scale_;
  DType activation_;
  DType master_;
  const RopeTable& rope_;
  std::unique_ptr<Linear> down_;
  std::unique_ptr<Norm> q_norm_;  ///< with a query latent
  std::unique_ptr<Linear> q_up_;  ///< likewise
  std::unique_ptr<Norm> kv_norm_;
  std::unique_ptr<Linear> kv_up_;
  std::unique_ptr<Linear> out_;
};

}  // namespace shoestring
