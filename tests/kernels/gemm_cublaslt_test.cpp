// What of the cuBLASLt row can be tried without a device: which products it declines and why, how addresses decide the
// algorithm, and where quantized_gemm leaves scales for it.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/workers.h"
#include "kernels/gemm_cublaslt_plan.h"
#include "kernels/quantized_gemm_codes.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

namespace cublaslt = gemm_detail::cublaslt;

constexpr Device kDevice{DeviceKind::cuda, 0};
constexpr std::int64_t kM = 16, kN = 32, kK = 512;

/// An address that nobody reads.
void* address(std::uintptr_t bytes) { return reinterpret_cast<void*>(std::uintptr_t{1} << 30 | bytes); }

TensorView on_device(DType dtype, const Shape& shape, std::uintptr_t at) {
  return view_of(address(at), dtype, shape, kDevice);
}

/// Arguments that cuBLASLt takes, to be spoiled one at a time.
class CublasLt : public ::testing::Test {
 protected:
  GemmArgs plain(DType dtype) {
    return {.c = on_device(dtype, {kM, kN}, 0),
            .a = unscaled(on_device(dtype, {kM, kK}, 1 << 20)),
            .b = unscaled(on_device(dtype, {kN, kK}, 2 << 20)),
            .scratch = scratch_,
            .stream = stream_};
  }
  /// E4M3, 1x128 by 128x128.
  GemmArgs bytes() {
    GemmArgs args = plain(DType::bf16);
    args.a = ConstScaledView{on_device(DType::e4m3, {kM, kK}, 1 << 20),
                             on_device(DType::f32, {kK / 128, kM}, 3 << 20).transposed(), kRowTile128};
    args.b = ConstScaledView{on_device(DType::e4m3, {kN, kK}, 2 << 20), on_device(DType::f32, {1, kK / 128}, 4 << 20),
                             kBlock128};
    return args;
  }
  using Change = std::function<void(GemmArgs&)>;
  static std::string reason(GemmArgs args, const Change& change) {
    change(args);
    return cublaslt::refuses_arguments(args, kDevice);
  }

  Workers workers_{1};
  Stream stream_{workers_};
  Arena scratch_;
};

template <class View>
void move_by(View& view, std::ptrdiff_t bytes) {
  view.data = static_cast<const char*>(view.data) + bytes;
}
void move_by(TensorView& view, std::ptrdiff_t bytes) { view.data = static_cast<char*>(view.data) + bytes; }

TEST_F(CublasLt, TakesWhatItCan) {
  for (const DType dtype : {DType::f32, DType::bf16}) EXPECT_EQ(reason(plain(dtype), [](GemmArgs&) {}), "");
  EXPECT_EQ(reason(bytes(), [](GemmArgs&) {}), "");
  EXPECT_EQ(reason(bytes(), [](GemmArgs& g) { g.bias = on_device(DType::bf16, {kN}, 5 << 20); }), "");
  EXPECT_EQ(reason(bytes(), [](GemmArgs& g) { g.c = on_device(DType::f32, {kM, kN}, 0); }), "");
  EXPECT_EQ(reason(bytes(),
                   [](GemmArgs& g) {  // single scales lie side by side
                     g.a.scales = on_device(DType::f32, {1, 1}, 4);
                     g.b.scales = on_device(DType::f32, {1, 1}, 8);
                     g.a.granularity = g.b.granularity = kPerTensor;
                   }),
            "");
  EXPECT_EQ(reason(plain(DType::bf16), [](GemmArgs& g) { move_by(g.a.values, 2); }), "");  // the heuristic is told
}

TEST_F(CublasLt, DeclinesTensorsElsewhere) {
  const Device other{DeviceKind::cuda, 1};
  const std::vector<std::pair<Change, std::string>> cases = {
      {[&](GemmArgs& g) { g.c.device = {}; }, "cpu holds c"},
      {[&](GemmArgs& g) { g.a.values.device = {}; }, "cpu holds a"},
      {[&](GemmArgs& g) { g.b.values.device = other; }, "cuda:1 holds b"},
      {[&](GemmArgs& g) { g.a.scales.device = {}; }, "cpu holds the scales of a"},
      {[&](GemmArgs& g) { g.b.scales.device = {}; }, "cpu holds the scales of b"},
      {[&](GemmArgs& g) { g.bias = view_of(address(0), DType::bf16, {kN}); }, "cpu holds the bias"},
  };
  for (const auto& [change, text] : cases) EXPECT_EQ(reason(bytes(), change), text);
  scratch_ = Arena(256, Device{});
  EXPECT_EQ(reason(bytes(), [](GemmArgs&) {}), "cpu holds the scratch");
  EXPECT_EQ(scratch_.used_bytes(), 0);
}

