// Products of experts on a CUDA device against the CPU's, over the same bytes, by each row that takes them: in FP8 with
// rows that begin at multiples for each expert, in BF16 anywhere; one expert is without rows.
#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantize.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr std::int64_t kDeviceScratchBytes = std::int64_t{32} << 20;
constexpr double kByteError = 0x1p-11;  // of FP8 units, as in cuda_check_products.cpp
constexpr std::int64_t kExperts = 4, kN = 128, kK = 272;
constexpr std::int64_t kOffsets[] = {0, 48, 48, 64, 240};
constexpr std::int64_t kRows = 240;
constexpr std::int64_t kUneven[] = {0, 41, 41, 42, kRows};

/// E4M3 codes on both sides. The matrix [rows, columns] lies as given, or turned, and so do its scales.
struct Codes {
  Tensor values[2], scales[2];  ///< here, and on the device
  Granularity granularity{};
  bool turned_values = false, turned_scales = false;
  std::int64_t scale_columns = 0;

  ConstScaledView view(bool there) const {
    const ConstTensorView v = values[there], s = scales[there];
    return {turned_values ? v.transposed() : v, (turned_scales ? s.transposed() : s).slice(1, 0, scale_columns),
            granularity};
  }
};

struct CodesSpec {
  std::int64_t rows, columns;
  Granularity granularity;
  std::span<const std::int64_t> segments;
  bool turned_values, turned_scales;
  std::int64_t line;  ///< scales of a row fill a multiple of it
  std::uint32_t numbers;
};

Codes codes_of(Bench& bench, const CodesSpec& spec) {
  Codes codes;
  const Shape tiles = tile_scales_shape(spec.rows, spec.columns, spec.granularity, spec.segments);
  const auto turn = [](bool turned, Shape shape) { return turned ? Shape{shape[1], shape[0]} : shape; };
  codes.granularity = spec.granularity;
  codes.turned_values = spec.turned_values;
  codes.turned_scales = spec.turned_scales;
  codes.scale_columns = tiles[1];
  codes.values[0] = Tensor(DType::e4m3, turn(spec.turned_values, {spec.rows, spec.columns}));
  const std::int64_t lines = (tiles[1] + spec.line - 1) / spec.line * spec.line;
  codes.scales[0] = Tensor(DType::f32, turn(spec.turned_scales, {tiles[0], lines}));
  const Tensor x = numbers(DType::bf16, {spec.rows, spec.columns}, spec.numbers);
  const auto writable = [](const ConstTensorView& view, Tensor& tensor) {
    return TensorView{tensor.view().data, view.shape, view.strides, view.dtype, {}};
  };
  const ConstScaledView view = codes.view(false);
  const ScaledView to{writable(view.values, codes.values[0]), writable(view.scales, codes.scales[0]), spec.granularity};
  const bool tall = spec.granularity == kColumnTile128;
  quantize({.x = x,
            .row_tiles = tall ? ScaledView{} : to,
            .column_tiles = tall ? to : ScaledView{},
            .segments = spec.segments,
            .stream = bench.cpu});
  codes.values[1] = bench.to_device(codes.values[0]);
  codes.scales[1] = bench.to_device(codes.scales[0]);
  return codes;
}

/// |codes| in plain singles.
Tensor magnitudes(Bench& bench, const Codes& codes, std::span<const std::int64_t> segments) {
  const ConstScaledView view = codes.view(false);
  Tensor out(DType::f32, view.values.shape);
  dequantize({.y = out, .x = view, .segments = segments, .stream = bench.cpu});
  for (std::int64_t i = 0; i < out.view().elements(); ++i) out.as<float>()[i] = std::abs(out.as<float>()[i]);
  return out;
}

Arena scratch_on(const Stream& stream, std::int64_t bytes) {
  return {bytes + (stream.device().kind == DeviceKind::cpu ? 0 : kDeviceScratchBytes), stream.device()};
}
int workers_of(const Stream& stream) { return stream.device().kind == DeviceKind::cpu ? stream.workers().count() : 1; }

