// Inside of gemm and grouped_gemm, not for other code: a product as a plain list of work.
//
// Dense and grouped products become a list of Problems. One driver (gemm_driver.cpp) runs such a list for every CPU
// variant: it packs what is not packed yet, hands blocks of rows to workers, and calls the variant's Machine for the
// arithmetic. Blocking never changes a sum's order, so neither workers nor neighbours can be seen in a result.
//
//   packed left   [row block][k]...    rows of one worker's block, in its L2
//   packed right  [panel of 32 columns][k]...   streamed; 512 of k at a time stay in L1
//   strip         [row block][32] f32  sums of one panel between two parts of k
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/base/cpu.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"

namespace shoestring {
struct GroupedGemmArgs;
}

namespace shoestring::gemm_detail {

inline constexpr std::int64_t kPanel = 32;      ///< columns of c that are worked on together
inline constexpr std::int64_t kLongSum = 2048;  ///< k up to here stays in L2 whole, more is worked on in chunks of ...
inline constexpr std::int64_t kLongChunk = 1024;  ///< ... this, with the sums of ...
inline constexpr std::int64_t kLongPanels = 16;   ///< ... that many panels kept in strips

inline std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }
inline std::int64_t round_up(std::int64_t value, std::int64_t to) { return divide_up(value, to) * to; }

inline constexpr int kFoldExponent = 50;  ///< scales within 2^-50 .. 2^50 are folded: products of two such, and of
                                          ///< 2^-18 .. 2^40 of payload, stay normal singles

/// What is done to a plain left operand while it is packed: the arithmetic of quantize, in tiles of 1x128.
struct RowCast {
  DType values = DType::e4m3;
  ScaleKind kind = ScaleKind::f32;
  QuantizeCounts* counts = nullptr;
  std::atomic<bool>* unfoldable = nullptr;  ///< set when a power of two leaves what may be folded: c is then not valid
};

/// One product; the fields are those of GemmArgs. `packed_index` chooses one of several matrices in `packed_b`.
struct Problem {
  TensorView c;
  ConstScaledView a;
  ConstScaledView b;
  bool accumulate = false;
  bool power_of_two_scales = false;
  const PackedMatrix* packed_b = nullptr;
  std::int64_t packed_index = 0;
  ConstTensorView bias;
  const RowCast* cast = nullptr;  ///< a is plain and is quantised so, or nullptr
  bool symmetric = false;
};

Problem problem_of(const GemmArgs& args);
/// The product of one expert.
Problem problem_of(const GroupedGemmArgs& args, std::int64_t expert);

/// What becomes of an operand's scales.
enum class Scaling : std::uint8_t {
  none,     ///< plain numbers, or powers of two that packing adds to the exponents
  uniform,  ///< one factor for the whole operand, applied to the finished sum
  blocks,   ///< promoted every k_per_scale
};

/// An operand [rows, k] taken apart for packing.
struct Operand {
  const void* values = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t k = 0;
  std::int64_t row_stride = 0;  ///< in elements, like k_stride
  std::int64_t k_stride = 0;
  const void* scales = nullptr;
  DType scale_dtype = DType::f32;
  std::int64_t rows_per_scale = 0;  ///< 0: all
  std::int64_t k_per_scale = 0;
  std::int64_t scale_row_stride = 0;
  std::int64_t scale_k_stride = 0;
  Scaling scaling = Scaling::none;
  bool folded = false;  ///< packing multiplies the values by their (power of two) scales

  /// Decides that the scales are applied to sums, not to values.
  void keep_scales() {
    folded = false;
    scaling = rows_per_scale == 0 && k_per_scale == 0 ? Scaling::uniform : Scaling::blocks;
  }
  float scale(std::int64_t row, std::int64_t k_index) const {
    const std::int64_t at = tile(row, rows_per_scale) * scale_row_stride + tile(k_index, k_per_scale) * scale_k_stride;
    if (scale_dtype == DType::e8m0) return static_cast<const E8M0*>(scales)[at];
    return static_cast<const float*>(scales)[at];
  }

