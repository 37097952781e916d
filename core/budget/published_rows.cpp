#include "core/budget/published_rows.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>

#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMostBytes = 16 << 20;
constexpr std::size_t kMostMistakes = 100;
constexpr double kMostCount = 1e15;

constexpr std::array<std::string_view, 19> kNeeded = {"source",
                                                      "model",
                                                      "layers",
                                                      "hidden",
                                                      "heads",
                                                      "kv_heads",
                                                      "ffn",
                                                      "vocab",
                                                      "seq_len",
                                                      "gpus",
                                                      "gpu",
                                                      "precision",
                                                      "sharding",
                                                      "activation_checkpointing",
                                                      "cpu_offload",
                                                      "micro_batch",
                                                      "grad_accum",
                                                      "params",
                                                      "tokens_per_second_per_gpu"};
constexpr std::array<std::string_view, 15> kPossible = {"tensor",
                                                        "pipeline",
                                                        "chunks",
                                                        "context",
                                                        "expert",
                                                        "sequence_parallel",
                                                        "schedule",
                                                        "experts",
                                                        "experts_per_token",
                                                        "shared_experts",
                                                        "expert_ffn",
                                                        "dense_layers",
                                                        "stack",
                                                        "reported_mfu_percent",
                                                        "note"};

/// Cells of one line; a cell in double quotes may hold commas, and "" for a quote.
std::vector<std::string> cells_of(std::string_view line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char letter = line[i];
    if (quoted && letter == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      cells.back() += letter;
      ++i;
    } else if (letter == '"' && (quoted || cells.back().empty())) {
      quoted = !quoted;
    } else if (letter == ',' && !quoted) {
      cells.emplace_back();
    } else {
      cells.back() += letter;
    }
  }
  return cells;
}