// The two products of groups, alike for what follows.

struct RowsGrouped {
  using Args = GroupedGemmArgs;
  static auto variants() { return grouped_gemm_variants(); }
  static void run(const Args& args) { grouped_gemm(args); }
  static std::int64_t scratch_bytes(int workers) {
    return grouped_gemm_scratch_bytes(kRows, kN, kK, kExperts, workers, false);
  }
};
struct SumsGrouped {
  using Args = GroupedWeightGemmArgs;
  static auto variants() { return grouped_weight_gemm_variants(); }
  static void run(const Args& args) { grouped_weight_gemm(args); }
  static std::int64_t scratch_bytes(int workers) {
    return grouped_weight_gemm_scratch_bytes(kRows, kN, kK, kExperts, workers);
  }
};

struct Product {
  std::string name;
  Shape shape;
  std::span<const std::int64_t> offsets = kOffsets;
  bool accumulate = false, b_transposed = false;
  double error = 0;  ///< of the operands' units
};

template <class Kind>
typename Kind::Args args_of(const Product& product, TensorView c, const ConstScaledView& a, const ConstScaledView& b,
                            Arena& scratch, Stream& stream) {
  typename Kind::Args args{.c = c,
                           .a = a,
                           .b = b,
                           .offsets = product.offsets,
                           .accumulate = product.accumulate,
                           .scratch = scratch,
                           .stream = stream};
  if constexpr (requires { args.b_transposed; }) args.b_transposed = product.b_transposed;
  return args;
}

/// Every row that takes the product on the device, its offsets there or here, beside the CPU's; `a` and `b` are asked
/// for where they stand, and for their magnitudes.
template <class Kind>
void check(Bench& bench, const Product& product, const std::function<ConstScaledView(bool there)>& a,
           const std::function<ConstScaledView(bool there)>& b, ConstTensorView a_terms, ConstTensorView b_terms) {
  const Tensor before = numbers(DType::f32, product.shape, 47);
  Tensor expected(DType::f32, product.shape), terms(DType::f32, product.shape);
  copy(expected, before, bench.cpu);
  Arena here = scratch_on(bench.cpu, Kind::scratch_bytes(workers_of(bench.cpu)));
  Kind::run(args_of<Kind>(product, expected, a(false), b(false), here, bench.cpu));
  Product sums = product;
  sums.accumulate = false;
  Kind::run(args_of<Kind>(sums, terms, unscaled(a_terms), unscaled(b_terms), here, bench.cpu));
  std::vector<double> magnitude;
  for (std::int64_t i = 0; i < product.shape.elements(); ++i) {
    magnitude.push_back(value(terms, i) + (product.accumulate ? std::abs(value(before, i)) : 0));
  }
  Tensor host_offsets(DType::i64, {static_cast<std::int64_t>(product.offsets.size())});
  std::copy(product.offsets.begin(), product.offsets.end(), host_offsets.as<std::int64_t>());
  const Tensor offsets = bench.to_device(host_offsets);
  Arena scratch = scratch_on(bench.cuda, Kind::scratch_bytes(1));
  for (const bool told : {false, true}) {
    int taken = 0;
    for (const auto& row : Kind::variants()) {
      Tensor there = bench.to_device(before);
      typename Kind::Args args = args_of<Kind>(product, there, a(true), b(true), scratch, bench.cuda);
      if (told) args.device_offsets = offsets;
      if (!row.refuses(args).empty()) continue;
      ++taken;
      row.run(args);
      bench.cuda.synchronize();
      const double worst =
          worst_error(bench.to_host(there), expected, sum_error(kRows + kK) + product.error, magnitude);
      bench.verdict(fmt::format("{} by {}{}", product.name, row.name, told ? ", offsets there" : ""), worst <= 1,
                    fmt::format("worst error {:.3f} of its bound", worst));
    }
    bench.verdict(product.name + " is taken", taken > 0, "by no row");
  }
}

