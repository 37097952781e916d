// A low-rank adapter of a Linear: y += factor * (x A^T) B^T for each projection that is adapted (Hu et al., "LoRA",
// arXiv 2106.09685, section 4.1). W itself is frozen; A and B are what is trained.
//
// Both are Linears of their own, in the formats that a low-precision policy leaves plain: the A of all projections of
// one fused Linear are one [projections * rank, in], each B is [rows of the projection, rank]. A begins with normal
// numbers and B with zeros, so a run begins with the model as it is. Of stacked experts both are stacks too, each
// expert's A and B its own.
//
// A model folder knows no adapters: it holds W + factor * B A (`add_to`), while W, A and B stand with the optimizer's
// state, since W cannot be had back from the sum to the bit (core/training/model_files.h).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/model/linear.h"

namespace shoestring {

class Adapter {
 public:
  /// Of the slices of `host` that `lora.targets` names; nullptr where it names none.
  static std::unique_ptr<Adapter> of(const LinearOptions& host, const LoraSpec& lora);

  /// As Linear has them, but both add: to y and to dx, which are dense. x must stay until backward_weight.
  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, ExpertOffsets offsets,
               bool keep_input);
  void keep_input(ConstTensorView x, Saved& saved, LayerContext& context, ExpertOffsets offsets) {
    down_.keep_input(x, saved, context, offsets);
  }
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context, ExpertOffsets offsets);
  void backward_weight(Saved& saved, LayerContext& context, ExpertOffsets offsets);

  void prepare(const PrepareContext& context);
  std::vector<Parameter*> factors();

  bool adapts(const ParameterSlice& slice) const { return places_.contains(slice.name); }
  /// sum += factor * B A; [rows of `slice`, in], in the format of the master weights.
  void add_to(TensorView sum, const ParameterSlice& slice, Stream& stream) const;

 private:
  /// One projection, of every expert: columns [begin, begin + rows) of y.
  struct Projection {
    std::int64_t begin;
    std::unique_ptr<Linear> up;  ///< B
  };
  /// Of a disk tensor.
  struct Place {
    std::size_t projection = 0;
    std::int64_t expert = 0;
  };
  using Targets = std::vector<std::vector<const ParameterSlice*>>;  ///< of each projection, expert by expert
  static Targets targets_of(const LinearOptions& host, const LoraSpec& lora);
  static LinearOptions down_options(const LinearOptions& host, const LoraSpec& lora, const Targets& targets);
  static LinearOptions up_options(const LinearOptions& host, const LoraSpec& lora,
                                  const std::vector<const ParameterSlice*>& experts);
  Adapter(const LinearOptions& host, const LoraSpec& lora, const Targets& targets);
  std::int64_t narrow() const { return down_.out(); }
  /// The columns of a [rows, projections * rank] that are of projection number i.
  TensorView columns(TensorView all, std::size_t i) const {
    return all.slice(1, static_cast<std::int64_t>(i) * rank_, rank_);
  }

  std::int64_t rank_;
  std::int64_t out_;  ///< of the host
  double factor_;
  bool covers_;  ///< every column of y is of some projection
  LinearPrecision precision_;
  Linear down_;  ///< A
  std::vector<Projection> projections_;
  std::map<std::string, Place> places_;  ///< by name on disk
};

}  // namespace shoestring
