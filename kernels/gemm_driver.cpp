// Idea: the right operand is packed into panels of 32 columns (once, or ahead of time), a block of left rows is packed
// into the L2 of the worker that multiplies it, and each panel passes by that block once. See gemm_problem.h for the
// layouts; a simpler source with the same order of loops is the portable machine's multiply.
#include <algorithm>
#include <atomic>
#include <new>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/gemm_f32.h"
#include "kernels/gemm_panels.h"
#include "kernels/gemm_problem.h"
#include "kernels/gemm_shares.h"

namespace shoestring {
namespace gemm_detail {
namespace {

using Access = PackedMatrixAccess;

constexpr std::int64_t kMaxBlockRows = 512;
constexpr std::int64_t kSymmetricRows = 48;     // small: of each block's square half is computed in vain
constexpr std::int64_t kBypassBytes = 4 << 20;  // c from here on is written around the cache
constexpr std::int64_t kFewRows = 64;           // packing them is nothing beside a pass over more columns

void pack_row_scales(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t row_block,
                     std::int64_t per_scale, std::int64_t blocks, float* to) {
  const bool own = a.scaling == Scaling::blocks && a.scale_dtype == DType::f32 && a.rows_per_scale == 1 &&
                   a.k_per_scale == per_scale;
  for (std::int64_t r = 0; r < round_up(rows, row_block); ++r) {
    float* out = to + (r / row_block * blocks) * row_block + r % row_block;
    const std::int64_t row = std::min(begin + r, a.rows - 1);
    if (own) {
      const float* scales = static_cast<const float*>(a.scales) + row * a.scale_row_stride;
      for (std::int64_t block = 0; block < blocks; ++block) out[block * row_block] = scales[block * a.scale_k_stride];
      continue;
    }
    for (std::int64_t block = 0; block < blocks; ++block) {
      out[block * row_block] = a.scaling == Scaling::none ? 1.0f : a.scale(row, block * per_scale);
    }
  }
}

/// A problem with everything decided; plain data, so that it can live in scratch.
struct Plan {
  const Problem* problem = nullptr;
  Operand a;
  Operand b;
  PanelShape panels;
  std::byte* fresh_panels = nullptr;  ///< to be packed here, or nullptr when packed already
  const std::byte* panel_values = nullptr;
  float* fresh_scales = nullptr;
  const float* panel_scales = nullptr;
  std::int64_t k_padded = 0;
  std::int64_t k_per_scale = 0;
  std::int64_t scale_blocks = 0;
  float factor = 1;
  std::int64_t block_rows = 0;
  std::int64_t row_blocks = 0;
  std::int64_t column_parts = 1;
  std::int64_t first_item = 0;  ///< blocks of work before this problem's
  std::int64_t first_pack = 0;  ///< groups of panels to pack before this problem's