 private:
  /// Tiles are as long as a power of two: a shift, where a division would cost as much as decoding what is scaled.
  static std::int64_t tile(std::int64_t index, std::int64_t length) {
    return length == 0 ? 0 : index >> std::countr_zero(static_cast<std::uint64_t>(length));
  }
};

/// Takes `view` apart and decides what becomes of its scales; `power_of_two` as in GemmArgs.
Operand operand_of(const ConstScaledView& view, bool power_of_two);

/// Operand of a plain `view` that `cast` quantises.
Operand operand_of(const ConstScaledView& view, const RowCast& cast);

/// Rows that Machine::quantize_rows takes together.
struct RowsOfBlock {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  bool counted = true;      ///< they enter RowCast::counts
  void* to = nullptr;       ///< as for pack_rows
  float* scales = nullptr;  ///< [row block][ceil(k / 128)][rows of a block]; not written where scales are folded
};

/// Where a panel's sums go.
struct Output {
  void* c = nullptr;  ///< at (first row of the block, first column of the panel)
  std::int64_t row_stride = 0;
  DType dtype = DType::f32;
  std::int64_t columns = 0;  ///< 1 .. 32
  bool accumulate = false;
  bool bypass_cache = false;  ///< c is large and will not be read soon
  float factor = 1;
  const void* bias = nullptr;  ///< at the panel's first column
  DType bias_dtype = DType::f32;
};

/// A block of rows times one panel, over part of k.
struct PanelProduct {
  const void* a = nullptr;         ///< packed, or the operand's own rows
  std::int64_t a_block_bytes = 0;  ///< from one row block to the next
  std::int64_t a_row_bytes = 0;    ///< from one of the operand's own rows to the next; 0: packed
  std::int64_t rows = 0;
  const void* b = nullptr;  ///< the panel, from k = 0
  bool b_is_near = false;   ///< in L2, like the panels after it
  std::int64_t k_begin = 0;
  std::int64_t k_end = 0;            ///< a multiple of 512, or the end of k
  std::int64_t k_per_scale = 0;      ///< 0: no promotion
  std::int64_t scale_blocks = 0;     ///< ceil(k / k_per_scale)
  const float* a_scales = nullptr;   ///< [row block][scale_blocks][rows of a block]
  const float* b_scales = nullptr;   ///< [scale_blocks][32]
  float* strip = nullptr;            ///< [row block][rows of a block][32] in an order of the machine's own
  bool last = false;                 ///< k_end ends the sum: write c
  const std::byte* ahead = nullptr;  ///< rows to be multiplied in place after these: worth bringing into L2 meanwhile
  std::int64_t ahead_bytes = 0;
  Output out;
};

/// The arithmetic of one variant.
struct Machine {
  bool CpuFeatures::*feature;  ///< what the processor must have, and its name; nullptr: nothing
  std::string_view feature_name;
  PackedMatrix::Layout layout;
  std::int64_t row_block;            ///< rows that are multiplied together
  std::int64_t row_element_bytes;    ///< of a packed value of the left ...
  std::int64_t panel_element_bytes;  ///< ... and of the right
  std::int64_t k_multiple;           ///< packed k is padded to it with zeros
  std::int64_t left_bytes;  ///< of L2 for the packed rows: the more, the less often panels come from further away
  /// The same where all panels stay in L2 as well (in half of left_bytes): nothing then speaks for large blocks.
  std::int64_t left_beside_panels_bytes;
  void (*enter)();  ///< on each worker before ...
  void (*leave)();  ///< ... and after its part
  /// Whether rows of `a` are better multiplied where they are, by so many panels; nullptr: never. Only whole row
  /// blocks.
  bool (*reads_in_place)(const Operand& a, std::int64_t panels);
  /// Rows [begin, begin + rows) into row blocks; rows past the operand's end become zeros.
  void (*pack_rows)(const Operand& a, std::int64_t begin, std::int64_t rows, void* to);
  /// The same from plain numbers with k a multiple of 32; nullptr where a machine cannot.
  void (*quantize_rows)(const Operand& a, const RowCast& cast, const RowsOfBlock& rows);
  /// Panels from `first_column` on, one behind the other.
  void (*pack_panels)(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);
  void (*multiply)(const PanelProduct& product);
};

