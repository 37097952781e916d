#include "tools/bench/onednn_rival.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tools/bench/onednn_module.h"

namespace shoestring {
namespace {

struct Module {
  decltype(&shoestring_onednn_make) make = nullptr;
  decltype(&shoestring_onednn_run) run = nullptr;
  decltype(&shoestring_onednn_free) free = nullptr;

  explicit Module(int threads) {
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("OMP_NUM_THREADS", std::to_string(threads).c_str(), 1);
    std::error_code unreadable;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", unreadable);
    const auto path = program.parent_path() / "shoestring_onednn.so";
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    make = reinterpret_cast<decltype(make)>(dlsym(library, "shoestring_onednn_make"));
    run = reinterpret_cast<decltype(run)>(dlsym(library, "shoestring_onednn_run"));
    free = reinterpret_cast<decltype(free)>(dlsym(library, "shoestring_onednn_free"));
  }
};

const Module& module(int threads) {
  static const Module loaded(threads);
  return loaded;
}

}  // namespace

std::unique_ptr<OnednnMatmul> OnednnMatmul::make(ConstTensorView a, ConstTensorView b, TensorView c, bool packed,
                                                 int threads) {
  const Module& onednn = module(threads);
  if (onednn.make == nullptr) return nullptr;
  const int brief = a.dtype == DType::bf16 ? 1 : 0;
  void* state = onednn.make(a.shape[0], b.shape[0], a.shape[1], a.data, b.data, c.data, brief, packed ? 1 : 0, threads);
  return state == nullptr ? nullptr : std::unique_ptr<OnednnMatmul>(new OnednnMatmul(state));
}

OnednnMatmul::~OnednnMatmul() { module(1).free(state_); }

void OnednnMatmul::run() const { module(1).run(state_); }

}  // namespace shoestring
