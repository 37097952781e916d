// A channel per ordered pair of ranks holds two queues: sends and receives that have been posted and not matched. Only
// one of them is ever non-empty. Whoever posts second finds the other's head, checks it against his own message and
// copies, under the channel's lock; so a message in flight needs no thread of its own. What one rank posted together is
// a batch, on which it waits. Locks are taken in the order channel, batch, verdict.
#include "parallel/communicator_threads.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "parallel/host_communicator.h"
#include "parallel/vital_signs.h"

namespace shoestring {
namespace {

/// Messages that one rank posted together.
struct Batch {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t unmatched = 0;
  std::string error;  ///< the first mismatch
};

/// One posted message; shared by its poster and its channel.
struct Posted {
  Transfer transfer;
  MessageNote note;
  std::shared_ptr<Batch> batch;
  bool done = false;  ///< guarded by the batch

  void finish(const std::string& error) {
    const std::lock_guard lock(batch->mutex);
    done = true;
    --batch->unmatched;
    if (batch->error.empty()) batch->error = error;
    batch->changed.notify_all();
  }
};

struct Channel {
  std::mutex mutex;
  std::deque<std::shared_ptr<Posted>> sends, receives;
  std::int64_t sends_posted = 0;
  std::int64_t receives_posted = 0;
};

/// Shared by a world and all its splits: one failure ends them all.
struct Fate {
  std::mutex mutex;
  bool aborted = false;
  ExitCode code = ExitCode::done;
  std::string why;
  std::vector<std::weak_ptr<ThreadWorld::Group>> groups;

  void throw_if_aborted() {
    const std::lock_guard lock(mutex);
    if (aborted) throw Error(code, why);
  }
  /// The group that stands there, while its maker has it.
  std::shared_ptr<ThreadWorld::Group> group_at(std::int64_t address);
};

std::int64_t address_of(const ThreadWorld::Group* group) {
  return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(group));
}

}  // namespace

struct ThreadWorld::Group {
  Group(int ranks, std::string group_name, std::shared_ptr<Fate> shared)
      : size(ranks),
        name(std::move(group_name)),
        verdict(std::move(shared)),
        channels(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks)) {}

  static std::shared_ptr<Group> make(int ranks, std::string name, std::shared_ptr<Fate> verdict) {
    auto group = std::make_shared<Group>(ranks, std::move(name), std::move(verdict));
    const std::lock_guard lock(group->verdict->mutex);
    group->verdict->groups.push_back(group);
    return group;
  }

  Channel& channel(int from, int to) {
    return channels[static_cast<std::size_t>(from) * static_cast<std::size_t>(size) + static_cast<std::size_t>(to)];
  }

  /// Matches heads; the channel's lock is held.
  void match(Channel& at, int from, int to) const {
    while (!at.sends.empty() && !at.receives.empty()) {
      const std::shared_ptr<Posted> sent = at.sends.front();
      const std::shared_ptr<Posted> wanted = at.receives.front();
      at.sends.pop_front();
      at.receives.pop_front();
      std::string error;
      if (sent->note.operation != wanted->note.operation || sent->note.dtype != wanted->note.dtype ||
          sent->note.bytes != wanted->note.bytes) {
        error = mismatch_text(name, from, to_string(sent->note), to, to_string(wanted->note));
      } else if (sent->note.bytes > 0) {
        std::memcpy(wanted->transfer.target, sent->transfer.source, static_cast<std::size_t>(sent->note.bytes));
      }
      sent->finish(error);
      wanted->finish(error);
    }
  }

  int size;
  std::string name;
  std::shared_ptr<Fate> verdict;
  std::vector<Channel> channels;  // [from, to]
};

namespace {

using Group = ThreadWorld::Group;

std::shared_ptr<Group> Fate::group_at(std::int64_t address) {
  const std::lock_guard lock(mutex);
  for (const auto& weak : groups) {
    auto group = weak.lock();
    if (group != nullptr && address_of(group.get()) == address) return group;
  }
  return nullptr;
}

void abort_all(Fate& verdict, ExitCode code, const std::string& why) {
  std::vector<std::shared_ptr<Group>> groups;
  {
    const std::lock_guard lock(verdict.mutex);
    if (verdict.aborted) return;  // the first reason stands
    verdict.aborted = true;
    verdict.code = code;
    verdict.why = why;
    for (const auto& weak : verdict.groups) {
      if (auto group = weak.lock()) groups.push_back(std::move(group));
    }
  }
  for (const auto& group : groups) {
    for (Channel& channel : group->channels) {
      const std::lock_guard lock(channel.mutex);
      for (const auto* queue : {&channel.sends, &channel.receives}) {
        for (const auto& message : *queue) {
          const std::lock_guard batch_lock(message->batch->mutex);  // a waiter sees the verdict or hears this
          message->batch->changed.notify_all();
        }
      }
    }
  }
}

class ThreadPending : public Pending::State {
 public:
  ThreadPending(std::shared_ptr<Group> group, const Communicator& communicator, std::shared_ptr<Batch> batch)
      : group_(std::move(group)), communicator_(communicator), rank_(communicator.rank()), batch_(std::move(batch)) {}

  ~ThreadPending() override {
    for (const auto& message : posted) {
      Channel& channel = message->transfer.sends ? group_->channel(rank_, message->transfer.peer)
                                                 : group_->channel(message->transfer.peer, rank_);
      const std::lock_guard lock(channel.mutex);
      std::erase(message->transfer.sends ? channel.sends : channel.receives, message);
    }
  }