/// The columns of the first line.
class Columns {
 public:
  Columns(std::string_view line, const std::string& where) {
    std::vector<std::string> wrong;
    std::vector<std::string_view> known(kNeeded.begin(), kNeeded.end());
    known.insert(known.end(), kPossible.begin(), kPossible.end());
    const std::vector<std::string> cells = cells_of(line);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (std::find(known.begin(), known.end(), cells[i]) == known.end()) {
        const std::string_view near = nearest_word(cells[i], known);
        wrong.push_back(fmt::format("unknown column {}{}", quote_name(cells[i]),
                                    near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
      } else if (!at_.emplace(cells[i], i).second) {
        wrong.push_back(fmt::format("column {} is given twice", quote_text(cells[i])));
      }
    }
    for (const std::string_view name : kNeeded) {
      if (!at_.contains(name)) wrong.push_back(fmt::format("column '{}' is missing", name));
    }
    count_ = cells.size();
    if (wrong.empty()) return;
    std::string text = fmt::format("{}:1 is no heading of published throughput:", where);
    for (std::size_t i = 0; i < wrong.size() && i < kMostMistakes; ++i) text += "\n  " + wrong[i];
    throw Error(ExitCode::bad_data, text);
  }

  std::size_t count() const { return count_; }
  std::optional<std::size_t> at(std::string_view name) const {
    const auto found = at_.find(name);
    return found == at_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::map<std::string, std::size_t, std::less<>> at_;
  std::size_t count_ = 0;
};

/// One line; keeps what is wrong with it.
class Line {
 public:
  Line(const Columns& columns, std::vector<std::string> cells, std::string where)
      : columns_(columns), cells_(std::move(cells)), where_(std::move(where)) {
    if (cells_.size() != columns.count()) {
      mistakes_.push_back(fmt::format("{}: has {} cells, the heading {}", where_, cells_.size(), columns.count()));
      cells_.resize(columns.count());
    }
  }

  const std::string& text(std::string_view column) const {
    static const std::string kNone;
    const auto at = columns_.at(column);
    return at ? cells_[*at] : kNone;
  }

  /// A number above `least`; `otherwise` where the cell is empty or the column is not there.
  double number(std::string_view column, double least, std::optional<double> otherwise = {}) {
    const std::string& cell = text(column);
    if (cell.empty() && otherwise) return *otherwise;
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    const bool whole = error == std::errc{} && end == cell.data() + cell.size() && std::isfinite(value);
    if (!whole || value < least || value > kMostCount) {
      wrong(column, fmt::format("must be a number from {} on", least));
      return std::max(least, 1.0);
    }
    return value;
  }
  int count(std::string_view column, int least, std::optional<double> otherwise = {}) {
    constexpr double kMostInt = 1 << 24;
    const double value = number(column, least, otherwise);
    if (value != std::floor(value) || value > kMostInt) {
      wrong(column, fmt::format("must be a whole number of at most {}", kMostInt));
      return std::max(least, 1);
    }
    return static_cast<int>(value);
  }

  void wrong(std::string_view column, std::string_view text_of_it) {
    mistakes_.push_back(fmt::format("{}: {} = {} {}", where_, column, quote_text(text(column)), text_of_it));
  }
  void wrong(std::string text_of_it) { mistakes_.push_back(fmt::format("{}: {}", where_, text_of_it)); }
  const std::vector<std::string>& mistakes() const { return mistakes_; }

 private:
  const Columns& columns_;
  std::vector<std::string> cells_;
  std::string where_;
  std::vector<std::string> mistakes_;
};

/// "a100-40gb" is a100_40, "h100-80gb" h100, "b200" b200: a memory size is kept where there are two of the name.
std::string hardware_stem(std::string gpu) {
  std::transform(gpu.begin(), gpu.end(), gpu.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::replace(gpu.begin(), gpu.end(), '-', '_');
  if (gpu.ends_with("gb")) gpu.resize(gpu.size() - 2);
  const std::size_t size = gpu.find('_');
  if (size != std::string::npos && !gpu.starts_with("a100") &&
      gpu.find_first_not_of("0123456789", size + 1) == std::string::npos) {
    gpu.resize(size);
  }
  return gpu;
}

const Stack& stack_of(Line& line) {
  const std::string& named = line.text("stack");
  if (named.empty()) {
    const auto from = [&](std::string_view source) { return line.text("source").find(source) != std::string::npos; };
    if (from("llm-foundry")) return stack_named("eager");
    if (from("2205.05198")) return stack_named("megatron_2022");
    if (line.number("experts", 0, 0) < 1) return stack_named("fused");
    return stack_named(line.text("gpu").starts_with("gb") ? "mixture_graphs" : "mixture_launches");
  }
  try {
    return stack_named(named);
  } catch (const Error& error) {
    line.wrong("stack", error.what());
    return stacks().front();
  }
}

void take_sharding(Line& line, PlanLayout& layout) {
  const std::string& text = line.text("sharding");
  constexpr std::pair<std::string_view, Sharding> kWords[] = {
      {"full_shard", Sharding::full}, {"zero3", Sharding::full},      {"fsdp", Sharding::full},
      {"zero1", Sharding::optimizer}, {"zero2", Sharding::optimizer}, {"optimizer", Sharding::optimizer},
      {"none", Sharding::none},       {"ddp", Sharding::none},        {"", Sharding::none}};
  constexpr std::pair<std::string_view, int PlanLayout::*> kAxes[] = {{"tp", &PlanLayout::tensor},
                                                                      {"pp", &PlanLayout::pipeline},
                                                                      {"vp", &PlanLayout::chunks},
                                                                      {"cp", &PlanLayout::context},
                                                                      {"ep", &PlanLayout::expert}};
  layout.sharding = Sharding::optimizer;
  std::string rest = text;
  for (const auto& [word, sharding] : kWords) {
    const std::size_t at = rest.find(word);
    if (word.empty() ? !rest.empty() : at == std::string::npos) continue;
    layout.sharding = sharding;
    rest.erase(at, word.size());
    break;
  }
  for (std::size_t begin = rest.find_first_not_of("_ +"); begin != std::string::npos;) {
    const std::size_t end = std::min(rest.find_first_of("_ +", begin), rest.size());
    const std::string_view word = std::string_view(rest).substr(begin, end - begin);
    const auto axis = std::find_if(std::begin(kAxes), std::end(kAxes),
                                   [&](const auto& known) { return word.starts_with(known.first); });
    int size = 0;
    if (axis != std::end(kAxes)) std::from_chars(word.data() + 2, word.data() + word.size(), size);
    if (size < 1) {
      line.wrong("sharding",
                 "knows full_shard, zero1, zero2, zero3, fsdp, ddp, none, and axes such as tp8_pp4_vp2_cp2_ep8");
      return;
    }
    layout.*axis->second = size;
    begin = rest.find_first_not_of("_ +", end);
  }
}

void take_layout(Line& line, PlanLayout& layout) {
  take_sharding(line, layout);
  layout.devices = line.count("gpus", 1);
  layout.tensor = line.count("tensor", 1, layout.tensor);
  layout.pipeline = line.count("pipeline", 1, layout.pipeline);
  layout.chunks = line.count("chunks", 1, layout.chunks);
  layout.context = line.count("context", 1, layout.context);
  layout.expert = line.count("expert", 1, layout.expert);
  layout.micro_batch = line.count("micro_batch", 1);
  layout.micro_batches = line.count("grad_accum", 1);
  layout.sequence_parallel = line.text("sequence_parallel") != "false";
  if (layout.chunks > 1) layout.schedule = ScheduleName::interleaved;
  if (const std::string& word = line.text("schedule"); !word.empty()) {
    const auto words = enum_words<ScheduleName>();
    const auto found = std::find(words.begin(), words.end(), word);
    if (found == words.end())
      line.wrong("schedule", "is none that the planner knows");
    else
      layout.schedule = static_cast<ScheduleName>(found - words.begin());
  }
  const std::string& again = line.text("activation_checkpointing");
  if (again == "true" || again == "full")
    layout.recompute = Recompute::full;
  else if (again == "selective")
    layout.recompute = Recompute::selective;
  else if (again != "false" && again != "none")
    line.wrong("activation_checkpointing", "must be true, false or selective");
}

void take_precision(Line& line, PrecisionSpec& precision) {
  const std::string& word = line.text("precision");
  if (word == "bf16" || word == "fp16")
    precision.policy = PrecisionPolicy::bf16;
  else if (word == "fp32")
    precision.policy = PrecisionPolicy::fp32;
  else if (word.starts_with("fp8"))
    precision.policy = PrecisionPolicy::fp8_tensor;
  else if (word == "mxfp8")
    precision.policy = PrecisionPolicy::mxfp8;
  else
    line.wrong("precision", "must be fp32, bf16, fp16, fp8 or mxfp8");
}

double parameters_of(const PlannedModel& model, double positions) {
  const ModelConfig& c = model.config;
  const auto hidden = static_cast<double>(c.hidden);
  const double attention = hidden * static_cast<double>(c.heads * c.qk_dim + 2 * c.kv_heads * c.qk_dim) +
                           hidden * static_cast<double>(c.heads * c.v_dim);
  const double matrices = model.gated ? 3 : 2;
  const double dense = matrices * hidden * static_cast<double>(c.feed_forward);
  const double mixture =
      matrices * hidden * static_cast<double>(c.expert_feed_forward * (c.experts + c.shared_experts));
  const auto mixtures = static_cast<double>(c.mixtures());
  return static_cast<double>(c.layers) * attention + mixtures * mixture +
         (static_cast<double>(c.layers) - mixtures) * dense +
         static_cast<double>(c.vocabulary) * hidden * (c.tie_embeddings ? 1 : 2) +
         (model.learned_positions ? positions * hidden : 0);
}

/// Of the models that the columns leave possible, the one with the nearest count.
void choose_variant(PlannedModel& model, double parameters, double positions) {
  constexpr std::int64_t kUsualHead = 128;  // where heads are not as wide as the hidden size shared out
  double nearest = INFINITY;
  const PlannedModel base = model;
  for (int i = 0; i < 16; ++i) {
    PlannedModel candidate = base;
    if ((i & 8) != 0) candidate.config.qk_dim = candidate.config.v_dim = kUsualHead;
    candidate.gated = (i & 1) != 0 || base.config.experts > 0;
    candidate.config.tie_embeddings = (i & 2) != 0;
    candidate.learned_positions = (i & 4) != 0;
    const double off = std::abs(std::log(parameters_of(candidate, positions) / parameters));
    if (off >= nearest) continue;
    nearest = off;
    model = candidate;
  }
}

PublishedRow take_row(Line& line) {
  PublishedRow row;
  row.source = line.text("source");
  row.name = line.text("model");
  row.hardware = hardware_stem(line.text("gpu"));
  row.stack = &stack_of(line);
  StepQuestion& question = row.question;
  ModelConfig& c = question.model.config;
  c.layers = line.count("layers", 1);
  c.hidden = line.count("hidden", 1);
  c.heads = line.count("heads", 1);
  c.kv_heads = line.count("kv_heads", 1);
  c.feed_forward = line.count("ffn", 1);
  c.vocabulary = line.count("vocab", 1);
  c.experts = line.count("experts", 0, 0);
  c.experts_per_token = line.count("experts_per_token", 0, 0);
  c.shared_experts = line.count("shared_experts", 0, 0);
  c.expert_feed_forward = line.count("expert_ffn", 0, static_cast<double>(c.experts > 0 ? c.feed_forward : 0));
  c.dense_layers = line.count("dense_layers", 0, 0);
  if (c.experts > 0 && (c.experts_per_token < 1 || c.experts_per_token > c.experts)) {
    line.wrong("experts_per_token", "must be from 1 to the experts");
  }
  c.qk_dim = c.v_dim = std::max<std::int64_t>(1, c.hidden / c.heads);
  question.sequence = line.count("seq_len", 1);
  c.max_positions = static_cast<std::int64_t>(question.sequence);
  take_layout(line, question.layout);
  take_precision(line, question.precision);
  if (line.text("cpu_offload") == "true") line.wrong("cpu_offload", "is not understood: leave the row out");
  choose_variant(question.model, line.number("params", 1), question.sequence);
  row.tokens_per_device_second = line.number("tokens_per_second_per_gpu", 1e-9);
  if (line.mistakes().empty()) {
    const std::string reason = impossible(question);
    if (!reason.empty()) line.wrong("the layout cannot be: " + reason);
  }
  return row;
}

}  // namespace

std::vector<PublishedRow> read_published_rows(const std::filesystem::path& file) {
  const std::string text = read_file(file, kMostBytes);
  std::vector<PublishedRow> rows;
  std::vector<std::string> mistakes;
  std::optional<Columns> columns;
  int number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view content = std::string_view(text).substr(begin, end - begin);
    if (content.ends_with('\r')) content.remove_suffix(1);
    begin = end + 1;
    ++number;
    if (content.empty()) continue;
    if (!columns) {
      columns.emplace(content, file.string());
      continue;
    }
    Line line(*columns, cells_of(content), fmt::format("{}:{}", file.string(), number));
    PublishedRow row = take_row(line);
    row.line = number;
    mistakes.insert(mistakes.end(), line.mistakes().begin(), line.mistakes().end());
    rows.push_back(std::move(row));
  }
  if (rows.empty() && mistakes.empty()) {
    fail(ExitCode::bad_data, "{}: holds no rows: give a heading and one line per job", file.string());
  }
  if (mistakes.empty()) return rows;
  std::string all = fmt::format("{} cannot be read:", file.string());
  for (std::size_t i = 0; i < mistakes.size() && i < kMostMistakes; ++i) all += "\n  " + mistakes[i];
  throw Error(ExitCode::bad_data, all);
}

}  // namespace shoestring
