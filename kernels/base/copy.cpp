#include "kernels/base/copy.h"

#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

#if SHOESTRING_CUDA
#include "kernels/base/cuda_check.h"
#endif

namespace shoestring {
namespace {

constexpr std::int64_t kGrainBytes = std::int64_t{1} << 16;

void copy_dense(TensorView to, ConstTensorView from, Workers& workers) {
  workers.split(to.bytes(), kGrainBytes, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(to.as<char>() + begin, from.as<char>() + begin, static_cast<std::size_t>(end - begin));
  });
}

void copy_elements(char* to, const Strides& to_strides, const char* from, const Strides& from_strides,
                   const Shape& shape, int dim, std::int64_t size) {
  if (dim == shape.rank()) {
    std::memcpy(to, from, static_cast<std::size_t>(size));
    return;
  }
  if (dim == shape.rank() - 1 && to_strides[dim] == 1 && from_strides[dim] == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(shape[dim] * size));
    return;
  }
  for (std::int64_t i = 0; i < shape[dim]; ++i) {
    copy_elements(to + i * to_strides[dim] * size, to_strides, from + i * from_strides[dim] * size, from_strides, shape,
                  dim + 1, size);
  }
}

#if SHOESTRING_CUDA
/// A view as `count` runs of `bytes` dense bytes, `pitch` bytes apart; count = 0 when it has no such form.
struct Runs {
  std::int64_t count = 0;
  std::int64_t bytes = 0;
  std::int64_t pitch = 0;
};

Runs runs_of(const ConstTensorView& view) {
  std::int64_t dense = 1;
  int dim = view.shape.rank() - 1;
  while (dim >= 0 && (view.shape[dim] == 1 || view.strides[dim] == dense)) dense *= view.shape[dim--];
  Runs runs{1, dense * size_bytes(view.dtype), dense * size_bytes(view.dtype)};
  if (dim < 0) return runs;
  if (dense == 1 && view.shape.rank() > 0 && view.shape[view.shape.rank() - 1] != 1) return {};
  const std::int64_t step = view.strides[dim];
  std::int64_t expected = step;
  for (; dim >= 0; --dim) {
    if (view.shape[dim] != 1 && view.strides[dim] != expected) return {};
    expected *= view.shape[dim];
    runs.count *= view.shape[dim];
  }
  runs.pitch = step * size_bytes(view.dtype);
  return runs;
}

void copy_cuda(TensorView to, ConstTensorView from, Stream& stream) {
  Runs target = runs_of(to);
  Runs source = runs_of(from);
  if (target.count == 1) target = {source.count, source.bytes, source.bytes};  // dense: cut as the other side is
  if (source.count == 1) source = {target.count, target.bytes, target.bytes};
  check(target.count > 0 && target.count == source.count && target.bytes == source.bytes,
        "cannot copy {} between devices: its rows are not dense", from);
  if (source.count == 1) {  // of any size: one from row to row has a limit of 2 GiB
    cuda_check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(source.bytes), cudaMemcpyDefault,
                               cuda_stream(stream)),
               "cudaMemcpyAsync");
    return;
  }
  cuda_check(cudaMemcpy2DAsync(to.data, static_cast<std::size_t>(target.pitch), from.data,
                               static_cast<std::size_t>(source.pitch), static_cast<std::size_t>(source.bytes),
                               static_cast<std::size_t>(source.count), cudaMemcpyDefault, cuda_stream(stream)),
             "cudaMemcpy2DAsync");
}
#endif

}  // namespace

void copy(TensorView to, ConstTensorView from, Stream& stream) {
  check(to.dtype == from.dtype && to.shape == from.shape, "copy of {} into {}", from, to);
  if (from.elements() == 0 || stream.dry()) return;
  if (to.device.kind == DeviceKind::cpu && from.device.kind == DeviceKind::cpu) {
    check(stream.device().kind == DeviceKind::cpu, "a copy in host memory on a stream of {}",
          to_string(stream.device()));
    if (to.contiguous() && from.contiguous()) return copy_dense(to, from, stream.workers());
    copy_elements(static_cast<char*>(to.data), to.strides, static_cast<const char*>(from.data), from.strides,
                  from.shape, 0, size_bytes(from.dtype));
    return;
  }
  check(stream.device() == to.device || stream.device() == from.device, "a copy from {} to {} on a stream of {}",
        to_string(from.device), to_string(to.device), to_string(stream.device()));
  check(stream.device().kind == DeviceKind::cuda, "a copy to or from a device needs a stream of it");
#if SHOESTRING_CUDA
  copy_cuda(to, from, stream);
#endif
}

}  // namespace shoestring
