#include "parallel/communicator.h"

#include <numeric>

#include "parallel/communicator_threads.h"

namespace shoestring {
namespace {

/// Of a dry run: it has a rank, and no memory may be sent.
class DryCommunicator final : public Communicator {
 public:
  DryCommunicator(int rank, int size, std::string name) : Communicator(rank, size, std::move(name)) {}
  void abort(ExitCode code, const std::string& why) override { throw Error(code, why); }

 protected:
  std::unique_ptr<Communicator> do_split(int, int, const std::string&) override { nobody(); }
  void do_all_reduce(TensorView, Reduction) override { nobody(); }
  void do_reduce_scatter(TensorView, ConstTensorView, Reduction) override { nobody(); }
  void do_all_gather(TensorView, ConstTensorView) override { nobody(); }
  void do_all_to_all_v(TensorView, std::span<const std::int64_t>, ConstTensorView,
                       std::span<const std::int64_t>) override {
    nobody();
  }
  void do_broadcast(TensorView, int) override { nobody(); }
  void do_barrier() override { nobody(); }
  Pending do_post(Operation, std::vector<Transfer>) override { nobody(); }
  std::string refuses(Device) const override { return "nobody is there in a dry run"; }

 private:
  [[noreturn]] void nobody() const { fail(ExitCode::bug, "{}: nobody is there in a dry run", name()); }
};

}  // namespace

std::string_view name(Operation operation) {
  switch (operation) {
    case Operation::all_reduce: return "all_reduce";
    case Operation::reduce_scatter: return "reduce_scatter";
    case Operation::all_gather: return "all_gather";
    case Operation::all_to_all: return "all_to_all";
    case Operation::broadcast: return "broadcast";
    case Operation::barrier: return "barrier";
    case Operation::point_to_point: return "send/recv";
    case Operation::split: return "split";
  }
  return "?";
}

void Communicator::check_view(const ConstTensorView& view, std::string_view what) const {
  check(view.contiguous(), "{}: {} of {} is not contiguous", name_, what, view);
  if (const std::string reason = refuses(view.device); !reason.empty()) {
    fail(ExitCode::bug, "{}: {} of {}: {}", name_, what, view, reason);
  }
}

void Communicator::check_collective(std::string_view what) const {
  check(!grouping_, "{}: {} stands inside a group; only send and recv may", name_, what);
}

void Communicator::check_peer(int peer, std::string_view what) const {
  check(peer >= 0 && peer < size_, "{}: {} names rank {} of {}", name_, what, peer, size_);
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, const std::string& label) {
  check_collective("split");
  // The label and the color name the child; the count keeps two splits apart.
  std::string child = fmt::format("{}/{}:{}", name_, label, color);
  if (splits_++ > 0) child += fmt::format("#{}", splits_);
  std::unique_ptr<Communicator> made = do_split(color, key, child);
  if (made == nullptr) return made;
  made->set_timeout(timeout_seconds_);
  if (signs_ == nullptr) return made;
  made->tell(signs_);
  const int own = rank_in_world(rank_);
  made->ancestors_.resize(static_cast<std::size_t>(made->size()));
  made->all_gather(view_of(made->ancestors_.data(), DType::i32, {made->size()}), view_of(&own, DType::i32, {1}));
  return made;
}

void Communicator::all_reduce(TensorView values, Reduction reduction) {
  check_collective("all_reduce");
  check_view(values, "all_reduce");
  if (size_ > 1) do_all_reduce(values, reduction);
}

void Communicator::reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) {
  check_collective("reduce_scatter");
  check_view(received, "reduce_scatter");
  check_view(sent, "reduce_scatter");
  check(sent.dtype == received.dtype && sent.elements() == received.elements() * size_,
        "{}: reduce_scatter of {} into {} on {} ranks", name_, sent, received, size_);
  do_reduce_scatter(received, sent, reduction);
}

void Communicator::all_gather(TensorView received, ConstTensorView sent) {
  check_collective("all_gather");
  check_view(received, "all_gather");
  check_view(sent, "all_gather");
  check(sent.dtype == received.dtype && received.elements() == sent.elements() * size_,
        "{}: all_gather of {} into {} on {} ranks", name_, sent, received, size_);
  do_all_gather(received, sent);
}

void Communicator::all_to_all(TensorView received, ConstTensorView sent) {
  check(sent.elements() % size_ == 0 && sent.elements() == received.elements(),
        "{}: all_to_all of {} into {} on {} ranks", name_, sent, received, size_);
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_), sent.elements() / size_);
  all_to_all_v(received, counts, sent, counts);
}

void Communicator::all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                                std::span<const std::int64_t> send_counts) {
  check_collective("all_to_all");
  check_view(received, "all_to_all");
  check_view(sent, "all_to_all");
  const auto ranks = static_cast<std::size_t>(size_);
  check(receive_counts.size() == ranks && send_counts.size() == ranks,
        "{}: all_to_all with {} receive and {} send counts on {} ranks", name_, receive_counts.size(),
        send_counts.size(), size_);
  for (std::size_t r = 0; r < ranks; ++r) {
    check(receive_counts[r] >= 0 && send_counts[r] >= 0, "{}: all_to_all with counts {} and {} for rank {}", name_,
          receive_counts[r], send_counts[r], r);
  }
  const auto total = [](std::span<const std::int64_t> counts) {
    return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  };
  check(sent.dtype == received.dtype && total(send_counts) <= sent.elements() &&
            total(receive_counts) <= received.elements(),
        "{}: all_to_all of {} elements of {} into {} elements of {}", name_, total(send_counts), sent,
        total(receive_counts), received);
  do_all_to_all_v(received, receive_counts, sent, send_counts);
}

void Communicator::broadcast(TensorView values, int root) {
  check_collective("broadcast");
  check_view(values, "broadcast");
  check_peer(root, "broadcast");
  if (size_ > 1) do_broadcast(values, root);
}

void Communicator::barrier() {
  check_collective("barrier");
  if (size_ > 1) do_barrier();
}

void Communicator::send(ConstTensorView values, int peer) {
  check_view(values, "send");
  check_peer(peer, "send");
  const Transfer transfer{true, peer, values.dtype, values.data, nullptr, values.bytes()};
  if (peer != rank_) count_sent(transfer.bytes);
  if (grouping_) {
    group_.push_back(transfer);
  } else {
    do_post(Operation::point_to_point, {transfer}).wait();
  }
}

void Communicator::recv(TensorView values, int peer) {
  check_view(values, "recv");
  check_peer(peer, "recv");
  const Transfer transfer{false, peer, values.dtype, nullptr, values.data, values.bytes()};
  if (grouping_) {
    group_.push_back(transfer);
  } else {
    do_post(Operation::point_to_point, {transfer}).wait();
  }
}

void Communicator::group_begin() {
  check(!grouping_, "{}: a group begins inside a group", name_);
  grouping_ = true;
}

Pending Communicator::group_post() {
  check(grouping_, "{}: a group ends that never began", name_);
  grouping_ = false;
  std::vector<Transfer> transfers;
  transfers.swap(group_);
  if (transfers.empty()) return {};
  return do_post(Operation::point_to_point, std::move(transfers));
}

std::unique_ptr<Communicator> self_communicator() { return ThreadWorld(1).communicator(0); }

std::unique_ptr<Communicator> dry_communicator(int rank, int size, std::string name) {
  return std::make_unique<DryCommunicator>(rank, size, std::move(name));
}

}  // namespace shoestring
