#include "parallel/communicator_nccl.h"

#if SHOESTRING_NCCL
#include <dlfcn.h>
#include <nccl.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "kernels/base/copy.h"
#include "kernels/base/event.h"
#endif

namespace shoestring {

#if !SHOESTRING_NCCL

std::string nccl_refusal() { return "this build has no NCCL"; }

std::unique_ptr<Communicator> nccl_communicator(Communicator&, Stream&) {
  fail(ExitCode::missing_input, "no NCCL communicator: {}", nccl_refusal());
}

#else

namespace {

/// The functions used, looked up in libnccl.so.2 once.
struct Library {
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init = nullptr;
  decltype(&ncclCommSplit) split = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclReduceScatter) reduce_scatter = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) recv = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  std::string refusal;

  Library() {
    void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      refusal = fmt::format("libnccl.so.2 cannot be loaded: {}", dlerror());
      return;
    }
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)> >(dlsym(handle, symbol));
      if (function == nullptr && refusal.empty()) refusal = fmt::format("libnccl.so.2 has no {}", symbol);
    };
    find(get_unique_id, "ncclGetUniqueId");
    find(init, "ncclCommInitRankConfig");
    find(split, "ncclCommSplit");
    find(async_error, "ncclCommGetAsyncError");
    find(abort, "ncclCommAbort");
    find(destroy, "ncclCommDestroy");
    find(error_string, "ncclGetErrorString");
    find(all_reduce, "ncclAllReduce");
    find(reduce_scatter, "ncclReduceScatter");
    find(all_gather, "ncclAllGather");
    find(broadcast, "ncclBroadcast");
    find(send, "ncclSend");
    find(recv, "ncclRecv");
    find(group_start, "ncclGroupStart");
    find(group_end, "ncclGroupEnd");
  }
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return ncclFloat64;
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::i64: return ncclInt64;
    case DType::i32: return ncclInt32;
    default: fail(ExitCode::bug, "a reduction of {} is not defined: widen it first", name(dtype));
  }
}

ncclRedOp_t operation_of(Reduction reduction) { return reduction == Reduction::sum ? ncclSum : ncclMax; }

class NcclPending : public Pending::State {
 public:
  explicit NcclPending(const Stream& stream) : event_(stream.device()) { event_.record(stream); }
  bool finished() override {
    wait();
    return true;
  }
  void wait() override { event_.synchronize(); }

 private:
  Event event_;
};

class NcclCommunicator final : public Communicator {
 public:
  /// Takes a communicator whose set-up may still be in progress.
  NcclCommunicator(ncclComm_t comm, Stream& stream, int rank, int size, std::string name, double timeout_seconds)
      : Communicator(rank, size, std::move(name)),
        comm_(comm),
        stream_(stream),
        barrier_(DType::i32, {1}, stream.device()) {
    set_timeout(timeout_seconds);
    settle(ncclInProgress, "set-up");
  }
  ~NcclCommunicator() override {
    if (!aborted_) library().destroy(comm_);
  }

