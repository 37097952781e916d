// Not for users of communicators: NCCL as communicator_nccl.cpp calls it, loaded when somebody first asks for it, so
// that the program starts on machines without. Only for builds with NCCL's header.
#pragma once

#include <dlfcn.h>
#include <nccl.h>

#include <string>

#include "kernels/base/check.h"
#include "parallel/communicator.h"

namespace shoestring {

/// The functions used, looked up in libnccl.so.2 once.
class Library {
  struct Symbol {
    void* address;
    template <class Function>
    operator Function*() const {
      return reinterpret_cast<Function*>(address);
    }
  };
  Symbol find(const char* symbol) {
    void* address = handle_ == nullptr ? nullptr : dlsym(handle_, symbol);
    if (address == nullptr && refusal.empty()) refusal = fmt::format("libnccl.so.2 has no {}", symbol);
    return {address};
  }
  void* handle_ = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

 public:
  std::string refusal = handle_ == nullptr ? fmt::format("libnccl.so.2 cannot be loaded: {}", dlerror()) : "";
  decltype(&ncclGetUniqueId) get_unique_id = find("ncclGetUniqueId");
  decltype(&ncclCommInitRankConfig) init = find("ncclCommInitRankConfig");
  decltype(&ncclCommSplit) split = find("ncclCommSplit");
  decltype(&ncclCommGetAsyncError) async_error = find("ncclCommGetAsyncError");
  decltype(&ncclCommAbort) abort = find("ncclCommAbort");
  decltype(&ncclCommDestroy) destroy = find("ncclCommDestroy");
  decltype(&ncclGetErrorString) error_string = find("ncclGetErrorString");
  decltype(&ncclAllReduce) all_reduce = find("ncclAllReduce");
  decltype(&ncclReduceScatter) reduce_scatter = find("ncclReduceScatter");
  decltype(&ncclAllGather) all_gather = find("ncclAllGather");
  decltype(&ncclBroadcast) broadcast = find("ncclBroadcast");
  decltype(&ncclSend) send = find("ncclSend");
  decltype(&ncclRecv) recv = find("ncclRecv");
  decltype(&ncclGroupStart) group_start = find("ncclGroupStart");
  decltype(&ncclGroupEnd) group_end = find("ncclGroupEnd");
};

inline const Library& library() {
  static const Library loaded;
  return loaded;
}

inline ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return ncclFloat64;
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::i64: return ncclInt64;
    case DType::i32: return ncclInt32;
    default: fail(ExitCode::bug, "a reduction of {} is not defined: widen it first", name(dtype));
  }
}

inline ncclRedOp_t operation_of(Reduction reduction) { return reduction == Reduction::sum ? ncclSum : ncclMax; }

}  // namespace shoestring
