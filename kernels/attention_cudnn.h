// The cuDNN rows of attention's tables, for attention.cpp.
#pragma once

#include <string>

#include "kernels/attention.h"

namespace shoestring::attention::cudnn {

/// Causal attention in bf16 on tensor cores, through cuDNN's graph API; cuDNN from 9.16 on, loaded at first use. Takes
/// heads of multiples of 8 dims that the library has an engine for on the device, also where qk_dim and v_dim differ
/// (MLA), and kv_heads that are shared. `document_starts` must be given: documents of one length are a batch of it,
/// others go as ragged tensors. Pointers lie on multiples of 16 bytes, strides are multiples of 8 elements, and no
/// tensor has 2^31 elements from its first to its last.
///
/// lse is what the other rows write and read: a backward pass of any row follows a forward pass of any other.
///
/// Deterministic: dq is written by a product of its own, not summed by atomics. That takes 2 bytes of workspace for
/// each pair of tokens, so heads go some at a time (kWorkspaceBytes); a row declines where one group of heads does not
/// fit. Of GQA, dk and dv of a query head are rounded to bf16 before the group's are summed. sm_8x has a deterministic
/// backward pass for documents of one length only, and none for heads of more than 128 dims.
///
/// Floors on an H100 at its 989 TFLOP/s in bf16: 2 * pairs * (qk + v) FLOP forward; backward 5 products, 2 * pairs *
/// (3 qk + 2 v), and 4 bytes a pair (dS written and read) over 3.35 TB/s.
std::string refuses(const AttentionArgs& args);
std::string refuses(const AttentionBackwardArgs& args);
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);

}  // namespace shoestring::attention::cudnn
