// shoestring bench
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "core/training/metrics.h"
#include "core/training/run_resources.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/json.h"
#include "kernels/base/output_file.h"
#include "parallel/communicator_mpi.h"
#include "tools/arguments.h"
#include "tools/bench/bench_row.h"
#include "tools/bench/bench_suites.h"
#include "tools/bench/calibration.h"
#include "tools/bench/machine.h"
#include "tools/bench/plan_bench.h"
#include "tools/commands.h"
#include "tools/messages.h"
#include "tools/output_options.h"

namespace shoestring {
namespace {

/// "2026-11-29", UTC.
std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

/// As the kernel names it, with how many there are.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string model = "unknown processor";
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) model = line.substr(colon + 2);
  }
  return fmt::format("{}, {} logical processors", model, std::thread::hardware_concurrency());
}

std::string json_of(const std::vector<BenchRow>& rows, int threads) {
  Json list = Json::array();
  for (const BenchRow& row : rows) {
    if (!row.lacking.empty()) {
      list.push(Json::object({{"name", row.name}, {"over", row.over}, {"lacking", row.lacking}}));
      continue;
    }
    list.push(Json::object({{"name", row.name},
                            {"over", row.over},
                            {"median", row.median},
                            {"p10", row.p10},
                            {"p90", row.p90},
                            {"goal", row.goal},
                            {"at_most", row.at_most},
                            {"absolute", row.absolute},
                            {"unit", row.absolute_unit},
                            {"kept", row.kept},
                            {"dropped", row.dropped},
                            {"slow", row.slow},
                            {"slow_median", row.slow_median}}));
  }
  const Json json = Json::object({{"schema", "shoestring.bench/1"},
                                  {"date", today()},
                                  {"machine", processor_name()},
                                  {"cpu", cpu_features().to_string()},
                                  {"threads", threads},
                                  {"rows", std::move(list)}});
  return json.dump(1) + "\n";
}

void print_row(const BenchRow& row) {
  if (!row.lacking.empty()) {
    fmt::print("  {:<52} over {}: not on this processor ({})\n", row.name, row.over, row.lacking);
    return;
  }
  const std::string verdict = row.goal <= 0                                                     ? ""
                              : row.kept == 0                                                   ? "unmeasured"
                              : (row.at_most ? row.median <= row.goal : row.median >= row.goal) ? "reached"
                                                                                                : "MISSED";
  fmt::print("  {:<52} {:>8.3f} x {:<26} goal {:>6.2f} {:<8} p10 {:.3f} p90 {:.3f}  {:.3f} {}  ({} reps, {} dropped",
             row.name, row.median, row.over, row.goal, verdict, row.p10, row.p90, row.absolute, row.absolute_unit,
             row.kept, row.dropped);
  if (row.slow > 0) fmt::print("; {:.3f} in {} at slow pace", row.slow_median, row.slow);
  fmt::print(")\n");
  std::fflush(stdout);
}

/// Refuses a name that is no suite's before the suites named beside it are timed.
void check_suites(const Words& wanted, const std::string& names) {
  std::vector<std::string_view> known;
  for (const BenchSuite& suite : bench_suites()) known.push_back(suite.name);
  for (const std::string& name : wanted) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string_view near = nearest_word(name, known);
    fail(ExitCode::usage, "unknown suite {}{}; there are: {}", quote_name(name),
         near.empty() ? "" : fmt::format("; did you mean '{}'?", near), names);
  }
}

/// `shoestring bench --calibrate FILE`, alone or under mpirun: then of one rank while all of them work.
int calibrate(const std::filesystem::path& file, int threads) {
  const std::unique_ptr<Communicator> world = join_world();
  try {
    const int sharing = machine_share(*world).ranks_on_cores;
    Workers workers(threads > 0 ? threads : std::max(1, Workers::usable_cores() / sharing));
    if (world->rank() == 0) fmt::print("measuring this machine, some seconds\n");
    Hardware machine = measure_machine(*world, workers);
    if (world->rank() != 0) return 0;
    machine.description = fmt::format("{} of {}, {} ({} of {})", world->size() > 1 ? "one rank" : "all",
                                      processor_name(), cpu_features().to_string(),
                                      workers.count() == 1 ? "1 thread" : fmt::format("{} threads", workers.count()),
                                      world->size() > 1 ? fmt::format("each of {} ranks", world->size()) : "one rank");
    machine.source = "measured: `shoestring bench --calibrate`, registers only";
    machine.date = today();
    machine.achievable_source = machine.extent_source =
        "measured: square products of 128 to 2048 a side, weights packed";
    const std::string text = hardware_text(machine);
    write_output(file, text);
    fmt::print("\n{}\n{}: recipes in the folder above its own find it as budget.hardware = {}\n", text, file.string(),
               file.stem().string());
  } catch (const std::exception& exception) {
    if (world->size() == 1) throw;
    const Error error = as_error(exception);
    say("shoestring: rank {}: {}", world->rank(), error.what());
    world->abort(error.code(), error.what());
  }
  return 0;
}

