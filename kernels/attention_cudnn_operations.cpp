// Attention as operations of cuDNN's backend API: two products around a softmax forward, five products around its
// derivative backward, which the library's engines know as one pattern and run as one kernel. Any other order of the
// same operations is no pattern to them; cudnn-frontend (github.com/NVIDIA/cudnn-frontend,
// node/scaled_dot_product_flash_attention.h) shows the ones they know.
//
// The library reads k, and v in a backward pass, as [dims, tokens]: the same memory with two strides exchanged.
#include "kernels/attention_cudnn_operations.h"

#include <array>
#include <optional>
#include <utility>

namespace shoestring::attention::cudnn {
namespace {

using Dims = std::array<std::int64_t, 4>;

/// What a tensor of the graph is known by here.
struct Value {
  std::size_t index;  ///< of its descriptor
  Dims dims;
};

/// Builds the operations of a graph, in the library's pattern.
class Builder {
 public:
  explicit Builder(const Graph& graph) : graph_(graph) {
    pairs_ = {graph.documents, graph.heads, graph.length, graph.length};
    rows_ = {graph.documents, graph.heads, graph.length, 1};
    one_tensor_for(kScale);
    one_tensor_for(kLowest);
    if (graph.ragged) {
      lengths_ = tensor(kLengths, CUDNN_DATA_INT32, {graph.documents, 1, 1, 1}, {1, 1, 1, 1});
    }
    if (graph.backward) {
      backward();
    } else {
      forward();
    }
  }

  Operations built() && { return std::move(made_); }

 private:
  // ---- tensors

