// MPI has tags, any-source and buffered sends; NCCL has none of them. So:
//   - sends are synchronous (Issend): a send is through only when its receive has taken it;
//   - the tag carries what the message is (operation, format, number), and the receiver takes the next message of that
//     peer whatever its tag, looks at tag and size first (Improbe), and reports a mismatch instead of taking it;
//   - MPI has no progress thread, so whoever waits drives all receives of the communicator.
#include "parallel/communicator_mpi.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <limits>
#include <map>

#include "kernels/base/printable.h"
#include "parallel/host_communicator.h"
#include "parallel/pace.h"
#include "parallel/vital_signs.h"

namespace shoestring {
namespace {

void mpi_check(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail(ExitCode::io, "{} failed: {}; look at what the other ranks said", call, text);
}

/// MPI from init to finalize, shared by all communicators.
class Session {
 public:
  explicit Session(LeaveRequest leave) : leave_(std::move(leave)) {
    int provided = MPI_THREAD_SINGLE;
    mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_SERIALIZED) {
      fail(ExitCode::missing_input, "this MPI grants thread level {}, at least MPI_THREAD_SERIALIZED is needed",
           provided);
    }
    exceptions_ = std::uncaught_exceptions();
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank > 0) leave_.patience_seconds += 1;
  }
  ~Session() {
    if (std::uncaught_exceptions() == exceptions_) MPI_Finalize();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const LeaveRequest& leave() const { return leave_; }

 private:
  LeaveRequest leave_;
  int exceptions_ = 0;
};

// 15 bits, what every MPI allows in a tag.
int tag_of(const MessageNote& note) {
  return static_cast<int>(note.operation) << 11 | static_cast<int>(note.dtype) << 7 |
         static_cast<int>(note.number & 127);
}

std::string describe_tag(int tag, std::int64_t bytes) {
  return fmt::format("{} message {} (modulo 128), {} bytes of {}", name(static_cast<Operation>(tag >> 11)), tag & 127,
                     bytes, name(static_cast<DType>(tag >> 7 & 15)));
}

/// A receive that has been posted: waits in its peer's queue until all its pieces have been taken.
struct Receive {
  Transfer transfer;
  MessageNote note;
  std::int64_t taken_bytes = 0;
  bool matched = false;  ///< every piece has been taken; the requests may still run
  std::vector<MPI_Request> requests;
  std::string error;
};

struct Send {
  Transfer transfer;
  MessageNote note;
  std::vector<MPI_Request> requests;
};

bool all_done(std::vector<MPI_Request>& requests) {
  if (requests.empty()) return true;
  int done = 0;
  mpi_check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
  if (done != 0) requests.clear();
  return done != 0;
}

class MpiCommunicator;

class MpiPending : public Pending::State {
 public:
  explicit MpiPending(MpiCommunicator& communicator) : communicator_(communicator) {}
  ~MpiPending() override;
  bool finished() override;
  void wait() override;

  std::vector<Send> sends;
  std::vector<std::shared_ptr<Receive>> receives;

 private:
  /// Calls `tell(peer, sends, note)` for the first message that has not come through.
  template <class Tell>
  void first_waiting(const Tell& tell) const;

  MpiCommunicator& communicator_;
};

class MpiCommunicator final : public HostCommunicator {
 public:
  MpiCommunicator(std::shared_ptr<Session> session, MPI_Comm comm, int rank, int size, const std::string& name,
                  std::int64_t largest_message_bytes)
      : HostCommunicator(rank, size, name),
        session_(std::move(session)),
        comm_(comm),
        piece_bytes_(largest_message_bytes),
        sent_(static_cast<std::size_t>(size), 0),
        received_(static_cast<std::size_t>(size), 0),
        waiting_(static_cast<std::size_t>(size)) {
    mpi_check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  ~MpiCommunicator() override {
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

  void abort(ExitCode code, const std::string& why) override {
    std::fputs(fmt::format("{}: rank {} ends the run with code {}: {}\n", name(), rank(), static_cast<int>(code),
                           printable(why))
                   .c_str(),
               stderr);  // not fmt::print: it throws where stderr cannot be written
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
    std::abort();  // not reached: MPI_Abort does not return
  }

  /// Takes every message that has arrived for a posted receive.
  void progress() {
    for (int peer = 0; peer < size(); ++peer) {
      auto& queue = waiting_[static_cast<std::size_t>(peer)];
      while (!queue.empty() && take_piece(*queue.front())) {
        if (queue.front()->matched) queue.pop_front();
      }
    }
  }
  const LeaveRequest& leave() const { return session_->leave(); }
  void withdraw(const std::shared_ptr<Receive>& receive) {
    std::erase(waiting_[static_cast<std::size_t>(receive->transfer.peer)], receive);
  }

 protected:
  Pending do_post(Operation operation, std::vector<Transfer> transfers) override;

  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& child_name) override {
    barrier();  // under the watchdog, which MPI's own call is not
    MPI_Comm child = MPI_COMM_NULL;
    mpi_check(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &child), "MPI_Comm_split");
    if (child == MPI_COMM_NULL) return nullptr;
    int child_rank = 0;
    int child_size = 0;
    MPI_Comm_rank(child, &child_rank);
    MPI_Comm_size(child, &child_size);
    return std::make_unique<MpiCommunicator>(session_, child, child_rank, child_size, child_name, piece_bytes_);
  }

