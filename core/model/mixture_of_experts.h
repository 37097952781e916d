// A mixture of experts: each token goes through the k experts its router chooses, and through the shared ones.
//
//   w, e = router(x)  in FP32;   y = shared(x) + sum over choices c of w_c * expert_{e_c}(x)
//
// Tokens are gathered into expert order (sorted by expert, then by token), run through stacked Linears, and summed back
// in slot order. The routing weight is applied inside SwiGLU. No token is dropped.
//
// Balance (DeepSeek-V3, section 2.1.2): a bias steers selection only and moves once per step by the sign of the
// whole-batch load error; the sequence-wise loss adds its gradient to the router.
//
// Kept plain: the weight gradients gather their operands again from x and dy. Kept in FP8: the quantised copies wait.
// Of frozen experts nothing is gathered again: what adapters read is kept.
//
// Where ranks share the experts, rows cross to the ranks of their experts and back (parallel/expert_exchange.h):
// router, shared expert and combine stay with the token. Rows stand by source, then by expert, then by token, so that
// each source's part is what that rank alone would have computed, and its weight gradient is kept apart. What was
// received is kept for the weight gradient, where one rank would gather again. How many rows come is not known before:
// their memory grows with need.
//
// Rows may travel in FP8 (packed_rows.h), with the forward pass and with the gradients of what comes back, which is
// never rounded. A mixture whose experts are all on one rank rounds the same, so that no layout changes a bit.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/model/config.h"
#include "core/model/feed_forward.h"
#include "core/model/linear.h"
#include "kernels/permute.h"
#include "kernels/router.h"
#include "parallel/expert_exchange.h"

namespace shoestring {

/// Which part of each mixture's experts is this rank's. All ranks that share them call each layer equally often.
struct ExpertShare {
  int ranks = 1;
  int rank = 0;
  /// The weight gradients of each source apart, as the canonical reduction needs them: as much memory as the gradients
  /// of all experts. Otherwise they are added up as they come, in an order that is this number of ranks'.
  bool by_source = true;
  ExpertExchange* exchange = nullptr;  ///< over those ranks; needed to run with more than one
  /// A forward and a backward may take turns while their messages are on the way: each has scratch of its own.
  bool takes_turns = false;

  /// Gradients kept of each expert.
  int gradients() const { return by_source ? ranks : 1; }
};

class MixtureOfExperts final : public Layer {
 public:
  /// Number `index` of the model's mixtures, on whichever ranks the others stand; `prefix` is "model.layers.N.mlp.".
  MixtureOfExperts(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t index,
                   const std::string& prefix, const ExpertShare& share = {});

