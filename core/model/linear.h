// A Linear under a precision policy: y = x W^T (+ bias), its input gradient and, any time later, its weight gradient.
//
//   forward           y  [rows, out] = x q(W)^T        x quantised along `in` (1x128), W in 128x128 blocks
//   backward_input    dx [rows, in]  = dy q(W)         dy quantised along `out` (1x128)
//   backward_weight   dW [out, in]  += dy^T x          both quantised along rows (128x1), sums in FP32
//
// Each product has its own format (LinearPrecision). An FP8 operand that is needed in both directions is read once:
// the copy along columns serves the product at hand only (quantized_gemm), the copy along rows waits in Saved for the
// weight gradient. Weights are quantised and packed once per `prepare`. Source: DeepSeek-V3 (arXiv 2412.19437),
// section 3.3.
//
// With experts > 0 it is a stack of such Linears over rows sorted by expert; tiles along rows restart at each expert.
// Rows of several sources are several such runs. Their weight gradients stand apart where the weight has room for that
// (Parameter::grads_by_source), else they are added in the order of the sources.
// Several projections of one input are one fused Linear with named row slices.
//
// Where the weight is frozen nothing is kept for its gradient, and an Adapter (adapter.h) may add to the product.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/model/layer.h"
#include "core/model/precision.h"
#include "kernels/gemm.h"

