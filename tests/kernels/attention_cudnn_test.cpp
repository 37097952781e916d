// What of the cuDNN row can be tried without a device: the passes that documents make, which arguments it declines and
// why; and what the library itself says to every kind of graph of ours, for devices that are only described to it. It
// compiles their kernels too, and loads them into a driver that stands for one.
#include <dlfcn.h>
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention_cudnn_graph.h"
#include "kernels/attention_cudnn_plan.h"
#include "kernels/base/device.h"
#include "kernels/base/random.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

namespace cudnn = attention::cudnn;
using cudnn::Graph;
using cudnn::Pass;

std::vector<std::int32_t> starts_of(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> starts{0};
  for (const std::int32_t length : lengths) starts.push_back(starts.back() + length);
  return starts;
}
std::vector<Pass> passes_of(const std::vector<std::int32_t>& lengths) { return cudnn::passes_of(starts_of(lengths)); }

TEST(CudnnPasses, DocumentsOfOneLengthAreABatch) {
  EXPECT_EQ(passes_of({8192}), (std::vector<Pass>{{0, 1, false, 1, 8192}}));
  EXPECT_EQ(passes_of({1000, 1000, 1000}), (std::vector<Pass>{{0, 3, false, 3, 1000}}));
  EXPECT_EQ(passes_of({8192, 8192}), (std::vector<Pass>{{0, 1, false, 1, 8192}, {1, 1, false, 1, 8192}}));
  EXPECT_EQ(passes_of({4096, 4096, 4096, 4096, 4096}),
            (std::vector<Pass>{{0, 4, false, 4, 4096}, {4, 1, false, 1, 4096}}));
  EXPECT_EQ(passes_of({20000}), (std::vector<Pass>{{0, 1, false, 1, 20000}}));
}

TEST(CudnnPasses, OthersGoInAFewSizes) {
  EXPECT_EQ(passes_of({1}), (std::vector<Pass>{{0, 1, true, 16, 512}}));  // too short for a batch of its own
  EXPECT_EQ(passes_of({40, 1, 64, 31}), (std::vector<Pass>{{0, 4, true, 16, 512}}));
  EXPECT_EQ(passes_of({600, 3, 100}), (std::vector<Pass>{{0, 3, true, 4, 1024}}));
  // Of 8192 tokens and more a pass has room for as many pairs as of one document of 8192.
  EXPECT_EQ(passes_of({5000, 100, 92, 3000}), (std::vector<Pass>{{0, 1, true, 1, 8192}, {1, 3, true, 4, 4096}}));
}

/// Lengths of documents that fill `tokens`, most of them short.
std::vector<std::int32_t> random_lengths(std::int32_t tokens, std::uint32_t seed) {
  const Random random(seed, Purpose::test);
  std::vector<std::int32_t> lengths;
  for (std::uint64_t i = 0; tokens > 0; i += 2) {
    const std::uint64_t longest = std::uint64_t{2} << random.below(i, 14);
    lengths.push_back(std::min(tokens, static_cast<std::int32_t>(1 + random.below(i + 1, longest))));
    tokens -= lengths.back();
  }
  return lengths;
}