  void forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) override;
  void backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) override;
  void backward_weight(Saved& saved, LayerContext& context) override;
  bool keeps_input() const override { return true; }  // the router's weight gradient reads x
  bool keeps_gradient() const override {
    return (gathers_again() && !shared_out() && !packs_) || (shared_ != nullptr && shared_->keeps_gradient());
  }
  std::vector<Parameter*> parameters() override;
  std::vector<Linear*> linears() override;
  void prepare(const PrepareContext& context) override;

  std::int64_t index() const { return index_; }
  /// Moves the selection bias; `global_counts` i64 [experts] of the whole batch. Nothing where there is no bias.
  void update_bias(ConstTensorView global_counts, double speed, Stream& stream);

 private:
  struct Record {
    ConstTensorView x;       ///< as it goes to the experts; where it is gathered again
    ConstTensorView dy;      ///< likewise
    TensorView indices;      ///< [tokens, k] i32
    TensorView weights;      ///< [tokens, k]
    TensorView scores;       ///< [tokens, experts]
    TensorView load;         ///< [sequences, experts]
    TensorView row_weights;  ///< [rows]
    Permutation plan;
    ExpertExchange::Announced announced;  ///< where ranks share the experts; as the next
    ExpertExchange::Plan exchange;
    std::vector<std::int64_t> offsets;  ///< of this rank's experts, in host memory
    std::optional<Saved> beside;        ///< of the rows that came
    TensorView received;                ///< [rows, hidden] x as it came; where the weight gradient reads it plain
    TensorView received_gradient;       ///< likewise dy
    ConstScaledView gate_up;            ///< [rows, 2 * width]
    TensorView gate_up_plain;
    TensorView h;  ///< [rows, width], made again; where the weight gradient reads it plain
    TensorView dgate_up;
  };
  void route(ConstTensorView x, Record& record, Saved& saved, LayerContext& context);
  void run_experts(ConstTensorView x, TensorView y, Record& record, Saved& saved, LayerContext& context);
  void backward_experts(ConstTensorView dy, TensorView dxp, TensorView drow_weights, Record& record, Saved& saved,
                        LayerContext& context);
  void experts_backward_weight(Saved& saved, LayerContext& context);
  /// Sorts out how many rows each expert gets, and tells the ranks that share them.
  void announce_rows(Record& record, LayerContext& context) const;
  void plan_rows(Record& record, Saved& saved, LayerContext& context) const;
  /// Where what belongs to rows is kept.
  Saved& of_rows(Record& record, Saved& saved) const { return record.beside ? *record.beside : saved; }
  /// Rows that do not travel have their offsets on the device too.
  ExpertOffsets offsets_of(const Record& record) const {
    return {record.offsets, shared_out() ? ConstTensorView() : ConstTensorView(record.plan.offsets)};
  }
  /// For what happens to the experts' rows: scratch that holds as many as come.
  LayerContext for_rows(LayerContext& context) const;
  /// x as the experts see it, where it does not travel.
  ConstTensorView rounded(ConstTensorView x, Saved& saved, LayerContext& context, QuantizeCounts* counts) const;
  /// xp = the rows of x at their experts, and where they travel their routing weights into `row_weights`, unless that
  /// is empty. Packing counts what it loses.
  void to_experts(ConstTensorView x, TensorView xp, TensorView row_weights, const Record& record, LayerContext& context,
                  QuantizeCounts* counts) const;
  /// y (+)= the results yp of all choices of a token; where rows travel, `weights` beside them.
  void from_experts(ConstTensorView yp, TensorView y, const ExpertExchange::Beside& weights, const Record& record,
                    LayerContext& context) const;
  TensorView gathered(ConstTensorView x, std::int64_t rows, const Record& record, LayerContext& context) const;
  /// The rows of x at their experts, straight into codes that `reader` expects; where they do not travel.
  void gather_into(const InputCodes& codes, const Linear& reader, ConstTensorView x, const Record& record,
                   LayerContext& context, QuantizeCounts* counts) const;
  std::int64_t slots(std::int64_t tokens) const { return tokens * chosen_; }
  /// Each expert's rows begin at a multiple of it. Rows that travel stand close together.
  std::int64_t row_multiple(DeviceKind device) const {
    return shared_out() ? 1 : cast_place(gate_up_.precision(), device).expert_rows;
  }
  std::int64_t most_rows_of(std::int64_t tokens, DeviceKind device) const {
    return most_rows(slots(tokens), experts_, row_multiple(device));
  }
  bool shared_out() const { return share_.ranks > 1; }
  /// Whether the weight gradients' operands are made again: they are plain, and there are such gradients.
  bool gathers_again() const { return plain_operands_ && !gate_up_.weight.frozen; }
  ExpertExchange& exchange() const;

  ExpertShare share_;
  std::int64_t index_;
  std::int64_t hidden_;
  std::int64_t width_;
  std::int64_t experts_;
  std::int64_t chosen_;
  RouterKind kind_;
  std::int64_t groups_;
  std::int64_t topk_groups_;
  bool group_by_best_;
  bool normalize_;
  float scale_;
  float alpha_;
  DType activation_;
  DType master_;
  bool cached_fp8_;
  bool packs_;           ///< rows travel in FP8
  bool plain_operands_;  ///< of the weight gradients
  Linear router_;
  Linear gate_up_;
  Linear down_;
  std::unique_ptr<FeedForward> shared_;
  Parameter bias_;  ///< no rows where the architecture has none
};

}  // namespace shoestring