namespace shoestring {

/// i64 [sources * experts + 1]: rows of source s for expert e are [offsets[s * experts + e], the next one); empty for a
/// dense Linear. `there`: the same where the rows are, or empty.
struct ExpertOffsets {
  ExpertOffsets() = default;
  ExpertOffsets(std::span<const std::int64_t> host_, ConstTensorView there_ = {}) : host(host_), there(there_) {}
  ExpertOffsets(const std::vector<std::int64_t>& host_) : host(host_) {}
  std::int64_t rows() const { return host.back(); }
  std::span<const std::int64_t> host;
  ConstTensorView there{};
};

struct LinearOptions {
  std::int64_t in = 0;
  std::int64_t out = 0;                       ///< of one expert
  std::int64_t experts = 0;                   ///< stacked; 0: dense
  std::int64_t first_expert = 0;              ///< number of the first one in the whole model
  std::int64_t sources = 1;                   ///< ranks whose rows come to these experts
  std::vector<ParameterSlice> slices{};       ///< cover [max(experts, 1) * out] rows in order
  std::vector<ParameterSlice> bias_slices{};  ///< cover [out]; empty: no bias. Dense only
  double init_std = 0;
  LinearPrecision precision{};
};

/// Adds the disk tensor `name` of [rows, columns] behind those already in `slices`.
void append_slice(std::vector<ParameterSlice>& slices, std::string name, std::int64_t rows, std::int64_t columns);
/// The same for a vector of `rows`.
void append_vector(std::vector<ParameterSlice>& slices, std::string name, std::int64_t rows);

/// An input in FP8, as the products of a Linear read it.
struct InputCodes {
  ScaledView along_columns;  ///< of the product at hand; in scratch, which the caller gives back behind it
  ScaledView along_rows;     ///< of the weight gradient; empty where nothing is kept for one
};

class Linear {
 public:
  explicit Linear(LinearOptions options);
  ~Linear();
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  /// `offsets` with experts. y must not overlap x, nor dx dy. Without `keep_input` the caller hands the input in again,
  /// recomputed, by keep_input() before backward_weight.
  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, ExpertOffsets offsets = {},
               bool keep_input = true);
  void keep_input(ConstTensorView x, Saved& saved, LayerContext& context, ExpertOffsets offsets = {});
  /// dx is overwritten, or added to with `accumulate`.
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context,
                      ExpertOffsets offsets = {}, bool accumulate = false);
  /// Whether x comes in FP8 from what makes it, where `device` computes (cast_place): that writes into the room which
  /// expect_input gives, as quantize would, and the next forward reads it there; its x is empty then.
  bool takes_input_codes(DeviceKind device) const;
  InputCodes expect_input(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets = {},
                          bool keep_input = true);
  /// Room for what keep_input would make of the input; empty where it makes nothing.
  ScaledView expect_kept_input(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets = {});
  /// The same of dy and backward_input.
  bool takes_gradient_codes(DeviceKind device) const;
  InputCodes expect_gradient(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets = {});
  void backward_weight(Saved& saved, LayerContext& context, ExpertOffsets offsets = {});
  /// For operands that were not kept but can be made again: plain formats only.
  void backward_weight_of(ConstTensorView x, ConstTensorView dy, LayerContext& context, ExpertOffsets offsets = {});

  /// Whether x (dy) itself is read again by backward_weight and must stay.
  bool keeps_input() const;
  bool keeps_gradient() const;

  /// Before memory is taken, once: an adapter for those of its slices that `lora.targets` names, if any.
  void adapt(const LoraSpec& lora);
  /// The adapter's weights, which `parameters` does not list.
  std::vector<Parameter*> factors();

  void prepare(const PrepareContext& context);
  /// Of its adapter alone: the weight, frozen, is what it was.
  void prepare_adapter(const PrepareContext& context);
  std::vector<Parameter*> parameters();
  const LinearPrecision& precision() const { return options_.precision; }
  std::int64_t in() const { return options_.in; }
  std::int64_t out() const { return options_.out; }

  Parameter weight;
  Parameter bias;

 private:
  struct Record {
    ConstScaledView x;  ///< as the weight gradient reads it
    ConstScaledView dy;
    TensorView dbias;     ///< [out], this micro-batch's sum
    InputCodes expected;  ///< what the next product reads; empty: what it is given
  };
  struct Copies {
    ConstScaledView along_columns;
    ConstScaledView along_rows;
  };
  /// A weight as one of the two products reads it.
  struct Direction {
    ConstScaledView b;  ///< without data where packed
    PackedMatrix packed;
    bool turned = false;  ///< b is the input gradient's operand as it stands, not its transpose
  };
  struct QuantizeRequest {
    ConstTensorView x;
    DType values;
    bool along_columns;
    bool along_rows;
    ExpertOffsets offsets;
    QuantizeCounts* counts;
  };

  ScaledView fresh_copy(const QuantizeRequest& request, Granularity granularity, Arena& arena, bool along_rows) const;
  Copies quantize_once(const QuantizeRequest& request, Arena& columns_arena, Arena& rows_arena, Stream& stream) const;
  InputCodes expect(const QuantizeRequest& request, Saved& saved, LayerContext& context) const;
  Copies quantize_into(const QuantizeRequest& request, Arena& columns_arena, Arena& rows_arena, Stream& stream) const;
  ConstScaledView plain_operand(ConstTensorView x, ProductFormat format, LayerContext& context) const;
  void multiply(TensorView c, const ConstScaledView& a, const Direction& direction, bool transposed, bool accumulate,
                ExpertOffsets offsets, LayerContext& context) const;
  /// The product with request.x in `format`, and the copies that `request` asks for; returns the one along rows.
  /// `expected` stands for request.x where it is there.
  ConstScaledView product_of(TensorView c, const QuantizeRequest& request, const InputCodes& expected,
                             ProductFormat format, const Direction& direction, bool transposed, bool accumulate,
                             Saved& saved, LayerContext& context) const;
  void weight_product(const ConstScaledView& x, const ConstScaledView& dy, LayerContext& context,
                      ExpertOffsets offsets);
  void expert_weight_product(const ConstScaledView& x, const ConstScaledView& dy, bool accumulate,
                             LayerContext& context, ExpertOffsets offsets);
  void quantize_weights(const PrepareContext& context);
  void prepare_direction(ProductFormat format, bool transposed, ConstTensorView plain_bf16, Direction& direction,
                         Stream& stream);
  void sum_bias(ConstTensorView dy, Record& record, Saved& saved, LayerContext& context);
  bool uses(ProductFormat format) const;
  /// Whether the weight gradient reads x (dy) as a copy in FP8 that forward (backward_input) makes.
  bool quantises_input() const;
  bool quantises_gradient() const;
  std::int64_t stack() const { return options_.experts > 0 ? options_.experts : 1; }

  LinearOptions options_;
  std::unique_ptr<Adapter> adapter_;
  Tensor values_;  ///< FP8 weights [stack * out, in]
  Tensor scales_;
  Tensor column_values_;  ///< a second copy for the input gradient: tiles down the rows (MX), or, on a device, each
                          ///< expert's matrix transposed: [stack * in, out]
  Tensor column_scales_;
  ScaledView fp8_;           ///< as forward reads them,
  ScaledView fp8_backward_;  ///< and the input gradient
  Tensor rounded_;           ///< BF16 weights, on a device
  Direction forward_;
  Direction gradient_;
};

}  // namespace shoestring