TEST(CudnnPasses, CoverEveryDocumentWithinTheirRoomAndScratch) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const std::int32_t tokens = 1 << (3 + seed % 13);
    const std::vector<std::int32_t> lengths = random_lengths(tokens, seed);
    const std::vector<Pass> passes = passes_of(lengths);
    const std::int64_t kv_heads = 1 + seed % 24, group = 1 + seed % 5;
    const std::int64_t groups = cudnn::groups_at_once(passes, group, kv_heads);
    EXPECT_EQ(kv_heads % groups, 0);
    // Memory is planned for the longest batch there may be, of sequences of one length.
    std::int64_t scratch = std::int64_t{1} << 62;
    for (const std::int64_t times : {1, 2, 8}) {
      scratch = std::min(scratch, cudnn::scratch_bytes({.tokens = times * tokens,
                                                        .longest_document = times * std::ranges::max(lengths),
                                                        .heads = group * kv_heads,
                                                        .kv_heads = kv_heads,
                                                        .qk_dim = 64,
                                                        .v_dim = 64}));
    }
    std::int64_t next = 0;
    for (const Pass& pass : passes) {
      EXPECT_EQ(pass.first, next) << seed;
      EXPECT_GE(pass.count, 1);
      EXPECT_LE(pass.count, pass.documents);
      EXPECT_LE(pass.documents, pass.ragged ? cudnn::kMostDocuments : tokens);
      for (std::int64_t d = next; d < next + pass.count; ++d) {
        EXPECT_LE(lengths[static_cast<std::size_t>(d)], pass.length) << seed;
      }
      const std::int64_t heads = groups * group, rows = heads * pass.documents * pass.length;
      const std::int64_t workspace = 2 * rows * pass.length + (group > 1 ? 2 * rows * (64 + 64) : 0);
      EXPECT_LE(workspace + 4 * rows + 4 * heads * tokens + 4 * 10 * (pass.documents + 4), scratch) << seed;
      next += pass.count;
    }
    EXPECT_EQ(next, static_cast<std::int64_t>(lengths.size())) << seed;
  }
}

TEST(CudnnPasses, HeadsGoSomeAtATime) {
  EXPECT_EQ(cudnn::groups_at_once(passes_of({8192}), 1, 128), 8);  // 128 MiB each
  EXPECT_EQ(cudnn::groups_at_once(passes_of({8192}), 1, 20), 5);   // as many each time
  EXPECT_EQ(cudnn::groups_at_once(passes_of({8192}), 4, 8), 2);
  EXPECT_EQ(cudnn::groups_at_once(passes_of({32768}), 8, 4), 1);  // more than is aimed at
  EXPECT_EQ(cudnn::groups_at_once(passes_of({512}), 1, 32), 32);
}

// ---- arguments

constexpr Device kDevice{DeviceKind::cuda, 0};

/// An address that nobody reads.
void* address(std::uintptr_t bytes) { return reinterpret_cast<void*>(std::uintptr_t{1} << 30 | bytes); }

/// Arguments that the row takes, to be spoiled one at a time.
class CudnnArguments : public ::testing::Test {
 protected:
  TensorView made(const Shape& shape) { return view_of(address(next_ += 1 << 20), DType::bf16, shape, kDevice); }
  AttentionBackwardArgs backward() {
    const std::int64_t t = 64, heads = 4, kv_heads = 2;
    return {.dq = made({t, heads, 192}),
            .dk = made({t, kv_heads, 192}),
            .dv = made({t, kv_heads, 128}),
            .d_o = made({t, heads, 128}),
            .q = made({t, heads, 192}),
            .k = made({t, kv_heads, 192}),
            .v = made({t, heads, 256}).slice(2, 128, 128).slice(1, 0, kv_heads),
            .o = made({t, heads, 128}),
            .lse = view_of(address(0), DType::f32, {heads, t}, kDevice),
            .segment_start = view_of(address(0), DType::i32, {t}, kDevice),
            .scale = 0.1,
            .scratch = scratch_,
            .stream = stream_,
            .document_starts = starts_};
  }
  using Change = std::function<void(AttentionBackwardArgs&)>;
  std::string reason(const Change& change) {
    AttentionBackwardArgs args = backward();
    change(args);
    return cudnn::refuses_arguments(args);
  }

  std::uintptr_t next_ = 0;
  std::vector<std::int32_t> starts_{0, 10, 64};
  std::vector<std::int32_t> one_long_{0, 65536};
  Workers workers_{1};
  Stream stream_{workers_};
  Arena scratch_;
};

