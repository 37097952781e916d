// Messages between ranks: one interface with NCCL's semantics on every back end.
//
// What passes here on threads or MPI cannot hang on NCCL, because every back end keeps NCCL's rules:
//   - every rank of a communicator makes the same collective calls in the same order;
//   - messages between two ranks arrive in the order they were sent; there are no tags and no any-source;
//   - counts are exact: a receive of another size, format or operation than the matching send is an Error naming both
//     (on threads on both sides, on MPI on the receiving one);
//   - a send may wait for its receive. Two ranks that both send first wait for each other: post both in one group;
//   - a message of zero elements is a message: both sides post it, or both skip it.
//
// Threads and MPI work on host memory and are done when a call returns. NCCL works on device memory and enqueues on the
// stream given when the communicator was made.
//
// Reductions on threads and MPI add in rank order, ((r0 + r1) + r2) + ..., so that their bits repeat and agree between
// those back ends; NCCL's own order is unknown. Neither is independent of the number of ranks: gradients go through
// CanonicalReducer (reduction.h).
//
// A communicator belongs to one thread at a time. Views must be contiguous and stay valid until the operation is done.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/tensor.h"

namespace shoestring {

class VitalSigns;

enum class Reduction : std::uint8_t { sum, max };

enum class Operation : std::uint8_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  barrier,
  point_to_point,
  split,
};
std::string_view name(Operation operation);

/// One message to or from `peer`; exactly one of the two views is set (a zero-size message counts by `sends`).
struct Transfer {
  bool sends = false;
  int peer = 0;
  DType dtype = DType::u8;
  const void* source = nullptr;  ///< of a send
  void* target = nullptr;        ///< of a receive
  std::int64_t bytes = 0;
};

/// Messages under way. Move-only; `wait` before their memory is reused. Destroying one that has not finished withdraws
/// what can still be withdrawn: only for the way out of an error.
class Pending {
 public:
  class State {
   public:
    virtual ~State() = default;
    virtual bool finished() = 0;  ///< makes progress; throws what went wrong
    virtual void wait() = 0;      ///< throws Error(hang) after the communicator's timeout
  };

  Pending() = default;
  explicit Pending(std::unique_ptr<State> state) : state_(std::move(state)) {}
  bool empty() const { return state_ == nullptr; }
  bool finished() { return state_ == nullptr || state_->finished(); }
  void wait() {
    if (state_ != nullptr) state_->wait();
    state_.reset();
  }

 private:
  std::unique_ptr<State> state_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// "world", "world/data:0": for messages.
  const std::string& name() const { return name_; }

  /// Ranks of one `color` form a communicator, ordered by `key`, then by rank. A negative color gives nullptr.
  /// `label` names the children in messages.
  std::unique_ptr<Communicator> split(int color, int key, const std::string& label = "split");

  // Collectives. Every rank passes the same counts and format.

  /// values = reduction over ranks of values; in place.
  void all_reduce(TensorView values, Reduction reduction = Reduction::sum);
  /// Rank r gets part r of the reduction of `sent` [size() parts of received.elements()].
  void reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction = Reduction::sum);
  /// Part r of `received` is what rank r sent. `sent` may be its own part of `received`.
  void all_gather(TensorView received, ConstTensorView sent);
  /// Part p of `sent` goes to rank p; part p of `received` comes from rank p. The two do not overlap.
  void all_to_all(TensorView received, ConstTensorView sent);
  /// The same with parts of unequal size, back to back in rank order. Counts are elements, one per rank, and agree
  /// pairwise: my send_counts[p] is p's receive_counts[me].
  void all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                    std::span<const std::int64_t> send_counts);
  /// values of `root` reach everybody.
  void broadcast(TensorView values, int root);
  /// Nobody leaves before everybody has come.
  void barrier();

  // Point to point. Outside a group each call returns when its message is through.

  void send(ConstTensorView values, int peer);
  void recv(TensorView values, int peer);
  /// Between begin and end, `send` and `recv` only note their messages; no collective may stand in a group.
  void group_begin();
  /// Posts the group's messages together and waits for them.
  void group_end() { group_post().wait(); }
  /// Posts the group's messages and returns at once. Groups posted to one peer are matched in the order of posting.
  Pending group_post();

  /// Ends every rank of the run with this exit code: for an error that only some ranks see. MPI ends the processes;
  /// on threads every other rank's waiting or next operation throws Error(code), and this call returns.
  virtual void abort(ExitCode code, const std::string& why) = 0;

  /// A wait longer than this throws Error(hang) naming rank, peer, operation and message number. Children of a split
  /// inherit it.
  void set_timeout(double seconds) { timeout_seconds_ = seconds; }
  double timeout_seconds() const { return timeout_seconds_; }

  /// Waits are told to `signs` (nullptr: to nobody); so are those of later splits. Once a watchdog reads them, it ends
  /// what waits too long, and the timeout does not count. On threads and MPI.
  void tell(VitalSigns* signs) { signs_ = signs; }
  VitalSigns* signs() const { return signs_; }
  /// Of a rank of this communicator, where waits are told.
  int rank_in_world(int peer) const { return ancestors_.empty() ? peer : ancestors_[static_cast<std::size_t>(peer)]; }

  /// Payload bytes this rank has sent to other ranks so far.
  std::int64_t sent_bytes() const { return sent_bytes_; }

  static constexpr double kDefaultTimeoutSeconds = 600;

 protected:
  Communicator(int rank, int size, std::string name) : rank_(rank), size_(size), name_(std::move(name)) {}

  // The arguments of these have been checked.
  virtual std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) = 0;
  virtual void do_all_reduce(TensorView values, Reduction reduction) = 0;
  virtual void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) = 0;
  virtual void do_all_gather(TensorView received, ConstTensorView sent) = 0;
  virtual void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                               std::span<const std::int64_t> send_counts) = 0;
  virtual void do_broadcast(TensorView values, int root) = 0;
  virtual void do_barrier() = 0;
  /// Posts messages together; messages of one pair keep their order.
  virtual Pending do_post(Operation operation, std::vector<Transfer> transfers) = 0;
  /// Why this memory cannot be used here, empty if it can.
  virtual std::string refuses(Device device) const = 0;

  void count_sent(std::int64_t bytes) { sent_bytes_ += bytes; }

 private:
  void check_view(const ConstTensorView& view, std::string_view what) const;
  void check_collective(std::string_view what) const;
  void check_peer(int peer, std::string_view what) const;

  int rank_;
  int size_;
  std::string name_;
  double timeout_seconds_ = kDefaultTimeoutSeconds;
  VitalSigns* signs_ = nullptr;
  std::vector<int> ancestors_;  // rank in the world of each rank; empty: the same
  std::int64_t sent_bytes_ = 0;
  int splits_ = 0;
  bool grouping_ = false;
  std::vector<Transfer> group_;
};

/// A communicator of one rank, for a plain start.
std::unique_ptr<Communicator> self_communicator();

/// Rank `rank` of `size` in a dry run (kernels/base/memory.h), which sends nothing: whatever would is Error(bug).
std::unique_ptr<Communicator> dry_communicator(int rank, int size, std::string name);

/// The world this process was launched into: MPI under mpirun (recognised by its environment variables, the only case
/// in which MPI is initialised), otherwise a communicator of one rank. Call once per process; destroying it on all
/// ranks finalises MPI. After an error on this rank call `abort` instead of destroying it.
std::unique_ptr<Communicator> join_world();

}  // namespace shoestring
