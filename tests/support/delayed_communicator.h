// Messages that take their time, in virtual time: a clock that only computations and the arrival of messages move. The
// same in every run, on any machine.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/host_communicator.h"

namespace shoestring::testing {

/// Messages over `inner`, each with the moment of its arrival behind it, `delay` after it was posted by `clock`, the
/// rank's own. Whoever waits for one is there by then. Without overlap (`blocking`) a message holds both its ranks from
/// when both are there until it has arrived. A rank's messages travel side by side, or one after another (`one_wire`).
/// All ranks have one; what is split from it is delayed alike.
class DelayedCommunicator final : public HostCommunicator {
 public:
  DelayedCommunicator(Communicator& inner, double& clock, double delay, bool blocking = false, bool one_wire = false)
      : HostCommunicator(inner.rank(), inner.size(), inner.name()),
        inner_(inner),
        clock_(clock),
        delay_(delay),
        blocking_(blocking),
        one_wire_(one_wire) {}
  void abort(ExitCode code, const std::string& why) override { inner_.abort(code, why); }
  int messages() const { return messages_; }

 protected:
  class Delayed : public Pending::State {
   public:
    Delayed(DelayedCommunicator& owner, std::size_t count) : arrivals(count), owner_(owner) {}
    bool finished() override {
      inner.wait();  // in real time, so that what is there in virtual time is the same in every run
      return std::ranges::all_of(arrivals, [&](double arrival) { return arrival <= owner_.clock_; });
    }
    void wait() override {
      inner.wait();
      for (const double arrival : arrivals) owner_.clock_ = std::max(owner_.clock_, arrival);
    }

    std::vector<double> arrivals;
    Pending inner;

   private:
    DelayedCommunicator& owner_;
  };

  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    messages_ += static_cast<int>(transfers.size());
    if (blocking_) {
      for (const Transfer& transfer : transfers) meet(transfer);
      return {};
    }
    auto pending = std::make_unique<Delayed>(*this, transfers.size());
    inner_.group_begin();
    for (std::size_t i = 0; i < transfers.size(); ++i) {
      const Transfer& t = transfers[i];
      double& arrival = pending->arrivals[i];
      const double leaves = one_wire_ ? std::max(clock_, wire_free_) : clock_;
      arrival = leaves + (t.peer == rank() ? 0 : delay_);  // of a receive: overwritten by the sender's
      if (t.sends) wire_free_ = arrival;
      post(t);
      const TensorView stamp = view_of(&arrival, DType::f64, {1});
      t.sends ? inner_.send(stamp, t.peer) : inner_.recv(stamp, t.peer);
    }
    pending->inner = inner_.group_post();
    return Pending(std::move(pending));
  }
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) override {
    std::unique_ptr<Communicator> child = inner_.split(color, key, name.substr(name.rfind('/') + 1));
    if (child == nullptr) return nullptr;
    auto made = std::make_unique<DelayedCommunicator>(*child, clock_, delay_, blocking_, one_wire_);
    made->own_ = std::move(child);
    return made;
  }

 private:
  void post(const Transfer& t) {
    if (t.sends) {
      inner_.send(view_of(t.source, DType::u8, {t.bytes}), t.peer);
    } else {
      inner_.recv(view_of(t.target, DType::u8, {t.bytes}), t.peer);
    }
  }
  void meet(const Transfer& t) {
    const double own = clock_;
    double theirs = 0;
    inner_.group_begin();
    post(t);
    inner_.send(view_of(&own, DType::f64, {1}), t.peer);
    inner_.recv(view_of(&theirs, DType::f64, {1}), t.peer);
    inner_.group_end();
    clock_ = std::max(own, theirs) + delay_;
  }

  std::unique_ptr<Communicator> own_;  // of a split: what it goes over
  Communicator& inner_;
  double& clock_;
  double delay_;
  bool blocking_;
  bool one_wire_;
  double wire_free_ = 0;
  int messages_ = 0;
};

}  // namespace shoestring::testing