  std::int64_t items() const { return row_blocks * column_parts; }
  std::int64_t packs() const { return fresh_panels == nullptr ? 0 : panels.groups(); }
};

/// Whether all panels stay in L2 beside a block of rows.
bool panels_stay(const Machine& machine, const PanelShape& panels) {
  return panels.value_bytes() <= machine.left_bytes / 2;
}

std::int64_t rows_of_block(const Machine& machine, std::int64_t m, std::int64_t k_padded, const PanelShape& panels,
                           int workers) {
  const std::int64_t bytes = panels_stay(machine, panels) ? machine.left_beside_panels_bytes : machine.left_bytes;
  const std::int64_t cached = bytes / std::max<std::int64_t>(1, k_padded * machine.row_element_bytes);
  const std::int64_t floor = 4 * kPanel;
  std::int64_t rows = std::clamp(cached, floor, kMaxBlockRows);
  rows = std::min(rows, std::max(floor, divide_up(m, std::int64_t{4} * workers)));
  rows = std::min(rows, divide_up(m, workers));
  return std::max(round_up(rows, machine.row_block), machine.row_block);
}

void decide_scales(const Machine& machine, Plan& plan) {
  const Problem& p = *plan.problem;
  plan.a = p.cast == nullptr ? operand_of(p.a, p.power_of_two_scales) : operand_of(p.a, *p.cast);
  std::int64_t b_per_scale = 0;
  if (p.packed_b == nullptr) {
    plan.b = operand_of(p.b, p.power_of_two_scales);
    b_per_scale = plan.b.scaling == Scaling::blocks ? plan.b.k_per_scale : 0;
  } else {
    b_per_scale = Access::k_per_scale(*p.packed_b);
  }
  const std::int64_t n = p.b.values.shape[0];
  const std::int64_t k = p.b.values.shape[1];
  const std::int64_t a_per_scale = plan.a.scaling == Scaling::blocks ? plan.a.k_per_scale : 0;
  plan.k_per_scale = a_per_scale == 0   ? b_per_scale
                     : b_per_scale == 0 ? a_per_scale
                                        : std::min(a_per_scale, b_per_scale);
  plan.scale_blocks = plan.k_per_scale == 0 ? 0 : divide_up(k, plan.k_per_scale);
  plan.panels = PanelShape(machine, n, k, p.packed_b == nullptr ? plan.k_per_scale : b_per_scale);
  if (plan.k_per_scale == 0 && plan.a.scaling == Scaling::uniform) plan.factor = plan.a.scale(0, 0);
}

void find_panels(Plan& plan, Arena& scratch) {
  const Problem& p = *plan.problem;
  const PanelShape& shape = plan.panels;
  const auto floats = [&](std::int64_t count) { return scratch.take(DType::f32, {count}).as<float>(); };
  if (p.packed_b == nullptr) {
    plan.fresh_panels = scratch.take(DType::u8, {shape.value_bytes()}).as<std::byte>();
    plan.panel_values = plan.fresh_panels;
    if (plan.scale_blocks != 0) plan.panel_scales = plan.fresh_scales = floats(shape.scale_bytes / 4);
    if (plan.scale_blocks == 0 && plan.b.scaling == Scaling::uniform) plan.factor *= plan.b.scale(0, 0);
    return;
  }
  const std::byte* data = Access::data(*p.packed_b);
  plan.panel_values = data + p.packed_index * shape.value_bytes();
  const auto* scales = reinterpret_cast<const float*>(data + Access::matrices(*p.packed_b) * shape.value_bytes() +
                                                      p.packed_index * shape.scale_bytes);
  if (plan.scale_blocks == 0) {
    plan.factor *= scales[0];
  } else if (shape.scale_blocks == plan.scale_blocks) {
    plan.panel_scales = scales;
  } else {  // one factor for b, or wider blocks than a's: spread over a's blocks
    float* spread = floats(shape.panels * plan.scale_blocks * kPanel);
    for (std::int64_t at = 0; at < shape.panels * plan.scale_blocks * kPanel; ++at) {
      const std::int64_t panel = at / (plan.scale_blocks * kPanel);
      const std::int64_t block = at / kPanel % plan.scale_blocks;
      const std::int64_t wide =
          shape.scale_blocks == 0 ? 0 : block * plan.k_per_scale / Access::k_per_scale(*p.packed_b);
      spread[at] =
          shape.scale_blocks == 0 ? scales[0] : scales[(panel * shape.scale_blocks + wide) * kPanel + at % kPanel];
    }
    plan.panel_scales = spread;
  }
}

/// A worker's own memory.
struct Workspace {
  std::byte* rows = nullptr;
  float* row_scales = nullptr;
  float* strips = nullptr;
};

/// Whether the rows of a block are multiplied where they are.
bool in_place(const Machine& machine, const Plan& plan, std::int64_t rows) {
  return machine.reads_in_place != nullptr && plan.problem->cast == nullptr && plan.k_per_scale == 0 &&
         rows % machine.row_block == 0 && machine.reads_in_place(plan.a, plan.panels.panels);
}

/// One block of rows times columns [first_panel, last_panel); of a symmetric c, those that are not left of the block.
void run_block(const Machine& machine, const Plan& plan, std::int64_t begin, std::int64_t first_panel,
               std::int64_t last_panel, const Workspace& space) {
  const Problem& p = *plan.problem;
  if (p.symmetric) first_panel = std::max(first_panel, begin / kPanel);
  if (first_panel >= last_panel) return;
  const std::int64_t rows = std::min(plan.block_rows, p.c.shape[0] - begin);
  const bool quantized = p.cast != nullptr;
  PanelProduct work;
  work.a = space.rows;
  work.a_block_bytes = plan.k_padded * machine.row_block * machine.row_element_bytes;
  if (quantized) {
    machine.quantize_rows(plan.a, *p.cast, {begin, rows, first_panel == 0, space.rows, space.row_scales});
  } else if (in_place(machine, plan, rows)) {
    work.a_row_bytes = plan.a.row_stride * size_bytes(plan.a.dtype);
    work.a = static_cast<const std::byte*>(plan.a.values) + begin * work.a_row_bytes;
    work.a_block_bytes = machine.row_block * work.a_row_bytes;
    const std::int64_t next_rows = std::min(plan.block_rows, p.c.shape[0] - begin - rows);
    work.ahead = static_cast<const std::byte*>(work.a) + rows * work.a_row_bytes;
    work.ahead_bytes = next_rows * work.a_row_bytes / (last_panel - first_panel);
  } else {
    machine.pack_rows(plan.a, begin, rows, space.rows);
  }
  if (plan.scale_blocks != 0 && !(quantized && plan.a.scaling == Scaling::blocks)) {
    pack_row_scales(plan.a, begin, rows, machine.row_block, plan.k_per_scale, plan.scale_blocks, space.row_scales);
  }
  work.rows = rows;
  work.b_is_near = panels_stay(machine, plan.panels);
  work.k_per_scale = plan.k_per_scale;
  work.scale_blocks = plan.scale_blocks;
  work.a_scales = space.row_scales;
  const bool is_long = plan.k_padded > kLongSum;
  const std::int64_t chunk = is_long ? kLongChunk : plan.k_padded;
  const std::int64_t group = is_long ? kLongPanels : 1;
  const std::int64_t strip_floats = round_up(plan.block_rows, machine.row_block) * kPanel;
  const std::int64_t c_bytes = size_bytes(p.c.dtype);
  work.out.row_stride = p.c.strides[0];
  work.out.dtype = p.c.dtype;
  work.out.accumulate = p.accumulate;
  work.out.bypass_cache = !p.accumulate && p.c.elements() * c_bytes >= kBypassBytes;
  work.out.factor = plan.factor;
  work.out.bias_dtype = p.bias.dtype;
  for (std::int64_t panel0 = first_panel; panel0 < last_panel; panel0 += group) {
    for (std::int64_t k0 = 0; k0 < plan.k_padded; k0 += chunk) {
      for (std::int64_t panel = panel0; panel < std::min(panel0 + group, last_panel); ++panel) {
        work.b = plan.panel_values + panel * plan.panels.panel_bytes;
        work.b_scales = plan.panel_scales == nullptr ? nullptr : plan.panel_scales + panel * plan.scale_blocks * kPanel;
        work.k_begin = k0;
        work.k_end = std::min(k0 + chunk, plan.k_padded);
        work.last = work.k_end == plan.k_padded;
        work.strip = space.strips + (panel - panel0) * strip_floats;
        const std::int64_t column = panel * kPanel;
        work.out.c = static_cast<std::byte*>(p.c.data) + (begin * p.c.strides[0] + column) * c_bytes;
        work.out.columns = std::min(kPanel, p.c.shape[1] - column);
        work.out.bias =
            p.bias.empty() ? nullptr : static_cast<const std::byte*>(p.bias.data) + column * size_bytes(p.bias.dtype);
        machine.multiply(work);
        if (work.last) work.ahead += work.ahead_bytes;
      }
    }
  }
}

/// What run_block left out of a block of rows: the columns before its first panel, from the rows that hold them.
template <class Element>
void mirror_block(const Plan& plan, std::int64_t begin) {
  constexpr std::int64_t kTile = 16;  // a line of f32
  const TensorView& c = plan.problem->c;
  const std::int64_t stride = c.strides[0];
  const std::int64_t end = std::min(begin + plan.block_rows, c.shape[0]);
  Element* const to = c.as<Element>();
  for (std::int64_t column0 = 0; column0 < begin / kPanel * kPanel; column0 += kTile) {
    for (std::int64_t row0 = begin; row0 < end; row0 += kTile) {
      for (std::int64_t row = row0; row < std::min(row0 + kTile, end); ++row) {
        for (std::int64_t column = column0; column < column0 + kTile; ++column) {
          to[row * stride + column] = to[column * stride + row];
        }
      }
    }
  }
}

void mirror(const Plan& plan, Workers& workers) {
  std::atomic<std::int64_t> next{0};
  workers.run([&](int) {
    for (std::int64_t block = next.fetch_add(1); block < plan.row_blocks; block = next.fetch_add(1)) {
      const std::int64_t begin = block * plan.block_rows;
      plan.problem->c.dtype == DType::bf16 ? mirror_block<BFloat16>(plan, begin) : mirror_block<float>(plan, begin);
    }
  });
}

/// Index of the plan that owns `item`: the last whose `first` is not behind it.
template <std::int64_t Plan::*first>
std::size_t owner(std::span<const Plan> plans, std::int64_t item) {
  const auto behind = std::ranges::upper_bound(plans, item, {}, first);
  return static_cast<std::size_t>(behind - plans.begin()) - 1;
}

struct Need {
  std::int64_t rows_bytes = 0;
  std::int64_t scale_floats = 0;
  std::int64_t strip_floats = 0;
};

void plan_blocks(const Machine& machine, Plan& plan, int workers, std::size_t problems, Need& need) {
  const Problem& p = *plan.problem;
  // Many problems keep all workers busy without being cut small. A few rows against many columns, as in generation,
  // are taken whole by every worker, and the columns shared: panels come from memory once for all.
  const std::int64_t rows = p.c.shape[0];
  const bool by_columns =
      problems == 1 && rows <= kFewRows && rows < p.c.shape[1] && plan.panels.panels >= std::int64_t{2} * workers;
  const int sharing = problems < 4 && !by_columns ? workers : 1;
  plan.block_rows = rows_of_block(machine, rows, plan.k_padded, plan.panels, sharing);
  if (p.symmetric) plan.block_rows = std::min(plan.block_rows, round_up(kSymmetricRows, machine.row_block));
  plan.row_blocks = divide_up(rows, plan.block_rows);
  if (problems == 1 && plan.row_blocks < workers) {
    plan.column_parts = std::min<std::int64_t>(divide_up(workers, plan.row_blocks), plan.panels.panels);
  }
  const std::int64_t strips = plan.k_padded > kLongSum ? kLongPanels : 1;
  need.rows_bytes = std::max(need.rows_bytes, plan.block_rows * plan.k_padded * machine.row_element_bytes);
  need.scale_floats = std::max(need.scale_floats, plan.block_rows * plan.scale_blocks);
  need.strip_floats = std::max(need.strip_floats, strips * plan.block_rows * kPanel);
}

void pack_fresh(const Machine& machine, std::span<const Plan> plans, std::int64_t total, Workers& workers) {
  if (total == 0) return;
  std::atomic<std::int64_t> next{0};
  workers.run([&](int) {
    for (std::int64_t item = next.fetch_add(1); item < total; item = next.fetch_add(1)) {
      const Plan& plan = plans[owner<&Plan::first_pack>(plans, item)];
      pack_panel_group(machine, plan.b, plan.panels, plan.k_per_scale, item - plan.first_pack, plan.fresh_panels,
                       plan.fresh_scales);
    }
  });
}

/// A sum of nothing.
void run_empty_sum(const Problem& p) {
  alignas(64) float zeros[kPanel] = {};
  for (std::int64_t row = 0; row < p.c.shape[0]; ++row) {
    for (std::int64_t column = 0; column < p.c.shape[1]; column += kPanel) {
      PanelProduct work;
      work.rows = 1;
      work.strip = zeros;
      work.out.c = static_cast<std::byte*>(p.c.data) + (row * p.c.strides[0] + column) * size_bytes(p.c.dtype);
      work.out.dtype = p.c.dtype;
      work.out.columns = std::min(kPanel, p.c.shape[1] - column);
      work.out.accumulate = p.accumulate;
      work.out.bias_dtype = p.bias.dtype;
      work.out.bias =
          p.bias.empty() ? nullptr : static_cast<const std::byte*>(p.bias.data) + column * size_bytes(p.bias.dtype);
      write_strip(work);
    }
  }
}

}  // namespace

void run(const Machine& machine, std::span<const Problem> problems, Arena& scratch, Stream& stream) {
  const Arena::Scope scope(scratch);
  Workers& workers = stream.workers();
  const auto count = static_cast<std::int64_t>(problems.size());
  auto* plans_begin = scratch.take(DType::u8, {count * static_cast<std::int64_t>(sizeof(Plan))}).as<Plan>();
  const std::span<Plan> plans(plans_begin, problems.size());
  Need need;
  std::int64_t items = 0;
  std::int64_t fresh = 0;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    Plan& plan = *new (&plans[i]) Plan;
    plan.problem = &problems[i];
    plan.first_item = items;
    plan.first_pack = fresh;
    if (problems[i].c.elements() == 0) continue;
    if (problems[i].a.values.shape[1] == 0) {
      run_empty_sum(problems[i]);
      continue;
    }
    decide_scales(machine, plan);
    find_panels(plan, scratch);
    plan.k_padded = round_up(problems[i].a.values.shape[1], machine.k_multiple);
    plan_blocks(machine, plan, workers.count(), problems.size(), need);
    items += plan.items();
    fresh += plan.packs();
  }
  if (items == 0) return;
  pack_fresh(machine, plans, fresh, workers);

