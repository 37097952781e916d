#include "tools/bench/plan_bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace shoestring {
namespace {

double quantile(const std::vector<double>& sorted, double at) {
  const double place = at * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

std::vector<double> errors_of(const std::vector<PlanRow>& rows, double PlanRow::*member, const std::string& hardware) {
  std::vector<double> errors;
  for (const PlanRow& row : rows) {
    if (hardware.empty() || row.row.hardware == hardware) errors.push_back(row.*member);
  }
  return errors;
}

void print_summary(std::string_view what, const std::vector<PlanRow>& rows, const std::string& hardware) {
  const ErrorSummary ours = summary_of(errors_of(rows, &PlanRow::error, hardware));
  const ErrorSummary constant = summary_of(errors_of(rows, &PlanRow::constant_error, hardware));
  fmt::print("{:<24} {:>5} {:>8.1f}% {:>8.1f}% {:>8.1f}% {:>14.1f}% {:>8.1f}%\n", what,
             errors_of(rows, &PlanRow::error, hardware).size(), 100 * ours.median, 100 * ours.p90, 100 * ours.mean,
             100 * constant.median, 100 * constant.p90);
}

std::map<std::string, int> devices_of(const std::vector<PlanRow>& rows) {
  std::map<std::string, int> devices;
  for (const PlanRow& row : rows) ++devices[row.row.hardware];
  return devices;
}

Json json_of(const ErrorSummary& summary) {
  return Json::object({{"median", summary.median}, {"p90", summary.p90}, {"mean", summary.mean}});
}

}  // namespace

ErrorSummary summary_of(std::vector<double> errors) {
  if (errors.empty()) return {};
  ErrorSummary summary;
  for (double& error : errors) {
    error = std::abs(error);
    summary.mean += error / static_cast<double>(errors.size());
  }
  std::sort(errors.begin(), errors.end());
  summary.median = quantile(errors, 0.5);
  summary.p90 = quantile(errors, 0.9);
  return summary;
}

std::vector<PlanRow> foretell(const std::vector<PublishedRow>& rows, const std::filesystem::path& recipe_folder) {
  std::map<std::string, Hardware> known;
  std::map<std::string, std::vector<double>> speeds;  // FLOP/s of every row, by device and format
  std::vector<PlanRow> all;
  std::vector<double> achieved;
  const auto kind = [](const PublishedRow& row) {
    return fmt::format("{} {}", row.hardware, static_cast<int>(row.question.precision.policy));
  };
  for (const PublishedRow& row : rows) {
    if (!known.contains(row.hardware)) {
      known.emplace(row.hardware, read_hardware(find_hardware(row.hardware, recipe_folder)));
    }
    const StepEstimate estimate = estimate_step(row.question, known.at(row.hardware), *row.stack);
    const double measured = estimate.tokens / row.question.layout.devices / row.tokens_per_device_second;
    all.push_back({row, estimate.seconds.total(), estimate.seconds.total() / measured - 1, 0});
    // As utilisation is usually counted: attention over the full square.
    achieved.push_back((estimate.flops + estimate.attention_flops) / row.question.layout.devices / measured);
    speeds[kind(row)].push_back(achieved.back());
  }
  for (auto& [name, list] : speeds) std::sort(list.begin(), list.end());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].constant_error = achieved[i] / quantile(speeds[kind(all[i].row)], 0.5) - 1;
  }
  return all;
}

void print_plan_rows(const std::vector<PlanRow>& rows) {
  fmt::print("{:<14} {:<10} {:>5} {:>6} {:<44} {:>10} {:>10} {:>8}\n", "model", "device", "count", "seq", "layout",
             "tok/s/dev", "foretold", "error");
  for (const PlanRow& row : rows) {
    const PlanLayout& layout = row.row.question.layout;
    const double measured = row.row.tokens_per_device_second;
    fmt::print("{:<14} {:<10} {:>5} {:>6} {:<44} {:>10.0f} {:>10.0f} {:>+7.1f}%\n", row.row.name, row.row.hardware,
               layout.devices, row.row.question.sequence, to_string(layout), measured, measured / (1 + row.error),
               100 * row.error);
  }
  fmt::print(
      "\nabsolute error of step time; beside it, one utilisation for each device and format (the median of these "
      "very rows)\n");
  fmt::print("{:<24} {:>5} {:>9} {:>9} {:>9} {:>15} {:>9}\n", "", "rows", "median", "P90", "mean", "constant median",
             "P90");
  if (rows.empty()) return;
  print_summary("all", rows, "");
  for (const auto& [hardware, count] : devices_of(rows)) print_summary(hardware, rows, hardware);
  fmt::print("\nNo figure is fitted to a row. Constants of the software, and what they were fitted on:\n");
  for (const Stack& stack : stacks()) fmt::print("  {:<14} {}\n", stack.name, stack.source);
}

Json json_of(const std::vector<PlanRow>& rows) {
  Json list = Json::array();
  for (const PlanRow& row : rows) {
    list.push(Json::object({{"line", row.row.line},
                            {"model", row.row.name},
                            {"hardware", row.row.hardware},
                            {"stack", row.row.stack->name},
                            {"layout", to_string(row.row.question.layout)},
                            {"tokens_per_device_second", row.row.tokens_per_device_second},
                            {"step_seconds", row.seconds},
                            {"error", row.error},
                            {"constant_error", row.constant_error}}));
  }
  Json devices = Json::object();
  for (const auto& [hardware, count] : devices_of(rows)) {
    devices.add(hardware, json_of(summary_of(errors_of(rows, &PlanRow::error, hardware))));
  }
  return Json::object({{"schema", "shoestring.bench_plan/1"},
                       {"absolute_error", json_of(summary_of(errors_of(rows, &PlanRow::error, "")))},
                       {"constant_utilisation", json_of(summary_of(errors_of(rows, &PlanRow::constant_error, "")))},
                       {"by_hardware", std::move(devices)},
                       {"rows", std::move(list)}});
}

}  // namespace shoestring