/// `shoestring bench plan FILE.csv`.
int bench_plan(const std::string& file, const std::string& json) {
  const std::vector<PlanRow> rows = foretell(read_published_rows(file), "recipes");
  print_plan_rows(rows);
  if (!json.empty()) write_output(json, json_of(rows).dump(1) + "\n");
  return 0;
}

}  // namespace

int bench_command(const Words& words) {
  std::string names;
  for (const BenchSuite& suite : bench_suites()) names += (names.empty() ? "" : ", ") + std::string(suite.name);
  const Arguments arguments(
      {.command = "bench",
       .positional = "[SUITE...] | plan FILE.csv",
       .summary = "Times the program's hot parts as ratios to a calibration or a rival in the same "
                  "process.\nSuites: " +
                  names +
                  " (all).\nOr, with plan, how well the planner foretells published throughput: a table of "
                  "FILE.csv's rows.",
       .options = {{"json", "FILE", "write the rows there as well"},
                   {"calibrate", "FILE",
                    "time no suite but what this machine can do, and write it as a hardware file (of one rank among "
                    "those that mpirun starts): plans for this machine need it"},
                   {"threads", "N", "worker threads (all cores)"},
                   {"seconds", "S", "most seconds for each row (4)"},
                   {"llm-c", "DIR", "a checkout of llm.c, for the suite step"},
                   {"pytorch", "PYTHON", "an interpreter that has torch, for the suite step"},
                   {"pytorch-compile", "", "try torch.compile too (minutes), and keep what is fastest"}},
       .least = 0,
       .most = 100},
      words);
  if (arguments.helped()) return 0;
  const Words& wanted = arguments.positional();
  const int threads = static_cast<int>(arguments.integer("threads", 0, 0, 1024));
  if (arguments.has("calibrate")) {
    const std::filesystem::path file = arguments.text("calibrate");
    if (!wanted.empty()) fail(ExitCode::usage, "bench --calibrate takes no suite: leave out '{}'", wanted[0]);
    if (file.extension() != ".hardware") {
      fail(ExitCode::usage, "bench --calibrate {}: name a file that ends in .hardware", file.string());
    }
    check_outputs("bench", {{"--calibrate", file}});
    return calibrate(file, threads);
  }
  if (!wanted.empty() && wanted[0] == "plan") {
    if (wanted.size() != 2) {
      fail(ExitCode::usage, "bench plan takes one file: run `shoestring bench plan FILE.csv [--json FILE]`");
    }
    if (arguments.has("json")) check_outputs("bench", {{"--json", arguments.text("json")}}, {{"FILE.csv", wanted[1]}});
    return bench_plan(wanted[1], arguments.text("json", ""));
  }
  check_suites(wanted, names);
  if (arguments.has("json")) check_outputs("bench", {{"--json", arguments.text("json")}});
  Workers workers(threads);
  BenchEffort effort;
  effort.most_seconds = arguments.real("seconds", effort.most_seconds, 0.1, 3600, Unit::seconds);
  effort.rivals = {.llm_c = arguments.text("llm-c", ""),
                   .pytorch = arguments.text("pytorch", ""),
                   .pytorch_compiled = arguments.has("pytorch-compile")};
  std::vector<BenchRow> rows;
  ProgressLine line(stderr, true);
  for (const BenchSuite& suite : bench_suites()) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), suite.name) == wanted.end()) continue;
    int row_number = 1;
    effort.progress = [&](double seconds, double most) {
      line.update(fmt::format("{}: row {}, {:.0f} s of at most {:.0f}", suite.name, row_number, seconds, most),
                  now_seconds());
    };
    fmt::print("{}: {}\n", suite.name, suite.meaning);
    suite.run(workers, effort, [&](const BenchRow& row) {
      line.wipe();
      print_row(row);
      ++row_number;
      rows.push_back(row);
    });
  }
  if (arguments.has("json")) write_output(arguments.text("json"), json_of(rows, workers.count()));
  return 0;
}

}  // namespace shoestring
