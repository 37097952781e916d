#include "kernels/adamw.h"

#include <algorithm>

#include "core/optimizer/optimizer.h"

namespace shoestring {
namespace {

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerSpec& spec, MomentFormat moments, const std::vector<ParameterPart>& parts) : spec_(spec) {
    for (const ParameterPart& part : parts) {
      DType dtype = moments == MomentFormat::bf16 ? DType::bf16 : DType::f32;
      if (part.parameter->value.dtype == DType::f64) dtype = DType::f64;
      const Device device = part.parameter->value.device;
      moments_.push_back({part, Tensor(dtype, {part.elements}, device), Tensor(dtype, {part.elements}, device)});
    }
  }

  void step(const OptimizerStep& step, Stream& stream) override {
    std::vector<AdamwArgs> all;
    all.reserve(moments_.size());
    for (Moments& entry : moments_) {
      const Parameter& parameter = *entry.part.parameter;
      const auto part_of = [&](const TensorView& whole) {
        return whole.reshaped({parameter.elements()}).slice(0, entry.part.begin, entry.part.elements);
      };
      const bool decayed = parameter.role == ParameterRole::matrix || parameter.role == ParameterRole::factor;
      all.push_back({.parameter = part_of(parameter.value),
                     .first_moment = entry.first,
                     .second_moment = entry.second,
                     .copy = {},
                     .gradient = part_of(parameter.grad),
                     .gradient_scale = step.gradient_scale,
                     .learning_rate = step.learning_rate,
                     .beta1 = spec_.beta1,
                     .beta2 = spec_.beta2,
                     .eps = spec_.epsilon,
                     .weight_decay = decayed ? spec_.weight_decay : 0.0,
                     .step = step.number,
                     .stream = stream});
    }
    adamw_steps(all);
  }

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    for (Moments& entry : moments_) {
      for (const ParameterSlice& slice : entry.part.parameter->slices) {
        add_state("exp_avg." + slice.name, entry.part, slice, entry.first, all);
        add_state("exp_avg_sq." + slice.name, entry.part, slice, entry.second, all);
      }
    }
    return all;
  }

  std::int64_t state_bytes() const override {
    std::int64_t bytes = 0;
    for (const Moments& entry : moments_) bytes += entry.first.bytes() + entry.second.bytes();
    return bytes;
  }

 private:
  struct Moments {
    ParameterPart part;
    Tensor first;   // [elements]
    Tensor second;  // [elements]
  };
  /// What `moment`, of `part`, has of a disk tensor.
  static void add_state(std::string name, const ParameterPart& part, const ParameterSlice& slice, Tensor& moment,
                        std::vector<OptimizerState>& all) {
    const std::int64_t columns = part.parameter->columns;
    const std::int64_t first = slice.begin * columns;
    const std::int64_t begin = std::max(part.begin, first);
    const std::int64_t end = std::min(part.begin + part.elements, first + slice.rows * columns);
    if (begin >= end) return;
    const bool whole = end - begin == slice.rows * columns;
    const TensorView flat = moment.view().slice(0, begin - part.begin, end - begin);
    all.push_back({.name = std::move(name),
                   .data = whole ? flat.reshaped({slice.rows, columns}) : flat,
                   .begin = begin - first,
                   .part = !whole});
  }
  OptimizerSpec spec_;
  std::vector<Moments> moments_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerSpec& spec, MomentFormat moments,
                                      const std::vector<ParameterPart>& parts) {
  return std::make_unique<AdamW>(spec, moments, parts);
}

}  // namespace shoestring
