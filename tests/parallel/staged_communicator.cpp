#include "tests/parallel/staged_communicator.h"

#include <utility>
#include <vector>

#include "kernels/base/copy.h"

namespace shoestring::testing {
namespace {

Tensor on_device(ConstTensorView host, Stream& stream) {
  Tensor values(host.dtype, host.shape, stream.device());
  copy(values, host, stream);
  return values;
}

void to_host(TensorView host, ConstTensorView values, Stream& stream) {
  copy(host, values, stream);
  stream.synchronize();
}

struct Staging {
  Tensor values;
  TensorView host;  ///< where a receive goes; empty for a send
};

class StagedPending : public Pending::State {
 public:
  StagedPending(std::vector<Staging> stagings, Pending inner, Stream& stream)
      : stagings_(std::move(stagings)), inner_(std::move(inner)), stream_(stream) {}
  bool finished() override { return inner_.finished(); }
  void wait() override {
    inner_.wait();
    for (Staging& staging : stagings_) {
      if (!staging.host.empty()) to_host(staging.host, staging.values, stream_);
    }
  }

 private:
  std::vector<Staging> stagings_;
  Pending inner_;
  Stream& stream_;
};

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> inner, Stream& stream)
      : Communicator(inner->rank(), inner->size(), inner->name()), inner_(std::move(inner)), stream_(stream) {}

  void abort(ExitCode code, const std::string& why) override { inner_->abort(code, why); }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) override {
    const std::string label = name.substr(name.rfind('/') + 1);
    std::unique_ptr<Communicator> child = inner().split(color, key, label);
    if (child == nullptr) return nullptr;
    return std::make_unique<StagedCommunicator>(std::move(child), stream_);
  }
  void do_all_reduce(TensorView values, Reduction reduction) override {
    Tensor staging = on_device(values, stream_);
    inner().all_reduce(staging, reduction);
    to_host(values, staging, stream_);
  }
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) override {
    const Tensor from = on_device(sent, stream_);
    Tensor to = on_device(received, stream_);
    inner().reduce_scatter(to, from, reduction);
    to_host(received, to, stream_);
  }
  void do_all_gather(TensorView received, ConstTensorView sent) override {
    const Tensor from = on_device(sent, stream_);
    Tensor to = on_device(received, stream_);
    inner().all_gather(to, from);
    to_host(received, to, stream_);
  }
  void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                       std::span<const std::int64_t> send_counts) override {
    const Tensor from = on_device(sent, stream_);
    Tensor to = on_device(received, stream_);
    const std::int64_t before = inner_->sent_bytes();
    inner().all_to_all_v(to, receive_counts, from, send_counts);
    count_sent(inner_->sent_bytes() - before);
    to_host(received, to, stream_);
  }
  void do_broadcast(TensorView values, int root) override {
    Tensor staging = on_device(values, stream_);
    inner().broadcast(staging, root);
    to_host(values, staging, stream_);
  }
  void do_barrier() override { inner().barrier(); }
  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    std::vector<Staging> stagings;
    inner().group_begin();
    for (const Transfer& t : transfers) {
      const Shape shape = {t.bytes / size_bytes(t.dtype)};
      if (t.sends) {
        stagings.push_back({on_device(view_of(t.source, t.dtype, shape), stream_), {}});
        inner_->send(stagings.back().values, t.peer);
      } else {
        stagings.push_back({Tensor(t.dtype, shape, stream_.device()), view_of(t.target, t.dtype, shape)});
        inner_->recv(stagings.back().values, t.peer);
      }
    }
    Pending pending = inner_->group_post();
    return Pending(std::make_unique<StagedPending>(std::move(stagings), std::move(pending), stream_));
  }
  std::string refuses(Device device) const override {
    return device == Device{} ? "" : "a staged communicator works on host memory";
  }

 private:
  Communicator& inner() {
    inner_->set_timeout(timeout_seconds());
    return *inner_;
  }

  std::unique_ptr<Communicator> inner_;
  Stream& stream_;
};

}  // namespace

std::unique_ptr<Communicator> staged(std::unique_ptr<Communicator> inner, Stream& stream) {
  return std::make_unique<StagedCommunicator>(std::move(inner), stream);
}

}  // namespace shoestring::testing
