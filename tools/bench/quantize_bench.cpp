#include "tools/bench/quantize_bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "kernels/base/random.h"
#include "kernels/quantize.h"
#include "tools/bench/calibration.h"

namespace shoestring {
namespace {

constexpr Granularity kNone{-1, -1};

struct Case {
  const char* name;
  Granularity row_tiles;
  Granularity column_tiles;
  ScaleKind kind;
  double goal_in_l2;  ///< 1e9 elements a second; 0: told, not judged
  double goal_from_memory;
};

constexpr Case kSingles[] = {
    {"f32 1x128", kRowTile128, kNone, ScaleKind::f32, 3.5, 2.8},
    {"f32 1x128 power of two", kRowTile128, kNone, ScaleKind::power_of_two, 3.5, 2.8},
    {"f32 1x32 e8m0", kRowTile32, kNone, ScaleKind::e8m0, 0, 0},
    {"f32 128x128", kBlock128, kNone, ScaleKind::f32, 0, 0},
    {"f32 1x128 and 128x1", kRowTile128, kColumnTile128, ScaleKind::f32, 0, 0},
};
constexpr Case kBFloats[] = {
    {"bf16 1x128", kRowTile128, kNone, ScaleKind::f32, 0, 0},
    {"bf16 1x128 and 128x1", kRowTile128, kColumnTile128, ScaleKind::f32, 0, 0},
};

/// One input and its outputs: [rows, columns] is what the caches are meant to hold, or not.
class Matrices {
 public:
  Matrices(DType dtype, std::int64_t rows, std::int64_t columns)
      : x_(dtype, {rows, columns}), codes_(DType::e4m3, {rows, columns}), tall_(DType::e4m3, {rows, columns}) {
    const Random random(1, Purpose::test);
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const auto value = static_cast<float>(random.uniform(static_cast<std::uint64_t>(i % 65536)) - 0.5);
      if (dtype == DType::f32) {
        x_.as<float>()[i] = value;
      } else {
        x_.as<BFloat16>()[i] = BFloat16(value);
      }
    }
  }
  double elements() const { return static_cast<double>(x_.view().elements()); }

  /// Seconds of one call, as the mean of `calls`.
  double seconds(const Case& c, int calls, Stream& stream) {
    const Shape& shape = x_.shape();
    const DType scale = c.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
    if (row_scales_.empty() || tiles_ != &c) {
      row_scales_ = Tensor(scale, tile_scales_shape(shape[0], shape[1], c.row_tiles));
      if (c.column_tiles.rows >= 0)
        column_scales_ = Tensor(scale, tile_scales_shape(shape[0], shape[1], c.column_tiles));
      tiles_ = &c;
    }
    QuantizeArgs args{.x = x_, .row_tiles = {codes_, row_scales_, c.row_tiles}, .scale_kind = c.kind, .stream = stream};
    if (c.column_tiles.rows >= 0) args.column_tiles = {tall_, column_scales_, c.column_tiles};
    const double begin = now_seconds();
    for (int call = 0; call < calls; ++call) quantize(args);
    return (now_seconds() - begin) / calls;
  }

 private:
  Tensor x_;
  Tensor codes_;
  Tensor tall_;
  Tensor row_scales_;
  Tensor column_scales_;
  const Case* tiles_ = nullptr;  ///< the case whose scales are held
};

void measure(const Case& c, const char* where, double goal, Matrices& matrices, Workers& workers,
             const BenchEffort& effort, const BenchReport& report) {
  Stream stream(workers);
  const int calls = std::max(1, static_cast<int>(2e-3 / std::max(1e-7, matrices.seconds(c, 3, stream))));
  Ratios ratios;
  const double start = now_seconds();
  while (wants_more(ratios, start, effort)) {
    const PaceWatch watch(workers);
    const long before = preemptions();
    const double rate = matrices.elements() / matrices.seconds(c, calls, stream) / 1e9;
    if (preemptions() == before) {
      ratios.add(rate, rate, watch.pace());
    } else {
      ratios.drop();
    }
  }
  report(ratios.row(fmt::format("quantise {} {}", c.name, where), "1e9 elements/s", goal, "Gelem/s"));
}

}  // namespace

void bench_quantize(Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  const std::int64_t threads = workers.count();
  for (const bool in_l2 : {true, false}) {
    const std::int64_t rows = in_l2 ? 256 * threads : 8192;  // 1 MiB of f32 for each thread, or 128 MiB for all
    const std::int64_t columns = in_l2 ? 1024 : 4096;
    const char* where = in_l2 ? "in L2" : "from memory";
    Matrices singles(DType::f32, rows, columns);
    for (const Case& c : kSingles) {
      measure(c, where, in_l2 ? c.goal_in_l2 : c.goal_from_memory, singles, workers, effort, report);
    }
    Matrices bfloats(DType::bf16, rows, columns);
    for (const Case& c : kBFloats) {
      measure(c, where, in_l2 ? c.goal_in_l2 : c.goal_from_memory, bfloats, workers, effort, report);
    }
  }
}

}  // namespace shoestring