template <class Kind>
void check_codes(Bench& bench, const Product& product, const CodesSpec& a_spec, const CodesSpec& b_spec) {
  bench.part(product.name, [&] {
    const Codes a = codes_of(bench, a_spec), b = codes_of(bench, b_spec);
    check<Kind>(
        bench, product, [&](bool there) { return a.view(there); }, [&](bool there) { return b.view(there); },
        magnitudes(bench, a, a_spec.segments), magnitudes(bench, b, b_spec.segments));
  });
}

/// BF16 operands, `a` and `b` as they are or turned.
template <class Kind>
void check_plain(Bench& bench, const Product& product, const Shape& a_shape, const Shape& b_shape) {
  bench.part(product.name, [&] {
    const Tensor a[] = {numbers(DType::bf16, a_shape, 48), bench.to_device(numbers(DType::bf16, a_shape, 48))};
    const Tensor b[] = {numbers(DType::bf16, b_shape, 49), bench.to_device(numbers(DType::bf16, b_shape, 49))};
    const auto absolute = [](const Tensor& x) {
      Tensor all(DType::f32, x.shape());
      for (std::int64_t i = 0; i < x.view().elements(); ++i) {
        all.as<float>()[i] = static_cast<float>(std::abs(value(x, i)));
      }
      return all;
    };
    check<Kind>(
        bench, product, [&](bool there) { return unscaled(ConstTensorView(a[there])); },
        [&](bool there) { return unscaled(ConstTensorView(b[there])); }, absolute(a[0]), absolute(b[0]));
  });
}

}  // namespace

void check_groups(Bench& bench) {
  const CodesSpec rows{kRows, kK, kRowTile128, {}, false, true, 1, 41};  // scales of all rows stand together
  const CodesSpec weights{kExperts * kN, kK, kBlock128, {}, false, false, 4, 42};
  for (const bool accumulate : {false, true}) {
    check_codes<RowsGrouped>(
        bench,
        {.name = accumulate ? "grouped_gemm e4m3, 1x128 by 128x128, added" : "grouped_gemm e4m3, 1x128 by 128x128",
         .shape = {kRows, kN},
         .accumulate = accumulate,
         .error = kByteError},
        rows, weights);
  }
  check_codes<RowsGrouped>(
      bench, {.name = "grouped_gemm e4m3, one scale each", .shape = {kRows, kN}, .error = kByteError},
      {kRows, kK, kPerTensor, {}, false, false, 1, 43}, {kExperts * kN, kK, kPerTensor, {}, false, false, 1, 44});
  check_codes<SumsGrouped>(
      bench, {.name = "grouped_weight_gemm e4m3, 128x1", .shape = {kExperts * kN, kK}, .error = kByteError},
      {kRows, kN, kColumnTile128, kOffsets, true, false, 1, 45},
      {kRows, kK, kColumnTile128, kOffsets, true, false, 1, 46});
  for (const bool accumulate : {false, true}) {
    const std::string added = accumulate ? ", added" : "";
    const auto product = [&](const char* name, const Shape& shape) {
      return Product{.name = name + added, .shape = shape, .offsets = kUneven, .accumulate = accumulate};
    };
    check_plain<RowsGrouped>(bench, product("grouped_gemm bf16", {kRows, kN}), {kRows, kK}, {kExperts * kN, kK});
    Product turned = product("grouped_gemm bf16, turned", {kRows, kK});
    turned.b_transposed = true;
    check_plain<RowsGrouped>(bench, turned, {kRows, kN}, {kExperts * kN, kK});
    check_plain<SumsGrouped>(bench, product("grouped_weight_gemm bf16", {kExperts * kN, kK}), {kRows, kN}, {kRows, kK});
    Product apart = product("grouped_weight_gemm bf16, apart by source", {2, kExperts / 2 * kN, kK});
    check_plain<SumsGrouped>(bench, apart, {kRows, kN}, {kRows, kK});
  }
}

}  // namespace shoestring::cuda_compare
