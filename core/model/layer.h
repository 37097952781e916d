// What a model is made of: layers, and the activations a layer keeps for its backward pass.
//
// A Layer holds weights, never activations. What forward must remember lives in a Saved: the activations of one
// (stage, micro-batch), born in forward, read by backward_input and backward_weight, ended by the latter. There are no
// hidden closures, so the memory of a schedule that delays weight gradients is visible, bounded and planned. No layer
// says how much it takes: a dry run of it does (kernels/base/memory.h, Transformer::memory).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/model/parameter.h"
#include "core/model/step_tally.h"
#include "kernels/base/tensor.h"
#include "kernels/quantize.h"

namespace shoestring {

class Linear;

/// Activations of one (stage, micro-batch): one arena, and one record per layer that says what lies where.
class Saved {
 public:
  explicit Saved(Arena& arena) : arena_(&arena) {}

  TensorView take(DType dtype, const Shape& shape) { return arena_->take(dtype, shape); }

  /// The record of `owner`, created on first use. Record is a plain struct of views and small values.
  template <class Record>
  Record& record(const void* owner) {
    std::shared_ptr<void>& slot = records_[owner];
    if (!slot) slot = std::make_shared<Record>();
    return *static_cast<Record*>(slot.get());
  }

  Arena& arena() { return *arena_; }
  /// Memory of `owner` beside the arena, for what cannot be planned; nothing is taken of it yet.
  Arena& beside(const void* owner) {
    Arena& arena = beside_.try_emplace(owner, Arena::growing(arena_->device())).first->second;
    arena.reset();
    return arena;
  }
  void clear() {
    records_.clear();
    arena_->reset();
  }
  std::int64_t beside_bytes() const {
    std::int64_t bytes = 0;
    for (const auto& [owner, arena] : beside_) bytes += arena.capacity_bytes();
    return bytes;
  }

 private:
  Arena* arena_;
  std::map<const void*, std::shared_ptr<void>> records_;
  std::map<const void*, Arena> beside_;  ///< outlives clear()
};

/// Where the tokens of a micro-batch stand. All views are i32.
struct TokenLayout {
  ConstTensorView positions;        ///< [tokens] place within the document, for RoPE
  ConstTensorView segment_start;    ///< [tokens] flat index of the first token of the same document
  ConstTensorView sequence_starts;  ///< [sequences + 1] flat index of each sequence's first token, then the end
  /// What segment_start says, on the host: each document's first token, then the end. Empty where nobody knows.
  std::span<const std::int32_t> document_starts{};
};

/// What memory depends on besides the layer itself.
struct RunShape {
  std::int64_t tokens = 0;              ///< of one micro-batch, at most
  std::int64_t sequences = 1;           ///< of one micro-batch, at most
  int workers = 1;                      ///< of the stream
  DeviceKind device = DeviceKind::cpu;  ///< where a model will lie; one that has its memory knows
};

/// Generation: where one layer keeps the keys and values of earlier tokens, as cached_attention has them.
struct CachedRows {
  TensorView keys;
  TensorView values;
  ConstTensorView slots;  ///< [tokens] i32, the sequence of each token
};

/// What a layer call needs besides its tensors. `scratch` is free again when the call returns.
struct LayerContext {
  const TokenLayout& tokens;
  Arena& scratch;
  Stream& stream;
  bool training = true;                ///< false: no backward pass will follow, and no statistic is kept
  StepTally* tally = nullptr;          ///< where statistics are added up; nullptr: nowhere
  const CachedRows* cached = nullptr;  ///< the tokens continue these sequences; nullptr: they are whole documents
  /// Scratch of layers that cannot plan theirs (mixtures whose experts are shared), one call at a time.
  Arena* growing = nullptr;

  HostWaits* waits() const { return tally != nullptr ? &tally->waits : nullptr; }
  QuantizeCounts* activation_counts() const { return tally != nullptr ? tally->activations() : nullptr; }
  QuantizeCounts* gradient_counts() const { return tally != nullptr ? tally->gradients() : nullptr; }
};

struct PrepareContext {
  Arena& scratch;
  Stream& stream;
  QuantizeCounts* counts = nullptr;         ///< of weights; optional
  QuantizeCounts* expert_counts = nullptr;  ///< of those of experts
  bool backward = true;                     ///< also what the backward pass reads
};

/// One differentiable part of a model: x [tokens, in] -> y [tokens, out].
///
/// Tensors of the caller: x and dy are read during the call. Where keeps_input() (keeps_gradient()) says so, x (dy)
/// is read again by later calls and must stay as it is until backward_weight of the same micro-batch has returned.
class Layer {
 public:
  virtual ~Layer() = default;

  /// y is overwritten.
  virtual void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) = 0;
  /// dx is overwritten. On the critical path: does nothing that can wait, except where waiting would keep a large
  /// tensor alive for a small sum (norm gains: their sum over tokens is taken here and added later).
  virtual void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) = 0;
  /// Any later time, once per forward; adds into Parameter::grad. Everything it needs is in `saved`.
  virtual void backward_weight(Saved& saved, LayerContext& context) = 0;

  /// The one Linear that reads x, where nothing else does: x may then come to it in FP8 (Linear::expect_input), and be
  /// a view without data here.
  virtual Linear* input_reader() { return nullptr; }
  virtual bool keeps_input() const = 0;
  virtual bool keeps_gradient() const = 0;

  virtual std::vector<Parameter*> parameters() = 0;
  /// Those that adapters can be put on; `parameters` does not list their factors.
  virtual std::vector<Linear*> linears() { return {}; }
  /// Refreshes whatever is derived from the weights (casts, packed panels); called after each optimizer step.
  virtual void prepare(const PrepareContext& context) = 0;
};

/// to = from; same shape and format, both contiguous.
void copy_tensor(TensorView to, ConstTensorView from, Stream& stream);
/// to = from, rounded once; f32 and bf16, either way, both contiguous.
void convert_tensor(TensorView to, ConstTensorView from, Stream& stream);

/// `heads` heads of `dim` columns each, from column `begin` of a matrix: [tokens, heads, dim].
TensorView heads_of(TensorView matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim);
ConstTensorView heads_of(ConstTensorView matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim);

}  // namespace shoestring
