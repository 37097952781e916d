// Tokens to the experts of other ranks, and their results back.
//
// The ranks of an expert group hold equal runs of the experts, in rank order: rank r those from r * own on. A rank
// comes with rows sorted by expert (kernels/permute.h), so what each rank gets is one run of them.
//
//   announce   tells each rank how many rows come for its experts, once per layer and micro-batch; nobody waits
//   plan       who sends how many rows to which expert, once these counts are there
//   dispatch   rows to the ranks of their experts            forward of a layer; backward of combine
//   combine    one result for each dispatched row, back      backward of dispatch, by the same plan
//
// Received rows stand as they arrive: by source rank, then by expert, then as the source had them. Nothing is dropped,
// whatever the skew, so a rank may receive as many rows as most_rows says. Rows are moved, never added: no path can be
// seen in a result.
//
// Two paths. Flat: each rank sends to each. Two-level, for groups over several nodes (DeepSeek-V3, arXiv 2412.19437,
// section 3.2.2): a row crosses between nodes once per token and node, to the rank with the sender's place there, which
// hands it on to all experts of that node; results go back the same way, one for each row, since adding them up on the
// way would be another order of the sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/turns.h"

namespace shoestring {

class ExpertExchange {
 public:
  /// `ranks_per_node` neighbours in `group` share a node, and the nodes are equal; 0: flat. Throws Error(bad_recipe)
  /// where the experts or the nodes do not come out even. `group` must outlive it.
  ExpertExchange(Communicator& group, std::int64_t experts, int ranks_per_node = 0);

  /// Told true before messages are waited for, false afterwards; empty: nobody.
  using Waiting = std::function<void(bool)>;
  void tell(Waiting waiting) { waiting_ = std::move(waiting); }
  /// Passes the turn while messages are on their way, and may be called by both halves of a cell. nullptr: waits.
  void take(Turns* turns) { turns_ = turns; }

  int ranks() const { return group_.size(); }
  int nodes() const { return ranks() / peers_; }
  std::int64_t experts() const { return own_ * ranks(); }
  std::int64_t own_experts() const { return own_; }
  std::int64_t first_expert() const { return own_ * group_.rank(); }

  struct Plan {
    std::vector<std::int64_t> sent;      ///< [ranks] rows for each, this one included
    std::vector<std::int64_t> received;  ///< [ranks] rows from each
    std::vector<std::int64_t> offsets;   ///< [ranks * own_experts + 1] where a source's rows for an expert begin
    std::int64_t rows() const { return offsets.back(); }

    // Of two levels only; node by node, this rank's own left empty.
    std::vector<std::vector<std::int32_t>> firsts;    ///< rows to send there: the first of each token
    std::vector<std::vector<std::int32_t>> relayed;   ///< for each row to hand on: which of the rows that came
    std::vector<std::vector<std::int64_t>> hand_ons;  ///< [peers] rows to hand on to each
    std::vector<std::int64_t> arrivals;               ///< rows that come
  };
  /// Counts on their way, and what a plan needs besides.
  struct Announced {
    std::vector<std::int64_t> offsets;
    std::vector<std::int32_t> slot_of_row;
    std::int64_t chosen = 0;
    std::vector<std::int64_t> told, heard;  ///< [experts] rows for each; [ranks * own_experts] rows from each
    Pending messages;                       ///< destroyed before the memory they write to
  };
  /// Collective; what the caller does until `plan` hides the message. `offsets` [experts + 1] as the rows are sorted;
  /// `slot_of_row` i32 [rows or more] with `chosen` slots a token says which rows are of one token.
  Announced announce(std::span<const std::int64_t> offsets, std::span<const std::int32_t> slot_of_row,
                     std::int64_t chosen);
  /// Collective, the next that is done with the group after `announce`.
  Plan plan(Announced announced);

  /// A few bytes of each row, which may differ within a token: they travel beside the rows, always flat.
  struct Beside {
    ConstTensorView from;  ///< [rows, width]
    TensorView to;         ///< likewise; both empty: nothing
  };
  /// received [plan.rows(), width] from rows [sent rows, width], in one format. All rows of one token must be equal.
  void dispatch(const Plan& plan, ConstTensorView rows, TensorView received, const Beside& beside = {});
  /// to [sent rows, width] from rows [plan.rows(), width].
  void combine(const Plan& plan, ConstTensorView rows, TensorView to, const Beside& beside = {});

  /// The most rows that a rank can receive when every source has `tokens` tokens and no expert twice in one.
  static std::int64_t most_rows(int ranks, std::int64_t own_experts, std::int64_t tokens, std::int64_t chosen);
  /// Memory of messages on their way between nodes: as much as was ever needed.
  std::int64_t staging_bytes() const;

 private:
  struct Staging {
    std::vector<std::byte> packed;   // rows on their way out
    std::vector<std::byte> arrived;  // rows to be handed on
  };
  Staging& staging() { return staging_[turns_ != nullptr ? turns_->current() : 0]; }
  /// Puts into the open group: part p of `sent` for rank p, part p of `received` from it; counts are elements.
  void put(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
           std::span<const std::int64_t> send_counts);
  void put_out(const Plan& plan, ConstTensorView rows, TensorView received);
  void put_back(const Plan& plan, ConstTensorView rows, TensorView to);
  /// Passes the turn, and waits.
  void finish(Pending messages);
  void finish_group() { finish(group_.group_post()); }
  bool two_level() const { return peers_ < ranks(); }
  int node() const { return group_.rank() / peers_; }
  int peer() const { return group_.rank() % peers_; }
  void plan_relays(Plan& plan, std::span<const std::int64_t> offsets, std::span<const std::int32_t> slot_of_row,
                   std::int64_t chosen);
  template <class Element>
  void tell_relays(const std::vector<std::vector<Element>>& told, std::vector<std::vector<Element>>& heard,
                   DType dtype);
  void cross(const Plan& plan, ConstTensorView rows);
  void hand_on(const Plan& plan, ConstTensorView rows, TensorView received);
  void collect(const Plan& plan, ConstTensorView rows, TensorView to);
  void cross_back(const Plan& plan, TensorView to);
  std::int64_t rows_through(const Plan& plan, int n, int q) const;

  Communicator& group_;
  Waiting waiting_;
  std::int64_t own_;
  int peers_;  // ranks of a node
  Turns* turns_ = nullptr;
  Staging staging_[2];  // of either half
};

/// Ranks of each host, where `group` has the same number on each and they are neighbours; 0 where not, or where there
/// is one host only. `host` names this rank's. Collective.
int ranks_per_node(Communicator& group, std::string_view host);

}  // namespace shoestring