  void abort(ExitCode code, const std::string& why) override {
    std::fputs(fmt::format("{}: rank {} ends with code {}: {}\n", name(), rank(), static_cast<int>(code), why).c_str(),
               stderr);
    aborted_ = true;
    library().abort(comm_);
  }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& child_name) override {
    // Ranks of the child, told over this communicator: place and size by counting smaller (key, rank).
    Tensor mine(DType::i64, {2}, stream_.device());
    Tensor all(DType::i64, {size(), 2}, stream_.device());
    const std::int64_t pair[2] = {color, key};
    copy(mine.view(), view_of(pair, DType::i64, {2}), stream_);
    do_all_gather(all.view(), mine.view());
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
    settle(library().split(comm_, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &child, nullptr), "ncclCommSplit");
    if (color < 0) return nullptr;
    return std::make_unique<NcclCommunicator>(child, stream_, place, members, child_name, timeout_seconds());
  }
  void do_all_reduce(TensorView values, Reduction reduction) override {
    settle(library().all_reduce(values.data, values.data, count(values.elements()), type_of(values.dtype),
                                operation_of(reduction), comm_, native()),
           "ncclAllReduce");
  }
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) override {
    settle(library().reduce_scatter(sent.data, received.data, count(received.elements()), type_of(sent.dtype),
                                    operation_of(reduction), comm_, native()),
           "ncclReduceScatter");
  }
  // What is only moved is moved as bytes.
  void do_all_gather(TensorView received, ConstTensorView sent) override {
    settle(library().all_gather(sent.data, received.data, count(sent.bytes()), ncclUint8, comm_, native()),
           "ncclAllGather");
  }
  void do_broadcast(TensorView values, int root) override {
    settle(library().broadcast(values.data, values.data, count(values.bytes()), ncclUint8, root, comm_, native()),
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
    stream_.synchronize();
  }
  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    post(transfers);
    return Pending(std::make_unique<NcclPending>(stream_));
  }
  std::string refuses(Device device) const override {
    if (device == stream_.device()) return {};
    return fmt::format("this communicator works on {}, not on {}", to_string(stream_.device()), to_string(device));
  }

 private:
  static std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }
  cudaStream_t native() const { return static_cast<cudaStream_t>(stream_.native()); }

  // NCCL may hang on messages of no bytes; both sides know the size, and both leave them out.
  void post(const std::vector<Transfer>& transfers) {
    settle(library().group_start(), "ncclGroupStart");
    for (const Transfer& t : transfers) {
      if (t.bytes == 0) continue;
      settle(t.sends ? library().send(t.source, count(t.bytes), ncclUint8, t.peer, comm_, native())
                     : library().recv(t.target, count(t.bytes), ncclUint8, t.peer, comm_, native()),
             t.sends ? "ncclSend" : "ncclRecv", true);
    }
    settle(library().group_end(), "ncclGroupEnd");
  }

  /// Communicators do not block the host: an operation may still be in progress when it returns, but for those inside a
  /// group, which begin when it ends.
  void settle(ncclResult_t result, const char* call, bool in_group = false) {
    const auto start = std::chrono::steady_clock::now();
    while (result == ncclInProgress && !in_group) {
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > timeout_seconds()) {
        aborted_ = true;
        library().abort(comm_);
        fail(ExitCode::hang, "{}: rank {} waited {:.1f} s in {}", name(), rank(), timeout_seconds(), call);
      }
      std::this_thread::yield();
      ncclResult_t state = ncclInProgress;
      result = library().async_error(comm_, &state);
      if (result == ncclSuccess) result = state;
    }
    if (result == ncclSuccess || result == ncclInProgress) return;
    fail(ExitCode::io, "{}: rank {}: {} failed: {}", name(), rank(), call, library().error_string(result));
  }

  ncclComm_t comm_;
  Stream& stream_;
  Tensor barrier_;
  bool aborted_ = false;
};

}  // namespace

std::string nccl_refusal() {
  if (cuda_device_count() == 0) return "this process sees no CUDA device";
  return library().refusal;
}

std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Stream& stream) {
  if (const std::string reason = nccl_refusal(); !reason.empty()) {
    fail(ExitCode::missing_input, "no NCCL communicator on rank {}: {}", bootstrap.rank(), reason);
  }
  check(stream.device().kind == DeviceKind::cuda, "an NCCL communicator needs a CUDA stream, not one of the {}",
        to_string(stream.device()));
  ncclUniqueId id{};
  if (bootstrap.rank() == 0) {
    const ncclResult_t result = library().get_unique_id(&id);
    if (result != ncclSuccess) {
      fail(ExitCode::io, "ncclGetUniqueId failed: {}", library().error_string(result));
    }
  }
  bootstrap.broadcast(view_of(static_cast<void*>(id.internal), DType::u8, {sizeof id.internal}), 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;  // so that a dead peer ends in a timeout
  ncclComm_t comm = nullptr;
  const ncclResult_t result = library().init(&comm, bootstrap.size(), id, bootstrap.rank(), &config);
  if (result != ncclSuccess && result != ncclInProgress) {
    fail(ExitCode::io, "ncclCommInitRankConfig failed on rank {}: {}", bootstrap.rank(),
         library().error_string(result));
  }
  return std::make_unique<NcclCommunicator>(comm, stream, bootstrap.rank(), bootstrap.size(),
                                            bootstrap.name() + "/nccl", bootstrap.timeout_seconds());
}

#endif

}  // namespace shoestring
