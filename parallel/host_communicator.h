// Not for users of communicators: the collectives of every back end that works on host memory, written over messages.
//
// Threads and MPI differ only in how a message travels. The collectives stand here once, so that both back ends add in
// the same order, check the same things and wait under the same watchdog.
#pragma once

#include "parallel/communicator.h"

namespace shoestring {

class HostCommunicator : public Communicator {
 protected:
  using Communicator::Communicator;

  void do_all_reduce(TensorView values, Reduction reduction) final;
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) final;
  void do_all_gather(TensorView received, ConstTensorView sent) final;
  void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                       std::span<const std::int64_t> send_counts) final;
  void do_broadcast(TensorView values, int root) final;
  void do_barrier() final;
  std::string refuses(Device device) const final;

 private:
  /// Posts and waits; counts what goes to other ranks.
  void exchange(Operation operation, std::vector<Transfer> transfers);
  /// Range `part` of `elements` cut into size() parts.
  std::int64_t part_begin(std::int64_t elements, int part) const;
};

/// What a waiting rank says when its patience ends or the other side does something else.
struct MessageNote {
  Operation operation = Operation::point_to_point;
  DType dtype = DType::u8;
  std::int64_t bytes = 0;
  std::int64_t number = 0;  ///< of the messages of this pair and direction, from 0
};
/// "all_gather message 7, 12 bytes of f32".
std::string to_string(const MessageNote& note);
/// "receiving all_gather message 7, 12 bytes of f32, of world from rank 3".
std::string waiting_text(const Communicator& communicator, int peer, bool sends, const MessageNote& note);
[[noreturn]] void throw_hang(const std::string& communicator, int rank, int peer, bool sends, const MessageNote& note,
                             double seconds);
/// The text of a mismatch between what `sender` sent and what `receiver` expected.
std::string mismatch_text(const std::string& communicator, int sender, const std::string& sent, int receiver,
                          const std::string& expected);

}  // namespace shoestring
