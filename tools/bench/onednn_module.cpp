#include "tools/bench/onednn_module.h"

#include <omp.h>

#include <dnnl.hpp>
#include <unordered_map>

namespace {

struct State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul product;
  std::unordered_map<int, dnnl::memory> arguments;
};

}  // namespace

void* shoestring_onednn_make(std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b, void* c,
                             int brief, int packed, int threads) {
  using Tag = dnnl::memory::format_tag;
  const auto type = brief != 0 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  try {
    omp_set_num_threads(threads);
    auto state = std::make_unique<State>();
    const dnnl::memory::desc a_shape({m, k}, type, Tag::ab);
    const dnnl::memory::desc b_shape({k, n}, type, Tag::ba);
    const dnnl::memory::desc c_shape({m, n}, type, Tag::ab);
    const dnnl::memory::desc b_wanted = packed != 0 ? dnnl::memory::desc({k, n}, type, Tag::any) : b_shape;
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(a_shape, b_wanted, c_shape), state->engine);
    state->product = dnnl::matmul(chosen);
    dnnl::memory right(b_shape, state->engine, const_cast<void*>(b));
    if (chosen.weights_desc() != b_shape) {
      dnnl::memory own(chosen.weights_desc(), state->engine);
      dnnl::reorder(right, own).execute(state->stream, right, own);
      state->stream.wait();
      right = own;
    }
    state->arguments = {{DNNL_ARG_SRC, dnnl::memory(a_shape, state->engine, const_cast<void*>(a))},
                        {DNNL_ARG_WEIGHTS, right},
                        {DNNL_ARG_DST, dnnl::memory(c_shape, state->engine, c)}};
    return state.release();
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

void shoestring_onednn_run(void* state) {
  auto* rival = static_cast<State*>(state);
  rival->product.execute(rival->stream, rival->arguments);
  rival->stream.wait();
}

void shoestring_onednn_free(void* state) { delete static_cast<State*>(state); }
