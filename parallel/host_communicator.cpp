#include "parallel/host_communicator.h"

#include <algorithm>
#include <cstring>

namespace shoestring {
namespace {

/// target[i] = fold in rank order of parts[r][i]; a sum of bf16 is kept in float and rounded once.
template <class Element, class Sum>
void fold_ranks(Element* target, const std::vector<const Element*>& parts, std::int64_t count, Reduction reduction) {
  for (std::int64_t i = 0; i < count; ++i) {
    Sum total = static_cast<Sum>(parts[0][i]);
    for (std::size_t r = 1; r < parts.size(); ++r) {
      const Sum value = static_cast<Sum>(parts[r][i]);
      total = reduction == Reduction::sum ? total + value : (total < value ? value : total);
    }
    target[i] = static_cast<Element>(total);
  }
}

template <class Element, class Sum = Element>
void fold_bytes(void* target, const std::vector<const void*>& parts, std::int64_t count, Reduction reduction) {
  std::vector<const Element*> typed;
  typed.reserve(parts.size());
  for (const void* part : parts) typed.push_back(static_cast<const Element*>(part));
  fold_ranks<Element, Sum>(static_cast<Element*>(target), typed, count, reduction);
}

void fold(DType dtype, void* target, const std::vector<const void*>& parts, std::int64_t count, Reduction reduction) {
  switch (dtype) {
    case DType::f64: return fold_bytes<double>(target, parts, count, reduction);
    case DType::f32: return fold_bytes<float>(target, parts, count, reduction);
    case DType::bf16: return fold_bytes<BFloat16, float>(target, parts, count, reduction);
    case DType::i64: return fold_bytes<std::int64_t>(target, parts, count, reduction);
    case DType::i32: return fold_bytes<std::int32_t>(target, parts, count, reduction);
    default: fail(ExitCode::bug, "a reduction of {} is not defined: widen it first", name(dtype));
  }
}

const std::byte* at(const void* base, std::int64_t bytes) { return static_cast<const std::byte*>(base) + bytes; }
std::byte* at(void* base, std::int64_t bytes) { return static_cast<std::byte*>(base) + bytes; }

}  // namespace

std::string to_string(const MessageNote& note) {
  return fmt::format("{} message {}, {} bytes of {}", name(note.operation), note.number, note.bytes, name(note.dtype));
}

std::string waiting_text(const Communicator& communicator, int peer, bool sends, const MessageNote& note) {
  return fmt::format("{} {}, of {} {} rank {}", sends ? "sending" : "receiving", to_string(note), communicator.name(),
                     sends ? "to" : "from", communicator.rank_in_world(peer));
}

void throw_hang(const std::string& communicator, int rank, int peer, bool sends, const MessageNote& note,
                double seconds) {
  fail(ExitCode::hang,
       "{}: rank {} waited {:.1f} s {} rank {} ({}); that rank has ended, is stuck, or does something "
       "else: look at what it said, and at its machine",
       communicator, rank, seconds, sends ? "to send to" : "to receive from", peer, to_string(note));
}

std::string mismatch_text(const std::string& communicator, int sender, const std::string& sent, int receiver,
                          const std::string& expected) {
  return fmt::format("{}: rank {} sent {}, but rank {} expected {}", communicator, sender, sent, receiver, expected);
}

void HostCommunicator::exchange(Operation operation, std::vector<Transfer> transfers) {
  for (const Transfer& transfer : transfers) {
    if (transfer.sends && transfer.peer != rank()) count_sent(transfer.bytes);
  }
  do_post(operation, std::move(transfers)).wait();
}

std::int64_t HostCommunicator::part_begin(std::int64_t elements, int part) const {
  return elements / size() * part + std::min<std::int64_t>(part, elements % size());
}

// Each rank reduces one part, then all parts are gathered: every rank gets the same bits.
void HostCommunicator::do_all_reduce(TensorView values, Reduction reduction) {
  const std::int64_t width = size_bytes(values.dtype);
  const std::int64_t begin = part_begin(values.elements(), rank());
  const std::int64_t count = part_begin(values.elements(), rank() + 1) - begin;
  std::vector<std::byte> staging(static_cast<std::size_t>(count * width * size()));
  std::vector<Transfer> scatter;
  std::vector<const void*> parts;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      parts.push_back(at(values.data, begin * width));
      continue;
    }
    const std::int64_t theirs = part_begin(values.elements(), peer);
    const std::int64_t their_count = part_begin(values.elements(), peer + 1) - theirs;
    std::byte* from_peer = staging.data() + peer * count * width;
    scatter.push_back({true, peer, values.dtype, at(values.data, theirs * width), nullptr, their_count * width});
    scatter.push_back({false, peer, values.dtype, nullptr, from_peer, count * width});
    parts.push_back(from_peer);
  }
  exchange(Operation::all_reduce, std::move(scatter));
  fold(values.dtype, at(values.data, begin * width), parts, count, reduction);

  std::vector<Transfer> gather;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const std::int64_t theirs = part_begin(values.elements(), peer);
    const std::int64_t their_count = part_begin(values.elements(), peer + 1) - theirs;
    gather.push_back({true, peer, values.dtype, at(values.data, begin * width), nullptr, count * width});
    gather.push_back({false, peer, values.dtype, nullptr, at(values.data, theirs * width), their_count * width});
  }
  exchange(Operation::all_reduce, std::move(gather));
}

