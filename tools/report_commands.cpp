// shoestring report | explain
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "core/budget/report.h"
#include "core/budget/run_summary.h"
#include "core/recipe/explain.h"
#include "core/recipe/installed.h"
#include "core/recipe/parse.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/messages.h"

namespace shoestring {

namespace {

constexpr double kWatchSeconds = 5;

/// Where it cannot be stored, as on a read-only place, a report is still a report.
template <class Store>
void store(const Store& storing) {
  try {
    storing();
  } catch (const Error& error) {
    say("shoestring: the report was not stored: {}", error.what());
  }
}

/// Rewrites the files until the run is over.
Report watch(const std::filesystem::path& run, double seconds) {
  const int refresh = std::max(1, static_cast<int>(seconds));
  while (true) {
    Report report = make_report(run);
    if (report.state != "running") return report;
    store([&] { write_report(run, report, refresh); });
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
}

int report_folder(const Arguments& arguments) {
  const std::filesystem::path directory = arguments.positional()[0];
  const Folder folder = read_folder(directory);
  fmt::print("{}", arguments.has("json")   ? folder_json(folder)
                   : arguments.has("html") ? folder_html(folder)
                   : arguments.has("csv")  ? summaries_csv(folder.runs)
                                           : folder_text(folder));
  store([&] {
    replace_file(directory / "report.json", folder_json(folder));
    replace_file(directory / "report.html", folder_html(folder));
  });
  return 0;
}

}  // namespace

int report_command(const Words& words) {
  const Arguments arguments(
      {.command = "report",
       .positional = "RUN [OTHER...]",
       .summary = "What the run in directory RUN cost and bought, from its ledger: also for a run "
                  "that is going on, failed or died.\nWrites report.json and report.html into it.",
       .options = {{"json", "", "print the JSON document"},
                   {"html", "", "print the HTML page"},
                   {"csv", "", "print one line a run, for a spreadsheet"},
                   {"compare", "", "set the OTHER runs beside RUN"},
                   {"all", "", "RUN is a folder of runs: sum them by project"},
                   {"watch", "", "rewrite the page every five seconds until the run is over"}},
       .least = 1,
       .most = 16},
      words);
  if (arguments.helped()) return 0;
  const std::vector<std::string>& runs = arguments.positional();
  if ((runs.size() > 1) != arguments.has("compare")) {
    fail(ExitCode::usage,
         "report: --compare takes two runs or more, and several runs need it; --all takes a folder of runs");
  }
  if (arguments.has("all")) {
    if (arguments.has("watch") || runs.size() > 1)
      fail(ExitCode::usage, "report: give --all one folder, and no --watch");
    return report_folder(arguments);
  }
  Report report = arguments.has("watch") ? watch(runs[0], kWatchSeconds) : make_report(runs[0]);
  std::vector<Report> others;
  for (std::size_t i = 1; i < runs.size(); ++i) others.push_back(make_report(runs[i]));
  if (!others.empty()) compare(report, others);
  const std::vector<RunSummary> own = {summary_of(report)};
  fmt::print("{}", arguments.has("json")      ? report_json(report)
                   : arguments.has("html")    ? report_html(report)
                   : arguments.has("csv")     ? summaries_csv(others.empty() ? own : report.compared)
                   : arguments.has("compare") ? comparison_text(report.compared)
                                              : report_text(report));
  store([&] { write_report(runs[0], report); });
  return 0;
}

int explain_command(const Words& words) {
  const Arguments arguments(
      {.command = "explain",
       .positional = "RECIPE [KEY]",
       .summary = "The effective value of a key (or of a section, or of every key), where it came "
                  "from and what it means.",
       .options = {},
       .least = 1,
       .most = 2,
       .recipe_overrides = true},
      words);
  if (arguments.helped()) return 0;
  const RecipeReading reading = parse_recipe(find_recipe(arguments.positional()[0]), arguments.overrides());
  fmt::print("{}", explain(reading, arguments.positional().size() > 1 ? arguments.positional()[1] : ""));
  return 0;
}

}  // namespace shoestring