TEST_F(CudnnArguments, DeclinedWithTheirReason) {
  EXPECT_EQ(reason([](AttentionBackwardArgs&) {}), "");
  const std::vector<std::pair<Change, std::string>> cases = {
      {[](AttentionBackwardArgs& a) { a.q.dtype = DType::f32; }, "f32 is not bf16"},
      {[](AttentionBackwardArgs& a) { a.q.shape[2] = 188; }, "dims of a head are not a multiple of 8"},
      {[](AttentionBackwardArgs& a) { a.document_starts = {}; },
       "the host was not told where documents begin (document_starts)"},
      {[](AttentionBackwardArgs& a) { a.k.data = static_cast<const char*>(a.k.data) + 8; },
       "k is not aligned to 16 bytes"},
      {[](AttentionBackwardArgs& a) { a.dv.strides[1] = 132; }, "strides of dv are not multiples of 8"},
      {[](AttentionBackwardArgs& a) { a.o.strides[0] = std::int64_t{1} << 26; }, "o has 2^31 elements or more"},
      {[&](AttentionBackwardArgs& a) { a.document_starts = one_long_; },
       "a deterministic pass over a document of 65536 tokens would take 17179869184 bytes for each key head"},
  };
  for (const auto& [change, text] : cases) EXPECT_EQ(reason(change), text);
}

TEST_F(CudnnArguments, BecomeAGraph) {
  const AttentionBackwardArgs args = backward();
  const std::vector<Pass> passes = cudnn::passes_of(args.document_starts);
  ASSERT_EQ(passes.size(), 1u);
  const Graph graph = cudnn::graph_of(args, passes[0], 1);
  EXPECT_EQ(graph.heads, 2);
  EXPECT_EQ(graph.kv_heads, 1);
  EXPECT_EQ(graph.steps[cudnn::kQ], (cudnn::Steps{4 * 192, 192}));
  EXPECT_EQ(graph.steps[cudnn::kV], (cudnn::Steps{4 * 256, 256}));
  EXPECT_EQ(graph.steps[cudnn::kStats], (cudnn::Steps{2, 1}));
  EXPECT_EQ(
      graph.to_string(),
      "a deterministic backward pass over 16 documents of up to 512 tokens, 2 heads sharing 1 of 192 and 128 dims");
}

// ---- what the library says

std::string device_json(int capability, int multiprocessors, int shared_bytes) {
  return fmt::format(
      R"({{"deviceVer":{},"multiProcessorCount":{},"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
      R"("maxSharedMemoryPerBlockOptin":{},"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
      R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"regsPerBlock":65536,)"
      R"("totalGlobalMem":85000000000,"smClockRateKHz":1980000,"l2CacheSize":52428800,)"
      R"("maxBlockSize":[1024,1024,64],"memClockRateKHz":2619000,"maxGridSize":[2147483647,65535,65535],)"
      R"("supportCoopLaunch":1,"pciDeviceId":0,"isTccDriver":0,"cudaDeviceId":0,"driverVer":13000,)"
      R"("deviceName":"described"}})",
      capability * 10, multiprocessors, shared_bytes);
}
std::string h100() { return device_json(90, 132, 232448); }
std::string a100() { return device_json(80, 108, 166912); }

struct Heads {
  std::int64_t heads, kv_heads, qk_dim, v_dim;
};
constexpr Heads kLatent{8, 8, 192, 128}, kGrouped{8, 2, 128, 128}, kOneKey{8, 1, 64, 64}, kWide{8, 8, 256, 256};

Graph graph_of(const Heads& h, bool backward, bool ragged, std::int64_t documents, std::int64_t length) {
  Graph graph{backward, ragged, documents, length, h.heads, h.kv_heads, h.qk_dim, h.v_dim};
  const auto steps = [&](std::int64_t heads, std::int64_t dims) { return cudnn::Steps{heads * dims, dims}; };
  for (const auto which : {cudnn::kQ, cudnn::kDq}) graph.steps[which] = steps(h.heads, h.qk_dim);
  for (const auto which : {cudnn::kK, cudnn::kDk}) graph.steps[which] = steps(h.kv_heads, h.qk_dim);
  for (const auto which : {cudnn::kO, cudnn::kDo}) graph.steps[which] = steps(h.heads, h.v_dim);
  for (const auto which : {cudnn::kV, cudnn::kDv}) graph.steps[which] = steps(h.kv_heads, h.v_dim);
  graph.steps[cudnn::kStats] = ragged ? cudnn::Steps{h.heads, 1} : cudnn::Steps{1, length};
  return graph;
}