TEST_F(CublasLt, DeclinesBytesThatLieBadly) {
  const std::vector<std::pair<Change, std::string>> cases = {
      {[](GemmArgs& g) { move_by(g.a.values, 8); }, "a is not aligned to 16 bytes"},
      {[](GemmArgs& g) { move_by(g.b.values, 1); }, "b is not aligned to 16 bytes"},
      {[](GemmArgs& g) { move_by(g.c, 8); }, "c is not aligned to 16 bytes"},
      {[](GemmArgs& g) { move_by(g.a.scales, 4); }, "scales of a are not aligned to 16 bytes"},
      {[](GemmArgs& g) { move_by(g.b.scales, 8); }, "scales of b are not aligned to 16 bytes"},
      {[](GemmArgs& g) { g.bias = on_device(DType::bf16, {kN}, 2); }, "bias is not aligned to 16 bytes"},
      {[](GemmArgs& g) { g.c.strides[0] = kN + 4; }, "rows of c are not a multiple of 16 bytes apart"},
      {[](GemmArgs& g) { g.a.values.strides[0] = kK + 8; }, "k and strides not of 16"},
      {[](GemmArgs& g) {
         g.a.scales.strides = {kK / 128, 1};
       },
       "scales of a are not contiguous along rows"},
  };
  for (const auto& [change, text] : cases) EXPECT_EQ(reason(bytes(), change), text);
}

TEST_F(CublasLt, DeclinesFormatsItDoesNotKnow) {
  const auto single = [](GemmArgs& g) {
    g.c = on_device(DType::f32, {kM, kN}, 0);
    g.bias = on_device(DType::f32, {kN}, 5 << 20);
  };
  EXPECT_EQ(reason(bytes(), single), "cuBLASLt adds no f32 bias to a product of 8-bit operands");
  EXPECT_EQ(reason(plain(DType::f32), single), "");
  EXPECT_EQ(reason(plain(DType::bf16), [](GemmArgs& g) { g.bias = on_device(DType::f32, {kN}, 0); }),
            "bias and c differ in format");
  EXPECT_EQ(reason(bytes(), [](GemmArgs& g) { g.b.granularity = kPerTensor; }),
            "one operand has a single scale, the other has tiles");
}

TEST_F(CublasLt, TakesEmptySums) {
  const auto empty = [](GemmArgs& g) {
    g.a = unscaled(view_of(static_cast<const void*>(nullptr), DType::bf16, {kM, 0}, kDevice));
    g.b = unscaled(view_of(static_cast<const void*>(nullptr), DType::bf16, {kN, 0}, kDevice));
  };
  const auto biased = [&](GemmArgs& g) {
    empty(g);
    g.bias = on_device(DType::bf16, {kN}, 5 << 20);
  };
  GemmArgs args = plain(DType::bf16);
  EXPECT_EQ(reason(args, empty), "");
  EXPECT_EQ(reason(args, biased), "");
  args.accumulate = true;
  EXPECT_EQ(reason(args, empty), "");
  EXPECT_EQ(reason(args, biased), "nothing adds a bias to c where k is 0");
}

TEST_F(CublasLt, AlignmentOfAddresses) {
  EXPECT_EQ(cublaslt::alignment_of(nullptr), 256u);
  for (const auto& [offset, alignment] : {std::pair<std::uintptr_t, std::uint32_t>{0, 256},
                                          {512, 256},
                                          {128, 128},
                                          {64, 64},
                                          {48, 16},
                                          {4, 4},
                                          {258, 2},
                                          {255, 1}}) {
    EXPECT_EQ(cublaslt::alignment_of(address(offset)), alignment) << offset;
  }
}

TEST_F(CublasLt, WorkspaceIsAlignedAndBounded) {
  const auto at = [](std::uintptr_t offset, std::int64_t bytes) {
    return cublaslt::workspace_of(address(offset), bytes);
  };
  EXPECT_EQ(at(0, 1024).data, address(0));
  EXPECT_EQ(at(0, 1024).bytes, 1024);
  EXPECT_EQ(at(64, 1024).data, address(256));
  EXPECT_EQ(at(64, 1024).bytes, 768);  // 832 are left, in whole units of 256
  EXPECT_EQ(at(64, 192).data, nullptr);
  EXPECT_EQ(at(64, 192).bytes, 0);
  EXPECT_EQ(cublaslt::workspace_of(nullptr, 0).data, nullptr);
  const std::int64_t most = cublaslt::kWorkspaceBytes;
  EXPECT_EQ(at(64, most + 192).bytes, most);
  EXPECT_EQ(at(0, 4 * most).bytes, most);
}