  /// Room of one kind for each worker.
  struct Rooms {
    std::byte* begin;
    std::int64_t stride;
    std::byte* of(int worker) const { return begin + worker * stride; }
  };
  const auto rooms = [&](DType dtype, std::int64_t elements) {
    const std::int64_t stride = Arena::footprint(elements * size_bytes(dtype));
    return Rooms{scratch.take(DType::u8, {stride * workers.count()}).as<std::byte>(), stride};
  };
  const Rooms rows = rooms(DType::u8, need.rows_bytes);
  const Rooms scales = rooms(DType::f32, need.scale_floats);
  const Rooms strips = rooms(DType::f32, need.strip_floats);
  Shares shares(items, workers.count(), scratch);
  workers.run([&](int worker) {
    const Workspace space{rows.of(worker), reinterpret_cast<float*>(scales.of(worker)),
                          reinterpret_cast<float*>(strips.of(worker))};
    machine.enter();
    shares.work(worker, [&](std::int64_t item) {
      const Plan& plan = plans[owner<&Plan::first_item>(plans, item)];
      const std::int64_t part = (item - plan.first_item) % plan.column_parts;
      const std::int64_t block = (item - plan.first_item) / plan.column_parts;
      run_block(machine, plan, block * plan.block_rows, plan.panels.panels * part / plan.column_parts,
                plan.panels.panels * (part + 1) / plan.column_parts, space);
    });
    machine.leave();
  });
  for (const Plan& plan : plans) {
    if (plan.problem->symmetric && plan.items() > 0) mirror(plan, workers);
  }
}

std::int64_t problem_bytes(std::int64_t problems) {
  return Arena::footprint(problems * static_cast<std::int64_t>(sizeof(Plan))) +
         Arena::footprint(problems * static_cast<std::int64_t>(sizeof(Problem)));
}

std::int64_t workspace_bytes(std::int64_t m, std::int64_t k) {
  constexpr std::int64_t kMostLeft = 1 << 20;
  constexpr std::int64_t kElement = 4;
  constexpr std::int64_t kRowBlock = 32;
  const std::int64_t row_bytes = round_up(std::max<std::int64_t>(k, 1), 32) * kElement;
  const std::int64_t block = std::max(2 * kMostLeft, 4 * kPanel * row_bytes) + kRowBlock * row_bytes;
  const std::int64_t rows_bytes = std::min(block, (round_up(m, kRowBlock) + kRowBlock) * row_bytes);
  const std::int64_t scale_bytes = rows_bytes / 32 + (kMaxBlockRows + kRowBlock) * 4 * 2;
  const std::int64_t strip_bytes = (kLongPanels * 256 + kMaxBlockRows) * kPanel * 4;
  return Arena::footprint(rows_bytes) + Arena::footprint(scale_bytes) + Arena::footprint(strip_bytes) +
         Arena::footprint(Shares::bytes(1));
}

}  // namespace gemm_detail
}  // namespace shoestring
