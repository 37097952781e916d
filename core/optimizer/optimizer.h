// What moves the weights: one step over all parameters from their summed gradients.
//
// AdamW serves every parameter, or Muon the matrices of the hidden layers and of adapters (muon.h) and AdamW the rest.
// State is kept per parameter and known by the parameters' disk names, so that any parallel layout loads any
// checkpoint. An optimizer may be given parts of the parameters only (shards.h): it moves these, and keeps state for
// these.
//
// State may stand in host memory while the weights are on a device (optimizer.state = host): then a piece at a time is
// copied there, moved as it would be in place, and copied back, with the same bits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model/layer.h"
#include "core/optimizer/shards.h"
#include "core/recipe/recipe.h"
#include "kernels/base/device.h"
#include "kernels/base/memory.h"

namespace shoestring {

/// A tensor of the optimizer's state under its name in a checkpoint: "exp_avg.model.norm.weight".
struct OptimizerState {
  std::string name;
  TensorView data;         ///< as on the disk, in the device's or the host's memory; flat where it is a part
  std::int64_t begin = 0;  ///< of a part: its first element in the flat tensor
  bool part = false;       ///< other ranks have the rest
};

struct OptimizerStep {
  double learning_rate;
  double gradient_scale;       ///< 1 / trained tokens of the global batch, times the clip factor
  std::int64_t number;         ///< of this update, from 1
  HostWaits* waits = nullptr;  ///< where waits of the host are counted; optional
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Reads Parameter::grad, moves Parameter::value; the gradients are left as they are. State in host memory is there
  /// when it returns.
  virtual void step(const OptimizerStep& step, Stream& stream) = 0;
  /// Every tensor of state, in parameter and slice order; what restores a run bit for bit.
  virtual std::vector<OptimizerState> state() = 0;
  /// Of what `state` lists.
  virtual std::int64_t state_bytes() const = 0;
};

/// Zeroed memory for state of weights on `device`, where `spec` wants it.
Storage state_memory(const OptimizerSpec& spec, std::int64_t bytes, Device device);

/// State as it was before the first step: the weights are others.
void begin_anew(Optimizer& optimizer, Stream& stream);

/// What has no gradient is skipped: it is frozen, or moves by its own rule (router biases). `workers` as the stream of
/// `step` will have.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, MomentFormat moments,
                                          const std::vector<ParameterPart>& parts, int workers);
/// Of whole parameters.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, MomentFormat moments,
                                          const std::vector<Parameter*>& parameters, int workers);

/// AdamW over `parts`; weight decay applies to matrices and factors of adapters only.
std::unique_ptr<Optimizer> make_adamw(const OptimizerSpec& spec, MomentFormat moments,
                                      const std::vector<ParameterPart>& parts);
/// Muon over matrices: Nesterov momentum, orthogonalised by Newton-Schulz per disk tensor (each projection and expert
/// by itself), scaled by 0.2 sqrt(max(rows, columns)) so that AdamW's learning rate and decay fit (Liu et al., "Muon
/// is scalable for LLM training", arXiv 2502.16982, section 2.2). Parts are whole disk tensors.
std::unique_ptr<Optimizer> make_muon(const OptimizerSpec& spec, MomentFormat moments,
                                     const std::vector<ParameterPart>& parts, int workers);

}  // namespace shoestring
