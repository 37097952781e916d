#include "core/optimizer/optimizer.h"

#include <cstring>
#include <utility>

#include "core/optimizer/muon.h"
#include "kernels/fill.h"

namespace shoestring {
namespace {

// Two optimizers, each with its own parameters, as one.
class Pair : public Optimizer {
 public:
  Pair(std::unique_ptr<Optimizer> first, std::unique_ptr<Optimizer> second)
      : first_(std::move(first)), second_(std::move(second)) {}

  void step(const OptimizerStep& step, Stream& stream) override {
    first_->step(step, stream);
    second_->step(step, stream);
  }
  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all = first_->state();
    for (OptimizerState& part : second_->state()) all.push_back(std::move(part));
    return all;
  }
  std::int64_t state_bytes() const override { return first_->state_bytes() + second_->state_bytes(); }

 private:
  std::unique_ptr<Optimizer> first_;
  std::unique_ptr<Optimizer> second_;
};

}  // namespace

Storage state_memory(const OptimizerSpec& spec, std::int64_t bytes, Device device) {
  return spec.state == StateMemory::host ? Storage::pinned(bytes, device.dry) : Storage(bytes, device);
}

void begin_anew(Optimizer& optimizer, Stream& stream) {
  for (const OptimizerState& state : optimizer.state()) {
    if (state.data.device == stream.device()) {
      fill(state.data, 0.0, stream);
    } else {
      std::memset(state.data.data, 0, static_cast<std::size_t>(state.data.bytes()));
    }
  }
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, MomentFormat moments,
                                          const std::vector<ParameterPart>& parts, int workers) {
  std::vector<ParameterPart> matrices;
  std::vector<ParameterPart> others;
  for (const ParameterPart& part : parts) {
    if (!part.parameter->has_gradient()) continue;
    (moved_by_muon(spec.name, *part.parameter) ? matrices : others).push_back(part);
  }
  if (spec.name == OptimizerName::adamw) return make_adamw(spec, moments, others);
  return std::make_unique<Pair>(make_muon(spec, moments, matrices, workers), make_adamw(spec, moments, others));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, MomentFormat moments,
                                          const std::vector<Parameter*>& parameters, int workers) {
  return make_optimizer(spec, moments, whole_parts(parameters), workers);
}

}  // namespace shoestring