  Value tensor(Uid uid, cudnnDataType_t type, const Dims& dims, const Dims& strides, const Value* offsets = nullptr) {
    Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.data())
        .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data())
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16});
    if (uid >= kFirstVirtual) made.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
    if (uid >= kScale && uid < kFirstVirtual) made.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
    if (offsets != nullptr) made.set(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, made_.tensors[offsets->index]);
    made.finalize("a tensor");
    made_.tensors.push_back(std::move(made));
    return {made_.tensors.size() - 1, dims};
  }
  void one_tensor_for(Uid uid) {
    scalars_[static_cast<std::size_t>(uid - kScale)] = tensor(uid, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1});
  }
  const Value& scalar(Uid uid) const { return scalars_[static_cast<std::size_t>(uid - kScale)]; }

  static Dims packed(const Dims& d) { return {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1}; }
  Value between(cudnnDataType_t type, const Dims& dims, const Dims& strides, const Value* offsets = nullptr) {
    return tensor(next_++, type, dims, strides, offsets);
  }
  Value between(cudnnDataType_t type, const Dims& dims) { return between(type, dims, packed(dims)); }
  Value scores() { return between(CUDNN_DATA_FLOAT, pairs_); }

  const Value* offsets_of(Operand which) {
    if (!graph_.ragged) return nullptr;
    std::optional<Value>& made = offsets_[which];
    if (!made) made = tensor(kOffsets + which, CUDNN_DATA_INT32, {graph_.documents + 1, 1, 1, 1}, {1, 1, 1, 1});
    return &*made;
  }
  Dims strides_of(Operand which) const {
    const Steps& s = graph_.steps[which];
    const std::int64_t document = which == kStats ? graph_.heads * graph_.length : graph_.length * s.token;
    return {document, s.head, s.token, 1};
  }
  Value operand(Operand which, std::int64_t heads, std::int64_t dims, bool turned = false) {
    Dims extents{graph_.documents, heads, graph_.length, dims};
    Dims strides = strides_of(which);
    if (turned) {
      std::swap(extents[2], extents[3]);
      std::swap(strides[2], strides[3]);
    }
    const auto type = which == kStats ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
    return tensor(kOperand + which, type, extents, strides, offsets_of(which));
  }

  // ---- operations

  void pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value* b, const Value* t, const Value& y,
                 cudnnDataType_t precision = CUDNN_DATA_FLOAT, int axis = -1) {
    Descriptor kind(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    kind.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    kind.set(CUDNN_ATTR_POINTWISE_MATH_PREC, precision);
    if (axis >= 0) kind.set(CUDNN_ATTR_POINTWISE_AXIS, std::int64_t{axis});
    kind.finalize("a pointwise kind");
    Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, made_.tensors[x.index])
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, made_.tensors[y.index]);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, made_.tensors[b->index]);
    if (t != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, made_.tensors[t->index]);
    add(std::move(operation), std::move(kind));
  }
  Value pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value* b = nullptr) {
    const Value y = between(CUDNN_DATA_FLOAT, x.dims);
    pointwise(mode, x, b, nullptr, y);
    return y;
  }

  void reduce(cudnnReduceTensorOp_t mode, const Value& x, const Value& y) {
    Descriptor kind(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    kind.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode)
        .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
        .finalize("a reduction kind");
    Descriptor operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, made_.tensors[x.index])
        .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, made_.tensors[y.index]);
    add(std::move(operation), std::move(kind));
  }
  Value row_of(cudnnReduceTensorOp_t mode, const Value& x) {
    const Value y = between(CUDNN_DATA_FLOAT, rows_);
    reduce(mode, x, y);
    return y;
  }

  /// Which of a product's extents are a document's length rather than the longest.
  enum class Over : std::uint8_t { queries_and_keys, keys };
  void product(const Value& a, const Value& b, const Value& c, Over over) {
    Descriptor kind(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize("a product kind");
    Descriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind)
        .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, made_.tensors[a.index])
        .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, made_.tensors[b.index])
        .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, made_.tensors[c.index]);
    if (lengths_) {
      operation.set(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, made_.tensors[lengths_->index])
          .set(over == Over::keys ? CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC
                                  : CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
               made_.tensors[lengths_->index]);
    }
    add(std::move(operation), std::move(kind));
  }
  Value scores_of(const Value& a, const Value& b) {
    const Value c = scores();
    product(a, b, c, Over::queries_and_keys);
    return c;
  }

  Value reshape(const Value& x, const Value& y) {
    Descriptor operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, made_.tensors[x.index])
        .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, made_.tensors[y.index])
        .finalize("a reshape");
    made_.operations.push_back(std::move(operation));
    return y;
  }
  /// Pairs by keys, in bf16, for the products that sum over queries.
  Value by_keys(const Value& x) {
    const std::int64_t length = graph_.length;
    const Dims strides{graph_.heads * length * length, length * length, 1, length};
    return reshape(x, between(CUDNN_DATA_BFLOAT16, pairs_, strides));
  }

  void add(Descriptor operation, Descriptor kind) {
    operation.finalize("an operation");
    made_.operations.push_back(std::move(operation));
    made_.kinds.push_back(std::move(kind));
  }

  // ---- masks

  Value index_of(const Value& x, int axis, cudnnDataType_t precision) {
    const Value y = between(CUDNN_DATA_INT32, pairs_);
    pointwise(CUDNN_POINTWISE_GEN_INDEX, x, nullptr, nullptr, y, precision, axis);
    return y;
  }
  Value truth(cudnnPointwiseMode_t mode, const Value& x, const Value& b) {
    const Value y = between(CUDNN_DATA_BOOLEAN, pairs_);
    pointwise(mode, x, &b, nullptr, y, CUDNN_DATA_BOOLEAN);
    return y;
  }
  Value masked(const Value& x, const Value& kept) {
    const Value y = scores();
    pointwise(CUDNN_POINTWISE_BINARY_SELECT, x, &scalar(kLowest), &kept, y);
    return y;
  }
  Value inside_documents(const Value& x) {
    if (!lengths_) return x;
    const Value row = index_of(x, 2, CUDNN_DATA_INT32);
    const Value column = index_of(x, 3, CUDNN_DATA_INT32);
    const Value row_in = truth(CUDNN_POINTWISE_CMP_LT, row, *lengths_);
    const Value column_in = truth(CUDNN_POINTWISE_CMP_LT, column, *lengths_);
    return masked(x, truth(CUDNN_POINTWISE_LOGICAL_AND, row_in, column_in));
  }
  Value causal(const Value& x) {
    const Value row = index_of(x, 2, CUDNN_DATA_FLOAT);
    const Value column = index_of(x, 3, CUDNN_DATA_FLOAT);
    return masked(x, truth(CUDNN_POINTWISE_CMP_GE, row, column));
  }

  // ---- the two graphs

  void forward() {
    const Value q = operand(kQ, graph_.heads, graph_.qk_dim);
    const Value k = operand(kK, graph_.kv_heads, graph_.qk_dim, true);
    const Value v = operand(kV, graph_.kv_heads, graph_.v_dim);
    const Value o = operand(kO, graph_.heads, graph_.v_dim);
    const Value statistics = operand(kStats, graph_.heads, 1);
    const Value scaled = pointwise(CUDNN_POINTWISE_MUL, scores_of(q, k), &scalar(kScale));
    const Value score = causal(inside_documents(scaled));
    const Value most = row_of(CUDNN_REDUCE_TENSOR_MAX, score);
    const Value weight = pointwise(CUDNN_POINTWISE_EXP, pointwise(CUDNN_POINTWISE_SUB, score, &most));
    const Value sum = row_of(CUDNN_REDUCE_TENSOR_ADD, weight);
    const Value logarithm = pointwise(CUDNN_POINTWISE_LOG, sum);
    pointwise(CUDNN_POINTWISE_ADD, most, &logarithm, nullptr, statistics);
    const Value probability = between(CUDNN_DATA_BFLOAT16, pairs_);
    pointwise(CUDNN_POINTWISE_DIV, weight, &sum, nullptr, probability);
    product(probability, v, o, Over::keys);
  }

  void backward() {
    one_tensor_for(kOne);
    const Value q = operand(kQ, graph_.heads, graph_.qk_dim);
    const Value k = operand(kK, graph_.kv_heads, graph_.qk_dim, true);
    const Value v = operand(kV, graph_.kv_heads, graph_.v_dim, true);
    const Value o = operand(kO, graph_.heads, graph_.v_dim);
    const Value statistics = operand(kStats, graph_.heads, 1);
    const Value d_o = operand(kDo, graph_.heads, graph_.v_dim);
    const Value dq = operand(kDq, graph_.heads, graph_.qk_dim);
    // The sum of d_o times o of each row; times one, where dropout would have its scale.
    const std::int64_t heads = graph_.heads, length = graph_.length, dims = graph_.v_dim;
    const Value products = between(CUDNN_DATA_FLOAT, {graph_.documents, heads, length, dims},
                                   {heads * length * dims, length * dims, heads * dims, 1});
    pointwise(CUDNN_POINTWISE_MUL, d_o, &o, nullptr, products);
    const Value sums = tensor(kSums, CUDNN_DATA_FLOAT, rows_, packed(rows_));
    pointwise(CUDNN_POINTWISE_MUL, row_of(CUDNN_REDUCE_TENSOR_ADD, products), &scalar(kOne), nullptr, sums);
    // Probabilities once more, and dv.
    const Value scaled = pointwise(CUDNN_POINTWISE_MUL, scores_of(q, k), &scalar(kScale));
    const Value shifted = pointwise(CUDNN_POINTWISE_SUB, inside_documents(scaled), &statistics);
    const Value probability = pointwise(CUDNN_POINTWISE_EXP, causal(shifted));
    sum_over_queries(by_keys(probability), d_o, kDv, graph_.v_dim);
    // Their gradient, dk, and dq.
    const Value difference = pointwise(CUDNN_POINTWISE_SUB, scores_of(d_o, v), &sums);
    const Value unscaled = pointwise(CUDNN_POINTWISE_MUL, difference, &probability);
    const Value d_score = pointwise(CUDNN_POINTWISE_MUL, unscaled, &scalar(kScale));
    sum_over_queries(by_keys(d_score), q, kDk, graph_.qk_dim);
    const Value keys = between(CUDNN_DATA_BFLOAT16, {graph_.documents, graph_.kv_heads, length, graph_.qk_dim},
                               strides_of(kK), offsets_of(kK));
    product(d_score, reshape(k, keys), dq, Over::keys);
  }

  /// dk or dv; of heads that share keys, one after the other and then their sum.
  void sum_over_queries(const Value& weights, const Value& rows, Operand which, std::int64_t dims) {
    const Value sum = operand(which, graph_.kv_heads, dims);
    if (graph_.heads == graph_.kv_heads) return product(weights, rows, sum, Over::keys);
    const Value each = between(CUDNN_DATA_BFLOAT16, {graph_.documents, graph_.heads, graph_.length, dims});
    product(weights, rows, each, Over::keys);
    reduce(CUDNN_REDUCE_TENSOR_ADD, each, sum);
  }

  Graph graph_;
  Dims pairs_{};
  Dims rows_{};
  Uid next_ = kFirstVirtual;
  Operations made_;
  std::array<Value, 3> scalars_{};
  std::optional<Value> lengths_;
  std::array<std::optional<Value>, kOperands> offsets_{};
};

}  // namespace

Operations operations_of(const Graph& graph) { return Builder(graph).built(); }

}  // namespace shoestring::attention::cudnn
