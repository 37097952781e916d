// Weights: what a layer declares, and the memory that all of a rank's weights share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"

namespace shoestring {

/// Rows [begin, begin + rows) of a parameter under the name they have on disk. Fused projections and stacked experts
/// are one matrix in memory and several tensors in a checkpoint.
struct ParameterSlice {
  std::string name;  ///< Hugging Face name, "model.layers.0.self_attn.q_proj.weight"
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  Shape shape;  ///< on disk: [rows, columns], or [rows] for a vector
};

/// How the optimizer treats a parameter.
enum class ParameterRole : std::uint8_t {
  matrix,     ///< weight of a Linear: decayed; Muon's when that is the optimizer
  embedding,  ///< token table or output head: decayed no more than a norm, always AdamW
  vector,     ///< norm gains, biases: not decayed, always AdamW
  statistic,  ///< moved by its own rule, has no gradient (router balancing bias)
  factor,     ///< of an adapter: decayed, and in no model folder, which has what the adapter adds to
};

class Adapter;

/// Experts [first, first + count) of a mixture, by their numbers in the whole model, whichever ranks hold the others.
struct ExpertRange {
  std::int64_t first = 0;
  std::int64_t count = 0;  ///< 0: not of experts
};

/// One weight matrix with its gradient sum: [rows, columns] in f32 (f64 in an fp64 run); a vector is [rows, 1].
/// A layer declares it (shape, slices, role) when it is built; ParameterStore gives it memory.
struct Parameter {
  ParameterRole role = ParameterRole::matrix;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<ParameterSlice> slices;  ///< in row order, covering all rows
  double init_std = 0;                 ///< normal initialisation; 0: filled with init_value
  double init_value = 0;
  ExpertRange experts;               ///< whose weights these are, stacked in equal runs of rows
  bool overwrites_first = false;     ///< its layer honours `grad_is_stale`
  bool frozen = false;               ///< stays as it is: neither gradient nor moments
  const Adapter* adapter = nullptr;  ///< adds to some of its slices

  TensorView value;  ///< master weight
  TensorView grad;   ///< accumulated over micro-batches; empty where there is none
  /// Of experts whose tokens come from several ranks: [sources, rows, columns], a sum for each, `grad` being the first.
  TensorView grads_by_source;
  /// What `grad` holds is of an earlier batch: the first sum overwrites it and clears this. Saves a pass over memory.
  bool grad_is_stale = false;

  std::int64_t elements() const { return rows * columns; }
  bool has_gradient() const { return role != ParameterRole::statistic && !frozen; }
  bool of_experts() const { return experts.count > 0; }
  /// The number, in the whole model, of the expert that `slice` belongs to; only where of_experts().
  std::int64_t expert_of(const ParameterSlice& slice) const {
    return experts.first + slice.begin / (rows / experts.count);
  }
};

/// Elements [begin, end) of a store's buffers.
struct StoreRegion {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool empty() const { return begin == end; }
  std::int64_t elements() const { return end - begin; }
};

/// Where each parameter of a rank stands in its store: known without memory.
struct StorePlan {
  std::vector<Parameter*> parameters;  ///< dense ones, then those of experts, then statistics
  std::vector<std::int64_t> offsets;   ///< of each
  StoreRegion dense;
  StoreRegion experts;
  std::int64_t elements = 0;  ///< statistics included

  StorePlan(std::vector<Parameter*> all, DType dtype);
};

/// All weights of a rank in one buffer, and all gradients in another: reduction, clipping and zeroing see flat arrays.
/// Two regions, one behind the other, since their sums are over different ranks: dense parameters are the same on all
/// ranks of a stage, those of experts on the ranks that hold the same experts. What has no gradient comes last. Within
/// each, the order is as given. Each parameter starts at a multiple of 64 bytes; the gaps stay zero.
///
/// With several `sources`, the gradients of experts stand behind `experts` once more for each further one, region
/// behind region: tokens of different ranks belong to different reduction groups, and their sums are kept apart until
/// these are added in order (parallel/reduction.h).
struct ParameterStore : StorePlan {
  Tensor values;     ///< [elements] flat
  Tensor gradients;  ///< [elements that have one, and experts once for each further source] flat, same offsets
  int sources = 1;   ///< of the gradients of experts

  /// `sources` 0: no gradients at all, for a model that is not trained.
  ParameterStore(std::vector<Parameter*> all, DType dtype, int sources = 1, Device device = {});
  ConstTensorView gradients_of(StoreRegion region) const {
    return gradients.view().slice(0, region.begin, region.elements());
  }
  TensorView values_of(StoreRegion region) { return values.view().slice(0, region.begin, region.elements()); }
  TensorView dense_gradients() { return gradients.view().slice(0, dense.begin, dense.end); }
  /// [sources * region], source by source.
  TensorView expert_gradients() {
    return gradients.view().slice(0, experts.begin, sources * (experts.end - experts.begin));
  }
};

}  // namespace shoestring
