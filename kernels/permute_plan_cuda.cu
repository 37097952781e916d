// The plan of a permutation on a CUDA device: a counting sort, stable in slot order, without atomics. A block of
// threads an expert counts its slots; then each finds where its rows begin and hands them out, 256 slots at a time.
//
// Floors: every block reads every slot's index twice (65,536 slots and 256 experts are 128 MB of cache reads); and a
// barrier or two for each 256 slots, some 0.1 us a turn.
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/permute.h"

namespace shoestring::permute::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

struct PlanParameters {
  std::int64_t* counts;
  std::int64_t* offsets;
  std::int32_t* row_of_slot;
  std::int32_t* slot_of_row;
  const std::int32_t* expert_of;
  int slots, experts, multiple;
  std::int64_t most_rows;
};

/// How many threads of the block say yes before this one, and in all.
struct Votes {
  int before, all;
};
__device__ Votes vote(bool yes, int* shared) {
  const unsigned warp = __ballot_sync(0xFFFFFFFFu, yes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) shared[threadIdx.x / 32] = __popc(warp);
  __syncthreads();
  Votes votes{__popc(warp & ((1u << lane) - 1u)), 0};
  for (int w = 0; w < kWarps; ++w) {
    if (w < static_cast<int>(threadIdx.x) / 32) votes.before += shared[w];
    votes.all += shared[w];
  }
  __syncthreads();  // before the next vote
  return votes;
}

/// A block an expert.
__global__ void __launch_bounds__(kThreads) count_kernel(const __grid_constant__ PlanParameters p) {
  const int expert = static_cast<int>(blockIdx.x);
  int count = 0;
  for (int first = 0; first < p.slots; first += kThreads) {
    const int slot = first + static_cast<int>(threadIdx.x);
    count += __syncthreads_count(slot < p.slots && p.expert_of[slot] == expert);
  }
  if (threadIdx.x == 0) p.counts[expert] = count;
}

/// A block an expert, which also has the rows up to the next one's, and a last one for slots without expert and rows
/// behind all.
__global__ void __launch_bounds__(kThreads) assign_kernel(const __grid_constant__ PlanParameters p) {
  __shared__ int shared[kWarps];
  const int expert = static_cast<int>(blockIdx.x);
  std::int64_t row = 0;
  for (int e = 0; e < expert; ++e) row += (p.counts[e] + p.multiple - 1) / p.multiple * p.multiple;
  if (threadIdx.x == 0) p.offsets[expert] = row;
  const bool last = expert == p.experts;
  const std::int64_t slots = last ? 0 : p.counts[expert];
  const std::int64_t end = last ? p.most_rows : row + (slots + p.multiple - 1) / p.multiple * p.multiple;
  for (std::int64_t r = row + slots + threadIdx.x; r < end; r += kThreads) p.slot_of_row[r] = -1;
  for (int first = 0; first < p.slots; first += kThreads) {
    const int slot = first + static_cast<int>(threadIdx.x);
    const int chosen = slot < p.slots ? p.expert_of[slot] : expert - 1;
    if (last) {
      if (slot < p.slots && (chosen < 0 || chosen >= p.experts)) p.row_of_slot[slot] = -1;
      continue;
    }
    const bool mine = slot < p.slots && chosen == expert;
    const Votes votes = vote(mine, shared);
    if (mine) {
      p.row_of_slot[slot] = static_cast<std::int32_t>(row + votes.before);
      p.slot_of_row[row + votes.before] = slot;
    }
    row += votes.all;
  }
}

}  // namespace

std::string refuses(const PlanPermutationArgs& args) {
  const Permutation& plan = args.plan;
  const std::string reason =
      needs_cuda(args.stream, {args.indices, plan.counts, plan.offsets, plan.row_of_slot, plan.slot_of_row}, false);
  return reason.empty() && plan.slot_of_row.elements() > INT32_MAX ? "more than 2^31 - 1 rows" : reason;
}

void plan(const PlanPermutationArgs& args) {
  const PlanParameters p{args.plan.counts.as<std::int64_t>(),
                         args.plan.offsets.as<std::int64_t>(),
                         args.plan.row_of_slot.as<std::int32_t>(),
                         args.plan.slot_of_row.as<std::int32_t>(),
                         args.indices.as<std::int32_t>(),
                         static_cast<int>(args.indices.elements()),
                         static_cast<int>(args.plan.counts.shape[0]),
                         static_cast<int>(args.multiple),
                         args.plan.slot_of_row.elements()};
  const cudaStream_t stream = cuda_stream(args.stream);
  launch("plan_permutation: counts", count_kernel, {static_cast<unsigned>(p.experts), kThreads, stream}, p);
  launch("plan_permutation", assign_kernel, {static_cast<unsigned>(p.experts + 1), kThreads, stream}, p);
}

}  // namespace shoestring::permute::cuda
