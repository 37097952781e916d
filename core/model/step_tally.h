// What a pass over micro-batches adds up to besides gradients.
//
// A value: whoever runs the pass makes it (Transformer::tally), hands it down with every call, and reads it when the
// pass is over. The model keeps no statistic of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/host_waits.h"
#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"
#include "kernels/quantize.h"

namespace shoestring {

/// A loss as a sum over tokens.
struct LossSum {
  double loss = 0;          ///< in nats, each token's times its weight
  std::int64_t tokens = 0;  ///< the trained ones
  double weight = 0;        ///< of those: what the mean is over
  LossSum& operator+=(const LossSum& other) {
    loss += other.loss;
    tokens += other.tokens;
    weight += other.weight;
    return *this;
  }
};

struct ObjectiveSums {
  LossSum main;
  LossSum further;  ///< of multi-token prediction, not weighted
  ObjectiveSums& operator+=(const ObjectiveSums& other) {
    main += other.main;
    further += other.further;
    return *this;
  }
};

/// What quantisation lost, by tensor class.
struct PrecisionCounts {
  QuantizeCounts activations;
  QuantizeCounts weights;
  QuantizeCounts gradients;
};

/// Where losses are added: on the device that makes them.
struct LossTotals {
  TensorView loss;    ///< f64 [1]
  TensorView tokens;  ///< i64 [1]
  TensorView weight;  ///< f64 [1]
};
struct ObjectiveTotals {
  LossTotals main, further;
};

/// On a device the ops add up there, where these point; the numbers below come to the host with `send` and `receive`,
/// or `collect`.
struct StepTally {
  StepTally() = default;
  /// Empty, for a model with `mixtures` mixtures of `experts` experts each, on whichever ranks they stand.
  StepTally(std::int64_t mixtures, std::int64_t experts, bool count_precision, Device device = {});

  ObjectiveSums objective;             ///< of the last stage
  PrecisionCounts precision;           ///< activations and gradients; zero where precision is not counted
  Tensor expert_loads;                 ///< i64 [mixtures, experts] slots that chose each; empty without experts
  std::vector<double> balance_losses;  ///< [mixtures] weighted, summed over tokens
  HostWaits waits;                     ///< of the layers, on a device

  /// Everything is zero again, in the same memory: on a device, whose allocations wait, a tally serves many passes.
  void clear(Stream& stream);
  /// Where quantised activations (gradients) are counted; nullptr: nowhere.
  QuantizeCounts* activations();
  QuantizeCounts* gradients();
  /// i64 [experts] of one mixture.
  TensorView loads_of(std::int64_t mixture);
  /// f64 [1] of one mixture.
  TensorView balance_of(std::int64_t mixture);
  /// Where the objective of a micro-batch is added: in `here` on a CPU, whose sums the caller adds when they are
  /// complete; on a device in the tally itself.
  ObjectiveTotals totals(ObjectiveSums& here);
  /// Gives the numbers to `to`, host memory that is taken the first time: they are there when the stream has been
  /// waited for, whatever the tally counts from now on.
  void send(Storage& to, Stream& stream) const;
  /// The numbers become those of `from`, all of them; the waits, which are the host's own, stay.
  void receive(const Storage& from);
  /// Brings the numbers to the host, and waits for them; nothing to do on a CPU.
  void collect(Stream& stream);
  /// Over all mixtures, in their order.
  double balance_loss() const;

 private:
  /// What has a place on a device, in one piece.
  struct Sums {
    ObjectiveSums objective;
    PrecisionCounts precision;
  };
  Sums* there() { return static_cast<Sums*>(sums_there_.view().data); }
  std::int64_t bytes() const;

  bool counts_precision_ = false;
  Tensor sums_there_;  ///< i64, as many as a Sums has room for; empty on a CPU, as the next two
  Tensor balance_there_;
  Tensor loads_there_;
};

/// Sums; `amax` becomes the larger one.
QuantizeCounts& operator+=(QuantizeCounts& counts, const QuantizeCounts& more);
PrecisionCounts& operator+=(PrecisionCounts& counts, const PrecisionCounts& more);

}  // namespace shoestring
