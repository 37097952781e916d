// The cuDNN rows of attention's tables, for attention.cpp.
#pragma once

#include <string>

#include "kernels/attention.h"

namespace shoestring::attention::cudnn {

/// Causal attention in bf16 on tensor cores, through cuDNN's graph API; cuDNN from 9.16 on, loaded at first use. Takes
/// heads of multiples of 8 dims, also where qk_dim and v_dim differ (MLA), and kv_heads that are shared.
/// `document_starts` must be given: documents of one length are a batch, others go as ragged tensors. Pointers lie on
/// multiples of 16 bytes, strides are multiples of 8 elements, and no tensor has 2^31 elements from its first to its
/// last. The first call of a kind waits some seconds for the library to compile its kernel.
///
/// lse is what the other rows write and read: a backward pass of any row follows a forward pass of any other.
///
/// Deterministic: dq is written by a product of its own, not summed by atomics. That takes 2 bytes of workspace for
/// each pair of tokens, so heads go some at a time (kWorkspaceBytes), and it is declined where one group of heads does
/// not fit (kMostWorkspace). Of GQA, dk and dv of a query head are rounded to bf16 before the group's are summed.
///
/// What cuDNN 9.19 has (asked without a device, tests/kernels/attention_cudnn_test.cpp): forward, all of it from sm_80
/// on; backward on sm_90 up to 256 dims, on sm_8x up to 128 dims and documents of one length. Newer devices have other
/// engines for it, which this row does not know.
///
/// Floors on an H100 at its 989 TFLOP/s in bf16: 2 * pairs * (qk + v) FLOP forward; backward 5 products, 2 * pairs *
/// (3 qk + 2 v), and 4 bytes a pair (dS written and read) over 3.35 TB/s.
std::string refuses(const AttentionArgs& args);
std::string refuses(const AttentionBackwardArgs& args);
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);

}  // namespace shoestring::attention::cudnn
