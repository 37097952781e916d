// A world in which one message fails.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/check.h"
#include "parallel/communicator.h"

namespace shoestring::testing {

/// A rank's end of a world, in which the first sum or maximum fails once `due` says so.
class FailingCommunicator final : public Communicator {
 public:
  struct Fault {
    std::function<bool()> due;
    bool met = false;
  };
  FailingCommunicator(Communicator& inner, Fault& fault)
      : Communicator(inner.rank(), inner.size(), inner.name()), inner_(inner), fault_(fault) {}
  void abort(ExitCode code, const std::string& why) override { inner_.abort(code, why); }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) override {
    std::unique_ptr<Communicator> child = inner().split(color, key, name.substr(name.rfind('/') + 1));
    if (child == nullptr) return nullptr;
    auto made = std::make_unique<FailingCommunicator>(*child, fault_);
    made->own_ = std::move(child);
    return made;
  }
  void do_all_reduce(TensorView values, Reduction reduction) override {
    if (!fault_.met && fault_.due()) {
      fault_.met = true;
      fail(ExitCode::bad_data, "shards/train: block 7 is damaged");
    }
    inner().all_reduce(values, reduction);
  }
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) override {
    inner().reduce_scatter(received, sent, reduction);
  }
  void do_all_gather(TensorView received, ConstTensorView sent) override { inner().all_gather(received, sent); }
  void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                       std::span<const std::int64_t> send_counts) override {
    inner().all_to_all_v(received, receive_counts, sent, send_counts);
  }
  void do_broadcast(TensorView values, int root) override { inner().broadcast(values, root); }
  void do_barrier() override { inner().barrier(); }
  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    inner().group_begin();
    for (const Transfer& t : transfers) {
      const Shape shape = {t.bytes / size_bytes(t.dtype)};
      t.sends ? inner().send(view_of(t.source, t.dtype, shape), t.peer)
              : inner().recv(view_of(t.target, t.dtype, shape), t.peer);
    }
    return inner().group_post();
  }
  std::string refuses(Device) const override { return {}; }

 private:
  /// Waits where this one would, and hears what this one would.
  Communicator& inner() {
    inner_.tell(signs());
    return inner_;
  }

  std::unique_ptr<Communicator> own_;
  Communicator& inner_;
  Fault& fault_;
};

}  // namespace shoestring::testing
