// Attention as a graph of cuDNN's backend API: two products around a softmax forward, five products around its
// derivative backward, which the library's engines know as one pattern and run as one kernel. Any other order of the
// same operations is no pattern to them; cudnn-frontend (github.com/NVIDIA/cudnn-frontend,
// node/scaled_dot_product_flash_attention.h) shows the ones they know.
//
// The library reads k, and v in a backward pass, as [dims, tokens]: the same memory with two strides exchanged.
#include "kernels/attention_cudnn_graph.h"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/attention_cudnn_library.h"
#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"

namespace shoestring::attention::cudnn {
namespace {

// From sm_100 on the library's heuristics may propose engines for the deterministic graph that sum by atomics all the
// same (cudnn-frontend names one engine and its knobs there).
constexpr int kMostCapability = 99;

// What headers before 9.8 do not name, by its documented value.
#if CUDNN_VERSION < 90800
constexpr auto kDeviceProperties = static_cast<cudnnBackendDescriptorType_t>(38);
constexpr auto kHeuristicDevice = static_cast<cudnnBackendAttributeName_t>(204);
constexpr auto kPlanDevice = static_cast<cudnnBackendAttributeName_t>(407);
constexpr auto kDeviceJson = static_cast<cudnnBackendAttributeName_t>(2702);
#else
constexpr auto kDeviceProperties = CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;
constexpr auto kHeuristicDevice = CUDNN_ATTR_ENGINEHEUR_DEVICEPROP;
constexpr auto kPlanDevice = CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP;
constexpr auto kDeviceJson = CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
#endif

using Dims = std::array<std::int64_t, 4>;

/// What a tensor is called in the library's list of pointers: operands and their offsets in the order of Operand.
using Uid = std::int64_t;
constexpr Uid kOperand = 1, kOffsets = kOperand + kOperands, kLengths = kOffsets + kOperands, kSums = kLengths + 1,
              kScale = kSums + 1, kLowest = kScale + 1, kOne = kLowest + 1, kFirstVirtual = kOne + 1;

/// What a tensor of the graph is known by here.
struct Value {
  std::size_t index;  ///< of its descriptor
  Dims dims;
};

/// Builds the operations of a graph, in the library's pattern.
class Operations {
 public:
  explicit Operations(const Graph& graph) : graph_(graph) {
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

  std::vector<cudnnBackendDescriptor_t> operations() const {
    std::vector<cudnnBackendDescriptor_t> all;
    for (const Descriptor& operation : operations_) all.push_back(operation.get());
    return all;
  }

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
    if (offsets != nullptr) made.set(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, tensors_[offsets->index]);
    made.finalize("a tensor");
    tensors_.push_back(std::move(made));
    return {tensors_.size() - 1, dims};
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
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[x.index])
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y.index]);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[b->index]);
    if (t != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, tensors_[t->index]);
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
        .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_[x.index])
        .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_[y.index]);
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
        .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, tensors_[a.index])
        .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, tensors_[b.index])
        .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, tensors_[c.index]);
    if (lengths_) {
      operation.set(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, tensors_[lengths_->index])
          .set(over == Over::keys ? CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC
                                  : CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
               tensors_[lengths_->index]);
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
    operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, tensors_[x.index])
        .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, tensors_[y.index])
        .finalize("a reshape");
    operations_.push_back(std::move(operation));
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
    operations_.push_back(std::move(operation));
    kinds_.push_back(std::move(kind));
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
  std::vector<Descriptor> tensors_;
  std::vector<Descriptor> kinds_;
  std::vector<Descriptor> operations_;
  std::array<Value, 3> scalars_{};
  std::optional<Value> lengths_;
  std::array<std::optional<Value>, kOperands> offsets_{};
};

/// The engine configurations that the library proposes, best first.
std::vector<Descriptor> proposals(const Descriptor& graph, cudnnBackendHeurMode_t mode, const Descriptor* device) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (device != nullptr) heuristics.set(kHeuristicDevice, *device);
  if (heuristics.try_finalize() != CUDNN_STATUS_SUCCESS) return {};
  std::int64_t count = 0;
  dnn_check(
      library().get(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
      "the number of engines");
  std::vector<Descriptor> all;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::int64_t i = 0; i < count; ++i) {
    handles.push_back(all.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  }
  std::int64_t found = 0;  // fewer than there were: those that the device cannot run are left out
  if (count > 0) {
    dnn_check(library().get(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                            &found, handles.data()),
              "the engines");
  }
  while (static_cast<std::int64_t>(all.size()) > found) all.pop_back();
  return all;
}

}  // namespace

