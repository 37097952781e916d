// The embedding on a CUDA device. Backward without atomics: the first token of each id adds all tokens of that id, in
// token order, so that the sum has the reference's bits.
#include "kernels/base/launch.cuh"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/embedding.h"

namespace shoestring::embedding::cuda {
namespace {

constexpr int kThreads = 256;

struct Parameters {
  void* table;
  std::int64_t table_stride;
  void* rows;  ///< y or dy
  std::int64_t row_stride;
  const std::int32_t* ids;
  int tokens;
  std::int64_t hidden, vocabulary;
};

/// A block a token. An id outside the table, which a host could refuse, gives NaN: seen, and nobody's memory read.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) copy_rows_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t id = p.ids[blockIdx.x];
  const bool inside = id >= 0 && id < p.vocabulary;
  const From* from = static_cast<const From*>(p.table) + (inside ? id : 0) * p.table_stride;
  To* to = static_cast<To*>(p.rows) + blockIdx.x * p.row_stride;
  for (std::int64_t j = threadIdx.x; j < p.hidden; j += kThreads) {
    to[j] = To(inside ? to_single(from[j]) : nanf(""));
  }
}

/// A block a token; it stops where an earlier token has the same id.
template <class From>
__global__ void __launch_bounds__(kThreads) add_rows_kernel(const __grid_constant__ Parameters p) {
  __shared__ std::int32_t ids[kThreads];
  const int token = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int32_t id = p.ids[token];
  if (id < 0 || id >= p.vocabulary) return;
  for (int first = 0; first < token; first += kThreads) {
    const int other = first + thread;
    if (__syncthreads_or(other < token && p.ids[other] == id)) return;
  }
  float* to = static_cast<float*>(p.table) + id * p.table_stride;
  for (int first = token; first < p.tokens; first += kThreads) {
    const int mine = first + thread;
    ids[thread] = mine < p.tokens ? p.ids[mine] : -1;
    if (!__syncthreads_or(ids[thread] == id)) continue;
    for (int t = 0; t < kThreads; ++t) {
      if (ids[t] != id) continue;
      const From* from = static_cast<const From*>(p.rows) + (first + t) * p.row_stride;
      for (std::int64_t j = thread; j < p.hidden; j += kThreads) to[j] += to_single(from[j]);
    }
    __syncthreads();  // before the next ids overwrite these
  }
}

std::string refuses_formats(std::string reason, DType a, DType b) {
  if (reason.empty() && (a == DType::f64 || b == DType::f64)) return "f64 is for CPUs";
  return reason;
}

}  // namespace

std::string refuses(const EmbeddingArgs& args) {
  return refuses_formats(needs_cuda(args.stream, {args.y, args.table, args.ids}), args.table.dtype, args.y.dtype);
}
std::string refuses(const EmbeddingBackwardArgs& args) {
  return refuses_formats(needs_cuda(args.stream, {args.dy, args.dtable, args.ids}), args.dtable.dtype, args.dy.dtype);
}

void forward(const EmbeddingArgs& args) {
  const Parameters p{const_cast<void*>(args.table.data),
                     args.table.strides[0],
                     args.y.data,
                     args.y.strides[0],
                     args.ids.as<std::int32_t>(),
                     static_cast<int>(args.y.shape[0]),
                     args.y.shape[1],
                     args.table.shape[0]};
  const bool from_f32 = args.table.dtype == DType::f32;
  const auto kernel = args.y.dtype == DType::f32
                          ? (from_f32 ? copy_rows_kernel<float, float> : copy_rows_kernel<BFloat16, float>)
                          : (from_f32 ? copy_rows_kernel<float, BFloat16> : copy_rows_kernel<BFloat16, BFloat16>);
  launch("embedding forward", kernel, {static_cast<unsigned>(p.tokens), kThreads, cuda_stream(args.stream)}, p);
}

void backward(const EmbeddingBackwardArgs& args) {
  const Parameters p{args.dtable.data,   args.dtable.strides[0],      const_cast<void*>(args.dy.data),
                     args.dy.strides[0], args.ids.as<std::int32_t>(), static_cast<int>(args.dy.shape[0]),
                     args.dy.shape[1],   args.dtable.shape[0]};
  launch("embedding backward", args.dy.dtype == DType::f32 ? add_rows_kernel<float> : add_rows_kernel<BFloat16>,
         {static_cast<unsigned>(p.tokens), kThreads, cuda_stream(args.stream)}, p);
}

}  // namespace shoestring::embedding::cuda
