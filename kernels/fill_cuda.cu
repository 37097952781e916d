// One value everywhere on a CUDA device, in words of the format's size; the host has rounded it.
//
// Floors: bytes over the memory's speed; a launch.
#include <cstring>

#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/fill.h"

namespace shoestring::filling::cuda {
namespace {

template <class Word>
__global__ void __launch_bounds__(kElementThreads) fill_kernel(Word* x, Word value, std::int64_t count) {
  for (std::int64_t i = first_element(); i < count; i += element_step()) x[i] = value;
}

template <class Word>
void fill_words(const FillArgs& args) {
  Word value;
  std::memcpy(&value, args.element.data(), sizeof value);
  launch("fill", fill_kernel<Word>, over_elements(args.x.elements(), args.stream), args.x.as<Word>(), value,
         args.x.elements());
}

}  // namespace

std::string refuses(const FillArgs& args) { return needs_cuda(args.stream, {args.x}, false); }

void run(const FillArgs& args) {
  switch (size_bytes(args.x.dtype)) {
    case 2: return fill_words<std::uint16_t>(args);
    case 4: return fill_words<std::uint32_t>(args);
    default: return fill_words<std::uint64_t>(args);
  }
}

}  // namespace shoestring::filling::cuda
