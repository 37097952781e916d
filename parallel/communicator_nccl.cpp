#include "parallel/communicator_nccl.h"

#if SHOESTRING_NCCL
#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>

#include "kernels/base/copy.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/event.h"
#include "parallel/nccl_library.h"
#include "parallel/pace.h"
#endif

namespace shoestring {

#if !SHOESTRING_NCCL

std::string nccl_refusal() { return "this build has no NCCL; install it and configure anew"; }

std::unique_ptr<Communicator> nccl_communicator(Communicator&, Stream&) {
  fail(ExitCode::missing_input, "no NCCL communicator: {}", nccl_refusal());
}

#else

namespace {

/// A communicator and its splits. They share a stream, and freeing one waits for its operations there, which may stand
/// behind a stuck one of another: so all are aborted in one group, where NCCL tells every kernel to leave before it
/// waits for the first.
struct Family {
  std::vector<ncclComm_t> alive;
  std::optional<Error> verdict;  ///< why they were given up

  void give_up(const Error& why) {
    if (verdict.has_value()) return;
    verdict = why;
    library().group_start();
    for (ncclComm_t comm : alive) library().abort(comm);
    library().group_end();
  }
};

class NcclCommunicator;

class NcclPending : public Pending::State {
 public:
  NcclPending(NcclCommunicator& communicator, const Stream& stream, const std::vector<Transfer>& transfers)
      : communicator_(communicator), mark_(stream.device()) {
    const Transfer& first = transfers.front();
    what_ = fmt::format("{} messages, the first {} rank {} with {} bytes of {}", transfers.size(),
                        first.sends ? "to" : "from", first.peer, first.bytes, name(first.dtype));
    mark_.record(stream);
  }
  ~NcclPending() override;
  bool finished() override;
  void wait() override;

 private:
  NcclCommunicator& communicator_;
  Event mark_;
  std::string what_;
  bool done_ = false;
};

class NcclCommunicator final : public Communicator {
 public:
  /// Takes `comm`, whose making may still be in progress: `finish_making` comes next.
  NcclCommunicator(ncclComm_t comm, std::shared_ptr<Family> family, Communicator& bootstrap, Stream& stream, int rank,
                   int size, std::string name, double timeout_seconds)
      : Communicator(rank, size, std::move(name)),
        comm_(comm),
        family_(std::move(family)),
        bootstrap_(bootstrap),
        stream_(stream) {
    family_->alive.push_back(comm_);
    set_timeout(timeout_seconds);
  }
  ~NcclCommunicator() override;

  void finish_making(ncclResult_t result, const char* call) {
    settle(result, call);
    barrier_ = Tensor(DType::i32, {1}, stream_.device());
  }

  void abort(ExitCode code, const std::string& why) override {
    bootstrap_.abort(code, fmt::format("{}: {}", name(), why));  // does not return where it ends the process
    family_->give_up(Error(code, why));
  }

