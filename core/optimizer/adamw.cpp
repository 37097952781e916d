#include "kernels/adamw.h"

#include "core/optimizer/optimizer.h"

namespace shoestring {
namespace {

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerSpec& spec, MomentFormat moments, const std::vector<Parameter*>& parameters) : spec_(spec) {
    for (Parameter* parameter : parameters) {
      DType dtype = moments == MomentFormat::bf16 ? DType::bf16 : DType::f32;
      if (parameter->value.dtype == DType::f64) dtype = DType::f64;
      const Shape shape = {parameter->rows, parameter->columns};
      moments_.push_back({parameter, Tensor(dtype, shape), Tensor(dtype, shape)});
    }
  }

  void step(const OptimizerStep& step, Stream& stream) override {
    for (Moments& entry : moments_) {
      const Shape flat = {entry.parameter->elements()};
      const bool decayed = entry.parameter->role == ParameterRole::matrix;
      adamw_step({.parameter = entry.parameter->value.reshaped(flat),
                  .first_moment = entry.first.view().reshaped(flat),
                  .second_moment = entry.second.view().reshaped(flat),
                  .copy = {},
                  .gradient = entry.parameter->grad.reshaped(flat),
                  .gradient_scale = step.gradient_scale,
                  .learning_rate = step.learning_rate,
                  .beta1 = spec_.beta1,
                  .beta2 = spec_.beta2,
                  .eps = spec_.epsilon,
                  .weight_decay = decayed ? spec_.weight_decay : 0.0,
                  .step = step.number,
                  .stream = stream});
    }
  }

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    for (Moments& entry : moments_) {
      for (const ParameterSlice& slice : entry.parameter->slices) {
        all.push_back({"exp_avg." + slice.name, entry.first.view().slice(0, slice.begin, slice.rows)});
        all.push_back({"exp_avg_sq." + slice.name, entry.second.view().slice(0, slice.begin, slice.rows)});
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
    Parameter* parameter;
    Tensor first;   // [rows, columns]
    Tensor second;  // [rows, columns]
  };
  OptimizerSpec spec_;
  std::vector<Moments> moments_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerSpec& spec, MomentFormat moments,
                                      const std::vector<Parameter*>& parameters) {
  return std::make_unique<AdamW>(spec, moments, parameters);
}

}  // namespace shoestring
