// The face of shoestring_onednn.so, a module loaded at run time; see onednn_rival.h.
#pragma once

#include <cstdint>

extern "C" {
/// bf16 where `brief` is not 0, otherwise f32; nullptr where oneDNN refuses.
void* shoestring_onednn_make(std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b, void* c,
                             int brief, int packed, int threads);
void shoestring_onednn_run(void* state);
void shoestring_onednn_free(void* state);
}