/// An upper bound of the scratch that one worker's block of [m, k] takes on any machine.
std::int64_t workspace_bytes(std::int64_t m, std::int64_t k);
/// The same for the fresh panels of an [n, k] operand, and for what is kept for each problem.
std::int64_t panel_bytes(std::int64_t n, std::int64_t k);
std::int64_t problem_bytes(std::int64_t problems);

/// Runs all problems on one machine.
void run(const Machine& machine, std::span<const Problem> problems, Arena& scratch, Stream& stream);

/// Packs matrices, one operand each, behind each other into `into`.
void pack(const Machine& machine, std::span<const ConstScaledView> matrices, bool power_of_two, PackedMatrix& into,
          Stream& stream);

namespace portable {
extern const Machine machine;
}
#if defined(__x86_64__)
namespace avx512 {
extern const Machine machine;
}
namespace avx2 {
extern const Machine machine;
extern const Machine bf16_machine;
}  // namespace avx2
namespace amx {
extern const Machine machine;
}
#endif

/// The machine that `pack` and `gemm` agree on for a format, here and under the present pins.
const Machine& machine_for(DType dtype);

/// What the processor lacks for a machine, as a reason to decline; empty when it has it.
std::string lacks(const Machine& machine);
/// Why a machine cannot run this problem; empty when it can.
std::string refuses(const Machine& machine, const Problem& problem);

/// Throws unless shapes, formats and scales fit each other.
void check_problem(const Problem& problem, std::string_view op);

/// c (=|+=) a * b^T in double, one element after the other.
void reference(const Problem& problem);

}  // namespace shoestring::gemm_detail

namespace shoestring {

/// The inside of a PackedMatrix, for packing and for the driver. For each matrix the panels, then for each matrix its
/// scales: [panel][scale_blocks][32] f32, or one f32 (64 bytes) where k_per_scale is 0.
struct PackedMatrixAccess {
  using Layout = PackedMatrix::Layout;
  static std::byte* reserve(PackedMatrix& matrix, std::int64_t bytes, Device device) {
    if (matrix.storage_.bytes() < bytes || matrix.storage_.device() != device) {
      matrix.storage_ = Storage();  // the old memory goes first
      matrix.storage_ = Storage(bytes, device);
    }
    return static_cast<std::byte*>(matrix.storage_.data());
  }
  static void describe(PackedMatrix& matrix, Layout layout, std::int64_t matrices, std::int64_t n, std::int64_t k) {
    matrix.layout_ = layout;
    matrix.matrices_ = matrices;
    matrix.n_ = n;
    matrix.k_ = k;
  }
  static void scaled(PackedMatrix& matrix, bool folded, std::int64_t k_per_scale) {
    matrix.folded_ = folded;
    matrix.k_per_scale_ = k_per_scale;
  }
  static Layout layout(const PackedMatrix& matrix) { return matrix.layout_; }
  static bool folded(const PackedMatrix& matrix) { return matrix.folded_; }
  static std::int64_t k_per_scale(const PackedMatrix& matrix) { return matrix.k_per_scale_; }
  static std::int64_t matrices(const PackedMatrix& matrix) { return matrix.matrices_; }
  static std::int64_t n(const PackedMatrix& matrix) { return matrix.n_; }
  static std::int64_t k(const PackedMatrix& matrix) { return matrix.k_; }
  static const std::byte* data(const PackedMatrix& matrix) {
    return static_cast<const std::byte*>(matrix.storage_.data());
  }
};

}  // namespace shoestring