  bool finished() override {
    const std::lock_guard lock(batch_->mutex);
    return done();
  }

  void wait() override {
    VitalSigns* const signs = communicator_.signs();
    const bool watched = signs != nullptr && signs->watched();
    const double patience = watched ? kSecondsBetweenLooks : communicator_.timeout_seconds();
    const auto from_now = [&] {
      return std::chrono::steady_clock::now() +
             std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(patience));
    };
    auto deadline = from_now();
    std::unique_lock lock(batch_->mutex);
    while (!done()) {
      if (batch_->changed.wait_until(lock, deadline) == std::cv_status::no_timeout || done()) continue;
      const auto stuck = std::find_if(posted.begin(), posted.end(), [](const auto& message) { return !message->done; });
      const auto& [transfer, note] = std::pair((*stuck)->transfer, (*stuck)->note);
      if (!watched) throw_hang(group_->name, rank_, transfer.peer, transfer.sends, note, patience);
      signs->obey();
      signs->wait(communicator_.rank_in_world(transfer.peer),
                  waiting_text(communicator_, transfer.peer, transfer.sends, note));
      deadline = from_now();
    }
    if (signs != nullptr) signs->go_on();
  }

  std::vector<std::shared_ptr<Posted>> posted;

 private:
  bool done() {  // the batch's lock is held
    if (!batch_->error.empty()) throw Error(ExitCode::bug, batch_->error);
    if (batch_->unmatched == 0) return true;
    group_->verdict->throw_if_aborted();
    return false;
  }

  static constexpr double kSecondsBetweenLooks = 0.05;

  std::shared_ptr<Group> group_;
  const Communicator& communicator_;
  int rank_;
  std::shared_ptr<Batch> batch_;
};

class ThreadCommunicator final : public HostCommunicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : HostCommunicator(rank, group->size, group->name), group_(std::move(group)) {}

  void abort(ExitCode code, const std::string& why) override { abort_all(*group_->verdict, code, why); }

 protected:
  Pending do_post(Operation operation, std::vector<Transfer> transfers) override {
    group_->verdict->throw_if_aborted();
    auto batch = std::make_shared<Batch>();
    batch->unmatched = transfers.size();
    auto pending = std::make_unique<ThreadPending>(group_, *this, batch);
    for (const Transfer& transfer : transfers) {
      const int from = transfer.sends ? rank() : transfer.peer;
      const int to = transfer.sends ? transfer.peer : rank();
      Channel& channel = group_->channel(from, to);
      const std::lock_guard lock(channel.mutex);
      const std::int64_t number = transfer.sends ? channel.sends_posted++ : channel.receives_posted++;
      auto message = std::make_shared<Posted>();
      message->transfer = transfer;
      message->note = {operation, transfer.dtype, transfer.bytes, number};
      message->batch = batch;
      (transfer.sends ? channel.sends : channel.receives).push_back(message);
      pending->posted.push_back(std::move(message));
      group_->match(channel, from, to);
    }
    return Pending(std::move(pending));
  }

  // Everybody learns (color, key) of everybody. The first member of each color makes the child group and passes its
  // address round; it keeps the group until all members have it, or the run is aborted.
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& child_name) override {
    const std::int64_t mine[2] = {color, key};
    std::vector<std::int64_t> all(static_cast<std::size_t>(2 * size()));
    all_gather(view_of(all.data(), DType::i64, {2 * size()}), view_of(mine, DType::i64, {2}));
    std::vector<int> members;
    for (int r = 0; r < size(); ++r) {
      if (all[static_cast<std::size_t>(2 * r)] == color) members.push_back(r);
    }
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
      return all[static_cast<std::size_t>(2 * a + 1)] < all[static_cast<std::size_t>(2 * b + 1)];
    });
    std::shared_ptr<Group> group;
    const bool first = color >= 0 && members.front() == rank();
    if (first) group = Group::make(static_cast<int>(members.size()), child_name, group_->verdict);
    const std::int64_t address = address_of(group.get());
    std::vector<std::int64_t> addresses(static_cast<std::size_t>(size()));
    all_gather(view_of(addresses.data(), DType::i64, {size()}), view_of(&address, DType::i64, {1}));
    if (color >= 0 && !first) {
      group = group_->verdict->group_at(addresses[static_cast<std::size_t>(members.front())]);
      if (group == nullptr) group_->verdict->throw_if_aborted();
      check(group != nullptr, "{}: the group of rank {} is gone", child_name, members.front());
    }
    barrier();
    if (color < 0) return nullptr;
    const auto place = std::find(members.begin(), members.end(), rank()) - members.begin();
    return std::make_unique<ThreadCommunicator>(std::move(group), static_cast<int>(place));
  }

 private:
  std::shared_ptr<Group> group_;
};

}  // namespace

ThreadWorld::ThreadWorld(int size) : size_(size) {
  check(size > 0, "a world of {} ranks", size);
  group_ = Group::make(size, "world", std::make_shared<Fate>());
}

ThreadWorld::~ThreadWorld() = default;

std::unique_ptr<Communicator> ThreadWorld::communicator(int rank) {
  check(rank >= 0 && rank < size_, "rank {} of a world of {}", rank, size_);
  return std::make_unique<ThreadCommunicator>(group_, rank);
}

void ThreadWorld::abort(ExitCode code, const std::string& why) { abort_all(*group_->verdict, code, why); }

}  // namespace shoestring