struct Plan {
  std::optional<Operations> operations;
  std::optional<Descriptor> plan;
  cudnnHandle_t handle = nullptr;
};

void PlanDeleter::operator()(Plan* plan) const { delete plan; }

namespace {

/// With a handle of a device, or for one that `device` describes.
Answer ask(const Graph& graph, cudnnHandle_t handle, const Descriptor* device, bool compile) {
  Answer answer;
  answer.plan.reset(new Plan);
  Plan& plan = *answer.plan;
  plan.handle = handle;
  plan.operations.emplace(graph);
  const std::vector<cudnnBackendDescriptor_t> operations = plan.operations->operations();
  Descriptor whole(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  whole.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(operations.size()),
            operations.data());
  if (handle != nullptr) whole.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  whole.finalize("the graph");
  std::string why = "it proposes no engine";
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    for (const Descriptor& engine : proposals(whole, mode, device)) {
      if (!compile) return answer;
      Descriptor made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      if (handle != nullptr) made.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
      made.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
      if (device != nullptr) made.set(kPlanDevice, *device);
      if (const cudnnStatus_t status = made.try_finalize(); status != CUDNN_STATUS_SUCCESS) {
        why = text_of(status);
        continue;
      }
      dnn_check(library().get(made.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, nullptr,
                              &answer.workspace_bytes),
                "the size of the workspace");
      plan.plan.emplace(std::move(made));
      return answer;
    }
  }
  answer.refusal =
      fmt::format("cuDNN {} has no engine for {}: {}", version_text(library().version()), graph.to_string(), why);
  return answer;
}

/// One handle per device, and what was asked so far. Guarded by `mutex`. Never destroyed: the library may be gone
/// first.
struct Session {
  std::mutex mutex;
  std::map<int, cudnnHandle_t> handles;
  std::map<std::pair<int, Graph>, Answer> answers;
};

Session& session() {
  static Session& instance = *new Session;
  return instance;
}

}  // namespace

std::string library_fault() { return library().fault; }

const Answer& answer_on(Device device, const Graph& graph) {
  const std::scoped_lock lock(session().mutex);
  const std::pair<int, Graph> key{device.index, graph};
  if (const auto known = session().answers.find(key); known != session().answers.end()) return known->second;
  if (graph.backward && device_properties(device).capability > kMostCapability) {
    Answer& answer = session().answers[key];
    answer.refusal = "a deterministic backward pass is known of sm_80 to sm_90 only";
    return answer;
  }
  cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
  cudnnHandle_t& handle = session().handles[device.index];
  if (handle == nullptr) dnn_check(library().create(&handle), "cudnnCreate");
  return session().answers.emplace(key, ask(graph, handle, nullptr, true)).first->second;
}

Answer answer_for(const std::string& device_json, const Graph& graph, bool compile) {
  Descriptor device(kDeviceProperties);
  device.set(kDeviceJson, CUDNN_TYPE_CHAR, static_cast<std::int64_t>(device_json.size()), device_json.data())
      .finalize("the device's properties");
  return ask(graph, nullptr, &device, compile);
}

void execute(const Graph& graph, const Answer& answer, const Memory& memory, float scale, Stream& stream) {
  alignas(16) std::array<float, 12> scalars{};  // one in each 16 bytes
  scalars[0] = scale;
  scalars[4] = -INFINITY;
  scalars[8] = 1;
  std::vector<std::int64_t> uids;
  std::vector<void*> pointers;
  const auto give = [&](Uid uid, void* pointer) {
    uids.push_back(uid);
    pointers.push_back(pointer);
  };
  for (int which = 0; which < (graph.backward ? kOperands : kDo); ++which) {
    const auto at = static_cast<std::size_t>(which);
    give(kOperand + which, memory.data[at]);
    if (graph.ragged) give(kOffsets + which, memory.offsets[at]);
  }
  if (graph.ragged) give(kLengths, memory.lengths);
  if (graph.backward) give(kSums, memory.sums);
  for (std::int64_t i = 0; i < (graph.backward ? 3 : 2); ++i)
    give(kScale + i, &scalars[static_cast<std::size_t>(4 * i)]);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  const auto count = static_cast<std::int64_t>(uids.size());
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids.data())
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &memory.workspace)
      .finalize("a list of pointers");
  const std::scoped_lock lock(session().mutex);  // a handle has one stream at a time
  dnn_check(library().set_stream(answer.plan->handle, cuda_stream(stream)), "cudnnSetStream");
  dnn_check(library().execute(answer.plan->handle, answer.plan->plan->get(), pack.get()), "attention");
}

}  // namespace shoestring::attention::cudnn