TEST_F(CublasLt, KeySeesAddressesByTheirAlignment) {
  const auto key = [&](const Change& change, std::int64_t workspace = 0) {
    GemmArgs args = plain(DType::bf16);
    args.bias = on_device(DType::bf16, {kN}, 0);
    change(args);
    return cublaslt::key_of(args, workspace);
  };
  const cublaslt::Key same = key([](GemmArgs&) {});
  EXPECT_EQ(key([](GemmArgs& g) { move_by(g.a.values, 4096); }), same);
  const std::vector<Change> others = {
      [](GemmArgs& g) { move_by(g.a.values, 16); },    [](GemmArgs& g) { move_by(g.b.values, 16); },
      [](GemmArgs& g) { move_by(g.c, 16); },           [](GemmArgs& g) { move_by(g.bias, 16); },
      [](GemmArgs& g) { g.c.strides[0] = 2 * kN; },    [](GemmArgs& g) { g.accumulate = true; },
      [](GemmArgs& g) { g.b.granularity = kBlock128; }};
  for (std::size_t i = 0; i < others.size(); ++i) EXPECT_NE(key(others[i]), same) << i;
  EXPECT_NE(key([](GemmArgs&) {}, 256), same);
  EXPECT_NE(key([](GemmArgs& g) { move_by(g.a.values, 16); }), key([](GemmArgs& g) { move_by(g.b.values, 16); }));
}

TEST_F(CublasLt, BiasSpreadsOverStridedRows) {
  for (const std::int64_t rows : {1, 2, 3, 8, 13}) {
    Tensor bias = testing::normal(DType::bf16, {5}, 1);
    Tensor wide(DType::bf16, {rows, 7});
    cublaslt::spread_bias(wide.view().slice(1, 0, 5), bias, stream_);
    for (std::int64_t i = 0; i < rows * 7; ++i) {
      const double want = i % 7 < 5 ? testing::value_at(bias.view(), i % 7) : 0;
      EXPECT_EQ(testing::value_at(wide.view(), i), want) << rows << " " << i;
    }
  }
}

/// Codes of quantized_gemm: what lies right for a CPU does not for cuBLASLt, and the numbers are the same.
TEST_F(CublasLt, RowCodesLieAsTheirReaderWants) {
  const Tensor x = testing::heavy_tailed(DType::f32, {kM, kK}, 3);
  Arena scratch(1 << 20, Device{});
  std::vector<std::int64_t> used;
  std::vector<Tensor> values;
  for (const DeviceKind reader : {DeviceKind::cpu, DeviceKind::cuda}) {
    const Arena::Scope scope(scratch);
    const ScaledView codes =
        gemm_detail::take_row_codes(scratch, {kM, kK}, DType::e4m3, kRowTile128, ScaleKind::power_of_two, reader);
    used.push_back(scratch.used_bytes());
    quantize({.x = x, .row_tiles = codes, .scale_kind = ScaleKind::power_of_two, .stream = stream_});
    Tensor y(DType::f32, {kM, kK});
    dequantize({.y = y, .x = codes, .stream = stream_});
    values.push_back(std::move(y));
    GemmArgs args = bytes();
    args.a = codes;
    args.a.values.device = args.a.scales.device = kDevice;
    EXPECT_EQ(cublaslt::refuses_arguments(args, kDevice),
              reader == DeviceKind::cuda ? "" : "scales of a are not contiguous along rows");
  }
  EXPECT_EQ(used[0], used[1]);
  EXPECT_TRUE(testing::same_bits(values[0], values[1]));
}

TEST_F(CublasLt, DeclinesTheScalesOfMx) {
  Arena scratch(1 << 20, Device{});
  const auto declined = [&](Granularity tile, ScaleKind kind) {
    GemmArgs args = bytes();
    args.a = gemm_detail::take_row_codes(scratch, {kM, kK}, DType::e4m3, tile, kind, DeviceKind::cuda);
    args.a.values.device = args.a.scales.device = kDevice;
    return cublaslt::refuses_arguments(args, kDevice);
  };
  EXPECT_EQ(declined(kRowTile128, ScaleKind::e8m0), "scales of a are not f32");
  EXPECT_EQ(declined(kRowTile32, ScaleKind::f32), "scales of a are neither per tensor, 1x128 nor 128x128");
}

}  // namespace
}  // namespace shoestring