void HostCommunicator::do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) {
  const std::int64_t bytes = received.bytes();
  std::vector<std::byte> staging(static_cast<std::size_t>(bytes * size()));
  std::vector<Transfer> transfers;
  std::vector<const void*> parts;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      parts.push_back(at(sent.data, peer * bytes));
      continue;
    }
    std::byte* from_peer = staging.data() + peer * bytes;
    transfers.push_back({true, peer, sent.dtype, at(sent.data, peer * bytes), nullptr, bytes});
    transfers.push_back({false, peer, sent.dtype, nullptr, from_peer, bytes});
    parts.push_back(from_peer);
  }
  exchange(Operation::reduce_scatter, std::move(transfers));
  fold(sent.dtype, received.data, parts, received.elements(), reduction);
}

void HostCommunicator::do_all_gather(TensorView received, ConstTensorView sent) {
  const std::int64_t bytes = sent.bytes();
  std::byte* mine = at(received.data, rank() * bytes);
  if (bytes > 0 && mine != sent.data) std::memcpy(mine, sent.data, static_cast<std::size_t>(bytes));
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    transfers.push_back({true, peer, sent.dtype, mine, nullptr, bytes});
    transfers.push_back({false, peer, sent.dtype, nullptr, at(received.data, peer * bytes), bytes});
  }
  exchange(Operation::all_gather, std::move(transfers));
}

void HostCommunicator::do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts,
                                       ConstTensorView sent, std::span<const std::int64_t> send_counts) {
  const std::int64_t width = size_bytes(sent.dtype);
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < size(); ++peer) {
    const std::int64_t send_bytes = send_counts[static_cast<std::size_t>(peer)] * width;
    const std::int64_t receive_bytes = receive_counts[static_cast<std::size_t>(peer)] * width;
    transfers.push_back({true, peer, sent.dtype, at(sent.data, from), nullptr, send_bytes});
    transfers.push_back({false, peer, sent.dtype, nullptr, at(received.data, to), receive_bytes});
    from += send_bytes;
    to += receive_bytes;
  }
  exchange(Operation::all_to_all, std::move(transfers));
}

// A binomial tree: after round k the 2^k ranks from the root on have the values.
void HostCommunicator::do_broadcast(TensorView values, int root) {
  const int place = (rank() - root + size()) % size();
  for (int reach = 1; reach < size(); reach *= 2) {
    if (place < reach && place + reach < size()) {
      const int peer = (rank() + reach) % size();
      exchange(Operation::broadcast, {{true, peer, values.dtype, values.data, nullptr, values.bytes()}});
    } else if (place >= reach && place < 2 * reach) {
      const int peer = (rank() - reach + size()) % size();
      exchange(Operation::broadcast, {{false, peer, values.dtype, nullptr, values.data, values.bytes()}});
    }
  }
}

// Dissemination: in round k tell the rank 2^k ahead, hear from the one 2^k behind.
void HostCommunicator::do_barrier() {
  for (int reach = 1; reach < size(); reach *= 2) {
    const int ahead = (rank() + reach) % size();
    const int behind = (rank() - reach + size()) % size();
    exchange(Operation::barrier,
             {{true, ahead, DType::u8, nullptr, nullptr, 0}, {false, behind, DType::u8, nullptr, nullptr, 0}});
  }
}

std::string HostCommunicator::refuses(Device device) const {
  if (device.kind == DeviceKind::cpu) return {};
  return fmt::format("this communicator works on host memory, not on {}: stage it, or use the NCCL back end",
                     to_string(device));
}

}  // namespace shoestring
