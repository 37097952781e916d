#include "kernels/variant_list.h"

#include <cstdint>
#include <span>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/device.h"
#include "kernels/cached_attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/fill.h"
#include "kernels/gather_quantize.h"
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/latent_key.h"
#include "kernels/permute.h"
#include "kernels/quantize.h"
#include "kernels/quantized_gemm.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm_quantize.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/router_load.h"
#include "kernels/swiglu.h"

namespace shoestring {
namespace {

template <class Args>
OpVariants named(std::string_view op, std::span<const Variant<Args>> rows) {
  OpVariants result{op, {}, rows.data(), rows.size_bytes()};
  for (const Variant<Args>& row : rows) result.variants.push_back(row.name);
  return result;
}

}  // namespace

const std::vector<OpVariants>& op_variants() {
  static const std::vector<OpVariants> all = {
      named("adamw_step", adamw_step_variants()),
      named("attention_forward", attention_forward_variants()),
      named("attention_backward", attention_backward_variants()),
      named("cached_attention", cached_attention_variants()),
      named("cross_entropy", cross_entropy_variants()),
      named("cross_entropy_chunk", cross_entropy_chunk_variants()),
      named("cross_entropy_finish", cross_entropy_finish_variants()),
      named("cross_entropy_chunk_gradient", cross_entropy_chunk_gradient_variants()),
      named("embedding_forward", embedding_forward_variants()),
      named("embedding_backward", embedding_backward_variants()),
      named("fill", fill_variants()),
      named("gemm", gemm_variants()),
      named("grouped_gemm", grouped_gemm_variants()),
      named("grouped_weight_gemm", grouped_weight_gemm_variants()),
      named("latent_key", latent_key_variants()),
      named("latent_key_gradient", latent_key_gradient_variants()),
      named("plan_permutation", plan_permutation_variants()),
      named("gather_rows", gather_rows_variants()),
      named("gather_quantize", gather_quantize_variants()),
      named("combine_rows", combine_rows_variants()),
      named("permute_weight_gradient", permute_weight_gradient_variants()),
      named("quantize", quantize_variants()),
      named("dequantize", dequantize_variants()),
      named("quantized_gemm", quantized_gemm_variants()),
      named("reduce", reduce_variants()),
      named("axpby", axpby_variants()),
      named("rms_norm_forward", rms_norm_forward_variants()),
      named("rms_norm_quantize", rms_norm_quantize_variants()),
      named("rms_norm_input_gradient", rms_norm_input_gradient_variants()),
      named("rms_norm_weight_gradient", rms_norm_weight_gradient_variants()),
      named("rope", rope_variants()),
      named("router_forward", router_forward_variants()),
      named("router_gradient", router_gradient_variants()),
      named("router_balance_loss", router_balance_loss_variants()),
      named("router_count_load", router_count_load_variants()),
      named("router_update_bias", router_update_bias_variants()),
      named("swiglu_forward", swiglu_forward_variants()),
      named("swiglu_gradient", swiglu_gradient_variants()),
      named("swiglu_quantize", swiglu_quantize_variants()),
  };
  return all;
}

std::string_view op_of_row(const void* row) {
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  for (const OpVariants& op : op_variants()) {
    const auto first = reinterpret_cast<std::uintptr_t>(op.table);
    if (address >= first && address < first + op.table_bytes) return op.op;
  }
  return {};
}

std::string_view machine_lacks(std::string_view variant) {
  const CpuFeatures& cpu = cpu_features();
  if (variant == "reference" || variant == "portable" || variant == "two_ops" || variant == "cpu") return {};
  if (variant == "amx") return cpu.amx_bf16 ? "" : "AMX";
  if (variant == "avx512") return cpu.avx512 ? "" : "AVX-512";
  if (variant == "avx2" || variant == "avx2_bf16") return cpu.avx2 ? "" : "AVX2";
  if (variant == "cuda" || variant == "cublaslt" || variant == "cudnn" || variant == "one_by_one") {
    return cuda_device_count() > 0 ? "" : "a CUDA device";
  }
#if defined(__x86_64__)
  if (variant == "simd") return cpu.avx2 ? "" : "AVX2";
#else
  if (variant == "simd") return {};
#endif
  fail(ExitCode::bug, "it is not known what a row named {} needs: say so in machine_lacks", variant);
}

}  // namespace shoestring