 private:
  /// Whether the next piece of this receive was there; on a mismatch the receive ends with an error.
  bool take_piece(Receive& receive) {
    int there = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    mpi_check(MPI_Improbe(receive.transfer.peer, MPI_ANY_TAG, comm_, &there, &message, &status), "MPI_Improbe");
    if (there == 0) return false;
    const std::int64_t left = receive.transfer.bytes - receive.taken_bytes;
    const std::int64_t expected = std::min(left, piece_bytes_);
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    if (bytes != expected || status.MPI_TAG != tag_of(receive.note)) {
      receive.error = mismatch_text(name(), receive.transfer.peer, describe_tag(status.MPI_TAG, bytes), rank(),
                                    to_string(receive.note));
      receive.matched = true;
      return true;
    }
    MPI_Request request = MPI_REQUEST_NULL;
    mpi_check(MPI_Imrecv(static_cast<std::byte*>(receive.transfer.target) + receive.taken_bytes, bytes, MPI_BYTE,
                         &message, &request),
              "MPI_Imrecv");
    receive.requests.push_back(request);
    receive.taken_bytes += bytes;
    receive.matched = receive.taken_bytes == receive.transfer.bytes;
    return true;
  }

  std::shared_ptr<Session> session_;
  MPI_Comm comm_;
  std::int64_t piece_bytes_;
  std::vector<std::int64_t> sent_, received_;                  // messages so far, per peer
  std::vector<std::deque<std::shared_ptr<Receive>>> waiting_;  // per peer, in the order of posting
};

Pending MpiCommunicator::do_post(Operation operation, std::vector<Transfer> transfers) {
  auto pending = std::make_unique<MpiPending>(*this);
  for (const Transfer& transfer : transfers) {
    const auto peer = static_cast<std::size_t>(transfer.peer);
    MessageNote note{operation, transfer.dtype, transfer.bytes, 0};
    if (!transfer.sends) {
      note.number = received_[peer]++;
      auto receive = std::make_shared<Receive>();
      receive->transfer = transfer;
      receive->note = note;
      waiting_[peer].push_back(receive);
      pending->receives.push_back(std::move(receive));
      continue;
    }
    note.number = sent_[peer]++;
    Send send{transfer, note, {}};
    std::int64_t offset = 0;
    do {  // a message of no bytes is one piece
      const std::int64_t bytes = std::min(transfer.bytes - offset, piece_bytes_);
      MPI_Request request = MPI_REQUEST_NULL;
      mpi_check(MPI_Issend(static_cast<const std::byte*>(transfer.source) + offset, static_cast<int>(bytes), MPI_BYTE,
                           transfer.peer, tag_of(note), comm_, &request),
                "MPI_Issend");
      send.requests.push_back(request);
      offset += bytes;
    } while (offset < transfer.bytes);
    pending->sends.push_back(std::move(send));
  }
  progress();
  return Pending(std::move(pending));
}

MpiPending::~MpiPending() {
  for (const auto& receive : receives) {
    if (!receive->matched) communicator_.withdraw(receive);
  }
  // Requests that still run belong to a run that is about to be aborted.
  for (Send& send : sends) {
    for (MPI_Request& request : send.requests) {
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
    }
  }
}

bool MpiPending::finished() {
  communicator_.progress();
  bool done = true;
  for (const auto& receive : receives) {
    if (!receive->error.empty()) throw Error(ExitCode::bug, receive->error);
    done = receive->matched && all_done(receive->requests) && done;
  }
  for (Send& send : sends) done = all_done(send.requests) && done;
  return done;
}

template <class Tell>
void MpiPending::first_waiting(const Tell& tell) const {
  for (const auto& receive : receives) {
    if (!receive->matched || !receive->requests.empty()) return tell(receive->transfer.peer, false, receive->note);
  }
  for (const Send& send : sends) {
    if (!send.requests.empty()) return tell(send.transfer.peer, true, send.note);
  }
}

void MpiPending::wait() {
  VitalSigns* const signs = communicator_.signs();
  const bool watched = signs != nullptr && signs->watched();
  const double patience = watched ? std::numeric_limits<double>::infinity() : communicator_.timeout_seconds();
  PollPace pace(patience);
  AskedWait asked(communicator_.leave().asked, communicator_.leave().patience_seconds);
  while (!finished()) {
    const bool goes_on = pace.next();
    if (signs != nullptr && pace.waits_long()) {
      signs->obey();
      first_waiting([&](int peer, bool outward, const MessageNote& note) {
        signs->wait(communicator_.rank_in_world(peer), waiting_text(communicator_, peer, outward, note));
      });
    }
    if (!watched && pace.waits_long() && asked.is_over()) {
      first_waiting([&](int peer, bool outward, const MessageNote& note) {
        fail(ExitCode::preempted, "rank {} left as asked while it waited for rank {} ({}); run the same command again",
             communicator_.rank_in_world(communicator_.rank()), communicator_.rank_in_world(peer),
             waiting_text(communicator_, peer, outward, note));
      });
    }
    if (goes_on) continue;
    first_waiting([&](int peer, bool outward, const MessageNote& note) {
      throw_hang(communicator_.name(), communicator_.rank(), peer, outward, note, patience);
    });
  }
  if (signs != nullptr) signs->go_on();
}

}  // namespace

