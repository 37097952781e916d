// One pre-norm residual block: h = x + attention(norm(x)), y = h + feed_forward(norm(h)).
#pragma once

#include <cstdint>
#include <memory>

#include "core/model/config.h"
#include "core/model/layer.h"
#include "core/model/mixture_of_experts.h"
#include "core/model/norm.h"
#include "kernels/rope.h"

namespace shoestring {

class Block final : public Layer {
 public:
  /// Number `index` of the model, which decides its names ("model.layers.INDEX.") and what feed-forward it has.
  Block(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t index, const RopeTable& rope,
        const ExpertShare& share = {});

  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) override;
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) override;
  void backward_weight(Saved& saved, LayerContext& context) override;
  bool keeps_input() const override { return true; }
  bool keeps_gradient() const override { return feed_forward_->keeps_gradient(); }
  std::vector<Parameter*> parameters() override;
  std::vector<Linear*> linears() override;
  void prepare(const PrepareContext& context) override;

  /// The mixture of experts, or nullptr in a dense block.
  MixtureOfExperts* mixture() { return mixture_; }

 private:
  TensorView take(bool saved_too, std::int64_t tokens, Saved& saved, LayerContext& context) const;
  /// For what a layer reads; none where its one reader takes it in FP8.
  TensorView take_input(Layer& layer, std::int64_t tokens, Saved& saved, LayerContext& context) const;

  std::int64_t hidden_;
  DType activation_;
  Norm input_norm_;
  Norm post_norm_;
  std::unique_ptr<Layer> attention_;
  std::unique_ptr<Layer> feed_forward_;
  MixtureOfExperts* mixture_ = nullptr;
};

}  // namespace shoestring