  /// Whether the stream has reached `mark`; notices a communicator that has failed or was given up.
  bool poll(const Event& mark, const std::string& what) {
    comm();
    const bool there = mark.reached();
    if (const ncclResult_t now = state(); now != ncclSuccess && now != ncclInProgress) failed(what, now);
    return there;
  }
  void wait_for(const Event& mark, const std::string& what) {
    PollPace pace(timeout_seconds());
    while (!poll(mark, what)) {
      if (!pace.next()) waited_too_long(what + ", or for what stands before it in the stream");
    }
  }
  /// Ends what this rank still does, after an error that another part of the program knows.
  void give_up(const std::string& why) {
    family_->give_up(Error(ExitCode::bug, fmt::format("{}: rank {}: {}", name(), rank(), why)));
  }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& child_name) override;
  void do_all_reduce(TensorView values, Reduction reduction) override {
    settle(library().all_reduce(values.data, values.data, count(values.elements()), type_of(values.dtype),
                                operation_of(reduction), comm(), cuda_stream(stream_)),
           "ncclAllReduce");
  }
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) override {
    settle(library().reduce_scatter(sent.data, received.data, count(received.elements()), type_of(sent.dtype),
                                    operation_of(reduction), comm(), cuda_stream(stream_)),
           "ncclReduceScatter");
  }
  // What is only moved is moved as bytes.
  void do_all_gather(TensorView received, ConstTensorView sent) override {
    settle(library().all_gather(sent.data, received.data, count(sent.bytes()), ncclUint8, comm(), cuda_stream(stream_)),
           "ncclAllGather");
  }
  void do_broadcast(TensorView values, int root) override {
    settle(library().broadcast(values.data, values.data, count(values.bytes()), ncclUint8, root, comm(),
                               cuda_stream(stream_)),
           "ncclBroadcast");
  }
  void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                       std::span<const std::int64_t> send_counts) override {
    const std::int64_t width = size_bytes(sent.dtype);
    const auto* from = static_cast<const std::byte*>(sent.data);
    auto* to = static_cast<std::byte*>(received.data);
    std::vector<Transfer> transfers;
    for (int peer = 0; peer < size(); ++peer) {
      const std::int64_t send_bytes = send_counts[static_cast<std::size_t>(peer)] * width;
      const std::int64_t receive_bytes = receive_counts[static_cast<std::size_t>(peer)] * width;
      transfers.push_back({true, peer, sent.dtype, from, nullptr, send_bytes});
      transfers.push_back({false, peer, sent.dtype, nullptr, to, receive_bytes});
      if (peer != rank()) count_sent(send_bytes);
      from += send_bytes;
      to += receive_bytes;
    }
    post(transfers);
  }
  void do_barrier() override {
    do_all_reduce(barrier_.view(), Reduction::sum);
    finish("barrier");
  }
  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    post(transfers);
    return Pending(std::make_unique<NcclPending>(*this, stream_, transfers));
  }
  std::string refuses(Device device) const override {
    if (device == stream_.device()) return {};
    return fmt::format("this communicator works on {}, not on {}", to_string(stream_.device()), to_string(device));
  }

 private:
  static std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

  /// The communicator as long as there is one: an abort frees it.
  ncclComm_t comm() const {
    if (const auto& verdict = family_->verdict; verdict.has_value()) {
      fail(verdict->code(), "{}: rank {} has given up its communicators: {}", name(), rank(), verdict->what());
    }
    return comm_;
  }
  ncclResult_t state() const {
    ncclResult_t state = ncclInProgress;
    const ncclResult_t asked = library().async_error(comm_, &state);
    return asked == ncclSuccess ? state : asked;
  }

  void post(const std::vector<Transfer>& transfers);
  void settle(ncclResult_t result, const char* call);
  /// Waits until the stream has done all it was given so far.
  void finish(const std::string& what) {
    Event mark(stream_.device());
    mark.record(stream_);
    wait_for(mark, what);
  }

  /// Gives the family up first: what is stuck on the device would hold up whoever frees memory there.
  [[noreturn]] void lose(ExitCode code, const std::string& what) {
    const Error error(code, fmt::format("{}: rank {} {}", name(), rank(), what));
    family_->give_up(error);
    throw error;
  }
  [[noreturn]] void waited_too_long(const std::string& what) {
    lose(ExitCode::hang, fmt::format("waited {:.1f} s for {}", timeout_seconds(), what));
  }
  [[noreturn]] void failed(const std::string& what, ncclResult_t result) {
    lose(ExitCode::io, fmt::format("failed in {}: {}", what, library().error_string(result)));
  }

  ncclComm_t comm_;
  std::shared_ptr<Family> family_;
  Communicator& bootstrap_;
  Stream& stream_;
  Tensor barrier_;
  int exceptions_ = std::uncaught_exceptions();
};

NcclCommunicator::~NcclCommunicator() {
  if (std::uncaught_exceptions() > exceptions_) give_up("left by an exception");
  if (family_->verdict.has_value()) return;
  try {
    finish("its last operations");  // ncclCommDestroy waits for them too, but without end
  } catch (const std::exception& exception) {
    std::fputs(fmt::format("{}\n", exception.what()).c_str(), stderr);
    family_->give_up(as_error(exception));
    return;
  }
  std::erase(family_->alive, comm_);
  library().destroy(comm_);
}

std::unique_ptr<Communicator> NcclCommunicator::do_split(int color, int key, const std::string& child_name) {
  // Ranks of the child, told over this communicator: place and size by counting smaller (key, rank). Memory and copies
  // that are not pinned may wait for the stream without end, so the watchdog goes before them.
  finish("split");
  Tensor mine(DType::i64, {2}, stream_.device());
  Tensor all(DType::i64, {size(), 2}, stream_.device());
  const std::int64_t pair[2] = {color, key};
  copy(mine.view(), view_of(pair, DType::i64, {2}), stream_);
  do_all_gather(all.view(), mine.view());
  finish("the colors of a split");
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(2 * size()));
  copy(view_of(pairs.data(), DType::i64, {size(), 2}), all.view(), stream_);
  stream_.synchronize();
  int place = 0;
  int members = 0;
  for (int r = 0; r < size(); ++r) {
    const std::int64_t their_key = pairs[static_cast<std::size_t>(2 * r + 1)];
    if (pairs[static_cast<std::size_t>(2 * r)] != color) continue;
    ++members;
    if (their_key < key || (their_key == key && r < rank())) ++place;
  }
  ncclComm_t child = nullptr;
  const ncclResult_t result = library().split(comm(), color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &child, nullptr);
  // Success means begun: a thread of NCCL splits and writes `child` later, and only this communicator's state says when
  // it has. An error gives this communicator up, which joins that thread before `child` goes.
  settle(result == ncclSuccess ? ncclInProgress : result, "ncclCommSplit");
  if (color < 0) return nullptr;
  if (child == nullptr) failed("ncclCommSplit", ncclInternalError);
  auto made = std::make_unique<NcclCommunicator>(child, family_, bootstrap_, stream_, place, members, child_name,
                                                 timeout_seconds());
  made->finish_making(ncclInProgress, "ncclCommSplit");
  return made;
}

