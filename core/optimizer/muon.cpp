#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/optimizer/optimizer.h"
#include "kernels/base/workers.h"
#include "kernels/newton_schulz.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrainBytes = std::int64_t{1} << 16;

DType product_format(DType master) { return master == DType::f64 ? DType::f64 : DType::bf16; }

/// The largest update, and what orthogonalising the largest tensor takes.
struct Working {
  std::int64_t update_elements = 0;
  std::int64_t scratch_bytes = 0;
};

Working working_of(const std::vector<Parameter*>& matrices, DType master, int workers) {
  Working most;
  for (const Parameter* parameter : matrices) {
    for (const ParameterSlice& slice : parameter->slices) {
      most.update_elements = std::max(most.update_elements, slice.rows * parameter->columns);
      most.scratch_bytes =
          std::max(most.scratch_bytes,
                   newton_schulz_scratch_bytes(slice.rows, parameter->columns, master, product_format(master)) +
                       Arena::footprint(newton_schulz_product_bytes(slice.rows, parameter->columns, workers)));
    }
  }
  return most;
}

class Muon : public Optimizer {
 public:
  Muon(const OptimizerSpec& spec, MomentFormat moments, const std::vector<Parameter*>& parameters, int workers)
      : spec_(spec) {
    for (Parameter* parameter : parameters) {
      format_ = parameter->value.dtype;
      const DType dtype = format_ == DType::f64 ? DType::f64 : moments == MomentFormat::bf16 ? DType::bf16 : DType::f32;
      moments_.push_back({parameter, Tensor(dtype, {parameter->rows, parameter->columns})});
    }
    const Working working = working_of(parameters, format_, workers);
    update_ = Tensor(format_, {working.update_elements});
    scratch_ = Arena(working.scratch_bytes, {});
  }

  void step(const OptimizerStep& step, Stream& stream) override {
    for (Momentum& entry : moments_) {
      for (const ParameterSlice& slice : entry.parameter->slices) move(entry, slice, step, stream);
    }
  }

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    for (Momentum& entry : moments_) {
      for (const ParameterSlice& slice : entry.parameter->slices) {
        all.push_back({"momentum." + slice.name, entry.momentum.view().slice(0, slice.begin, slice.rows)});
      }
    }
    return all;
  }

  std::int64_t state_bytes() const override {
    std::int64_t bytes = 0;
    for (const Momentum& entry : moments_) bytes += entry.momentum.bytes();
    return bytes;
  }

 private:
  struct Momentum {
    Parameter* parameter;
    Tensor momentum;  // [rows, columns]
  };

  void move(Momentum& entry, const ParameterSlice& slice, const OptimizerStep& step, Stream& stream) {
    const std::int64_t columns = entry.parameter->columns;
    const Shape shape = {slice.rows, columns};
    TensorView momentum = entry.momentum.view().slice(0, slice.begin, slice.rows);
    TensorView weight = entry.parameter->value.slice(0, slice.begin, slice.rows);
    TensorView gradient = entry.parameter->grad.slice(0, slice.begin, slice.rows);

    scale(momentum, spec_.muon_momentum, stream);
    axpy(momentum, step.gradient_scale, gradient, stream);
    // Nesterov: the update looks one momentum step ahead.
    TensorView update = view_of(update_.as<void>(), format_, shape);
    stream.workers().split(update.bytes(), kGrainBytes, [&](std::int64_t begin, std::int64_t end) {
      std::memset(update.as<char>() + begin, 0, static_cast<std::size_t>(end - begin));
    });
    axpy(update, spec_.muon_momentum, momentum, stream);
    axpy(update, step.gradient_scale, gradient, stream);
    {
      const Arena::Scope scope(scratch_);
      newton_schulz({.update = update,
                     .matrix = update,
                     .steps = spec_.muon_iterations,
                     .product = product_format(format_),
                     .scratch = scratch_,
                     .stream = stream});
    }
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(slice.rows, columns)));
    scale(weight, 1.0 - step.learning_rate * spec_.weight_decay, stream);
    axpy(weight, -step.learning_rate * size, update, stream);
  }

  OptimizerSpec spec_;
  std::vector<Momentum> moments_;
  Tensor update_;
  Arena scratch_;
  DType format_ = DType::f32;
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(const OptimizerSpec& spec, MomentFormat moments,
                                     const std::vector<Parameter*>& parameters, int workers) {
  return std::make_unique<Muon>(spec, moments, parameters, workers);
}

std::int64_t muon_working_bytes(const std::vector<Parameter*>& matrices, DType master, int workers) {
  const Working working = working_of(matrices, master, workers);
  return working.update_elements * size_bytes(master) + working.scratch_bytes;
}

}  // namespace shoestring