// Where launchers say how many processes they started, the one next to the process first.
constexpr std::array kProcessCounts = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
// Where those that say no count say which of their processes this is.
constexpr std::array kProcessRanks = {"PMIX_RANK", "PMI_RANK"};

std::string mpi_launch_sign() {
  for (const char* sign : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(sign) != nullptr) return sign;
  }
  return {};
}

std::string launch_mismatch(const std::function<const char*(const char*)>& variable, int size) {
  const auto mismatch = [&](const std::string& launched) {
    return fmt::format(
        "the launcher {}, but this MPI sees {}, so each would train apart: launcher and library come from different "
        "MPI installations; use the mpirun of the Open MPI this program was built with, or srun --mpi=pmix",
        launched, size);
  };
  for (const char* name : kProcessCounts) {
    const char* told = variable(name);
    if (told == nullptr) continue;
    return told == std::to_string(size) ? "" : mismatch(fmt::format("started {} processes ({})", told, name));
  }
  for (const char* name : kProcessRanks) {
    const char* told = variable(name);
    if (told == nullptr || std::strtoll(told, nullptr, 10) < size) continue;
    return mismatch(fmt::format("started several processes, of which this is number {} ({})", told, name));
  }
  return {};
}

std::vector<std::string> later_in_launch(const std::function<const char*(const char*)>& variable) {
  std::vector<std::string> found;
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    const char* told = variable(name);
    if (told == nullptr) continue;
    if (std::strtoll(told, nullptr, 10) > 0) {
      found.emplace_back(name);
    } else if (found.empty()) {
      return {};
    }
  }
  return found;
}

std::unique_ptr<Communicator> mpi_world(std::int64_t largest_message_bytes, LeaveRequest leave) {
  check(largest_message_bytes > 0 && largest_message_bytes <= kLargestMessageBytes, "MPI messages of at most {} bytes",
        largest_message_bytes);
  int already = 0;
  MPI_Initialized(&already);
  check(already == 0, "MPI can be initialised only once in a process");
  std::map<std::string_view, std::string> before;
  const auto keep = [&](const char* name) {
    if (const char* value = std::getenv(name)) before[name] = value;
  };
  std::for_each(kProcessCounts.begin(), kProcessCounts.end(), keep);
  std::for_each(kProcessRanks.begin(), kProcessRanks.end(), keep);
  const auto told = [&](const char* name) {
    const auto found = before.find(name);
    return found == before.end() ? nullptr : found->second.c_str();
  };
  auto session = std::make_shared<Session>(std::move(leave));
  MPI_Comm comm = MPI_COMM_NULL;
  mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  if (const std::string mismatch = launch_mismatch(told, size); !mismatch.empty()) {
    fail(ExitCode::missing_input, "{}", mismatch);
  }
  return std::make_unique<MpiCommunicator>(std::move(session), comm, rank, size, "world", largest_message_bytes);
}

std::unique_ptr<Communicator> join_world() {
  if (!mpi_launch_sign().empty()) return mpi_world();
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (std::getenv("SLURM_STEP_ID") != nullptr && tasks != nullptr && tasks != std::string_view("1")) {
    fail(ExitCode::missing_input,
         "srun started {} tasks without telling MPI about them, so each would train alone: use "
         "srun --mpi=pmix, or mpirun inside sbatch",
         tasks);
  }
  return self_communicator();
}

}  // namespace shoestring