// NCCL may hang on messages of no bytes; both sides know the size, and both leave them out.
void NcclCommunicator::post(const std::vector<Transfer>& transfers) {
  ncclComm_t const comm = this->comm();
  const cudaStream_t stream = cuda_stream(stream_);
  settle(library().group_start(), "ncclGroupStart");
  ncclResult_t result = ncclSuccess;
  const char* call = "ncclGroupEnd";
  for (const Transfer& t : transfers) {
    if (t.bytes == 0) continue;
    result = t.sends ? library().send(t.source, count(t.bytes), ncclUint8, t.peer, comm, stream)
                     : library().recv(t.target, count(t.bytes), ncclUint8, t.peer, comm, stream);
    if (result == ncclSuccess || result == ncclInProgress) continue;
    call = t.sends ? "ncclSend" : "ncclRecv";
    break;
  }
  // Also after an error: in a group left open, this thread's later calls would never begin.
  const ncclResult_t ended = library().group_end();
  settle(result == ncclSuccess || result == ncclInProgress ? ended : result, call);
}

/// Communicators do not block the host: a call may still be in progress when it returns. Its operation is in the stream
/// when this returns.
void NcclCommunicator::settle(ncclResult_t result, const char* call) {
  PollPace pace(timeout_seconds());
  while (result == ncclInProgress) {
    result = state();
    if (result == ncclInProgress && !pace.next()) waited_too_long(call);
  }
  if (result != ncclSuccess) failed(call, result);
}

NcclPending::~NcclPending() {
  try {
    if (!finished()) communicator_.give_up("messages under way were dropped");
  } catch (const std::exception& exception) {
    communicator_.give_up(exception.what());
  }
}

bool NcclPending::finished() {
  if (!done_) done_ = communicator_.poll(mark_, what_);
  return done_;
}

void NcclPending::wait() {
  if (!done_) communicator_.wait_for(mark_, what_);
  done_ = true;
}

}  // namespace

std::string nccl_refusal() {
  if (cuda_device_count() == 0) return "this process sees no CUDA device";
  return library().refusal;
}

std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Stream& stream) {
  if (const std::string reason = nccl_refusal(); !reason.empty()) {
    fail(ExitCode::missing_input,
         "no NCCL communicator on rank {}: {}; look at `nvidia-smi` there, and at CUDA_VISIBLE_DEVICES",
         bootstrap.rank(), reason);
  }
  check(stream.device().kind == DeviceKind::cuda, "an NCCL communicator needs a CUDA stream, not one of the {}",
        to_string(stream.device()));
  ncclUniqueId id{};
  if (bootstrap.rank() == 0) {
    const ncclResult_t result = library().get_unique_id(&id);
    if (result != ncclSuccess)
      fail(ExitCode::io, "ncclGetUniqueId failed: {}; look at it with NCCL_DEBUG=INFO", library().error_string(result));
  }
  bootstrap.broadcast(view_of(static_cast<void*>(id.internal), DType::u8, {sizeof id.internal}), 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;  // so that a dead peer ends in a timeout
  ncclComm_t comm = nullptr;
  cuda_stream(stream);  // NCCL takes this thread's current device
  const ncclResult_t result = library().init(&comm, bootstrap.size(), id, bootstrap.rank(), &config);
  if (comm == nullptr) {
    fail(ExitCode::io, "ncclCommInitRankConfig failed on rank {}: {}; look at it with NCCL_DEBUG=INFO",
         bootstrap.rank(), library().error_string(result));
  }
  auto made =
      std::make_unique<NcclCommunicator>(comm, std::make_shared<Family>(), bootstrap, stream, bootstrap.rank(),
                                         bootstrap.size(), bootstrap.name() + "/nccl", bootstrap.timeout_seconds());
  made->finish_making(result, "ncclCommInitRankConfig");
  return made;
}

#endif

}  // namespace shoestring