class CudnnLibrary : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) {  // found by its name from now on
      ASSERT_NE(dlopen(SHOESTRING_FAKE_DRIVER, RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
    }
    if (!cudnn::library_fault().empty()) GTEST_SKIP() << cudnn::library_fault();
  }
};

TEST_F(CudnnLibrary, HasAnEngineForEveryGraphOnAnH100) {
  for (const Heads& heads : {kLatent, kGrouped, kOneKey, kWide}) {
    for (const bool backward : {false, true}) {
      for (const Graph& graph : {graph_of(heads, backward, false, 1, 8192), graph_of(heads, backward, false, 3, 1000),
                                 graph_of(heads, backward, true, 1, 16384), graph_of(heads, backward, true, 16, 2048),
                                 graph_of(heads, backward, true, 256, 512)}) {
        EXPECT_EQ(cudnn::answer_for(h100(), graph, false).refusal, "") << graph.to_string();
      }
    }
  }
}

TEST_F(CudnnLibrary, HasNoneForHeadsThatAreTooWide) {
  for (const bool ragged : {false, true}) {
    const Graph graph = graph_of({8, 8, 264, 264}, true, ragged, ragged ? 16 : 1, 2048);
    EXPECT_NE(cudnn::answer_for(h100(), graph, false).refusal, "") << graph.to_string();
  }
}

// Slices of fused projections, as models hand them over.
TEST_F(CudnnLibrary, TakesStridedTensors) {
  for (const bool backward : {false, true}) {
    Graph graph = graph_of(kLatent, backward, true, 16, 2048);
    graph.steps[cudnn::kV] = graph.steps[cudnn::kDv] = {8 * 256, 256};
    graph.steps[cudnn::kQ] = graph.steps[cudnn::kDq] = {8 * 192 + 576, 192};
    EXPECT_EQ(cudnn::answer_for(h100(), graph, false).refusal, "") << graph.to_string();
  }
}

TEST_F(CudnnLibrary, DeclinesOnAnA100WhatItHasNoDeterministicEngineFor) {
  const auto refused = [](const Graph& graph) { return !cudnn::answer_for(a100(), graph, false).refusal.empty(); };
  for (const Heads& heads : {kLatent, kGrouped, kOneKey}) {
    EXPECT_FALSE(refused(graph_of(heads, false, false, 1, 8192)));
    EXPECT_FALSE(refused(graph_of(heads, false, true, 16, 2048)));
    EXPECT_EQ(refused(graph_of(heads, true, false, 1, 8192)), heads.qk_dim > 128);
    EXPECT_TRUE(refused(graph_of(heads, true, true, 16, 2048)));
  }
  EXPECT_NE(cudnn::answer_for(a100(), graph_of(kLatent, true, false, 1, 8192), false)
                .refusal.find("has no engine for a deterministic backward pass over 1 documents of just 8192 tokens"),
            std::string::npos);
}

/// Compiled for an H100: its workspace is what scratch is planned for.
void expect_plan(const Graph& graph) {
  const cudnn::Answer answer = cudnn::answer_for(h100(), graph, true);
  ASSERT_EQ(answer.refusal, "") << graph.to_string();
  const std::int64_t pairs = graph.backward ? 2 * graph.heads * graph.pairs() : 0;
  EXPECT_GE(answer.workspace_bytes, pairs) << graph.to_string();
  EXPECT_LE(answer.workspace_bytes, cudnn::scratch_bytes({.tokens = graph.documents * graph.length,
                                                          .longest_document = graph.length,
                                                          .heads = graph.heads,
                                                          .kv_heads = graph.kv_heads,
                                                          .qk_dim = graph.qk_dim,
                                                          .v_dim = graph.v_dim}))
      << graph.to_string();
}
TEST_F(CudnnLibrary, CompilesForward) { expect_plan(graph_of(kLatent, false, true, 16, 2048)); }
TEST_F(CudnnLibrary, CompilesBackward) { expect_plan(graph_of(kLatent, true, false, 1, 8192)); }
TEST_F(CudnnLibrary, CompilesBackwardOfSharedHeads) { expect_plan(graph_of(kGrouped, true, true, 16, 2048)); }

}  // namespace
}  // namespace shoestring
