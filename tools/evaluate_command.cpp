// shoestring evaluate RUN-OR-FOLDER --suite FILE
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "core/generation/open_model.h"
#include "core/generation/suite_run.h"
#include "core/recipe/names.h"
#include "core/training/work_progress.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tools/commands.h"
#include "tools/generation_options.h"
#include "tools/model_folder.h"

namespace shoestring {
namespace {

/// The requests of one task, or of all; of each the first `limit`.
std::vector<SuiteRequest> chosen(std::vector<SuiteRequest> all, const std::string& task, std::int64_t limit) {
  std::map<std::string, std::int64_t> taken;
  std::set<std::string> tasks;
  for (const SuiteRequest& request : all) tasks.insert(request.task);
  std::erase_if(all, [&](const SuiteRequest& request) {
    return (!task.empty() && request.task != task) || taken[request.task]++ >= limit;
  });
  if (all.empty())
    fail(ExitCode::usage, "--task {}: the suite has no such; choose one of {}", task, fmt::join(tasks, ", "));
  return all;
}

void print_table(const std::vector<TaskScores>& tasks) {
  std::size_t width = 4;
  for (const TaskScores& task : tasks) width = std::max(width, task.task.size());
  fmt::print("{:<{}} {:>8} {:<16} {:>10}   {}\n", "task", width, "requests", "metric", "value", "standard error");
  for (const TaskScores& task : tasks) {
    for (const auto& [name, measured] : task.scores) {
      fmt::print("{:<{}} {:>8} {:<16} {:>10.4f}   {}\n", task.task, width, task.requests, name, measured.value,
                 measured.error < 0 ? "-" : fmt::format("{:.4f}", measured.error));
    }
  }
}

}  // namespace

int evaluate_command(const Words& words) {
  std::vector<Option> options = {{"suite", "FILE", "requests, a line of JSON each: task, request_type, ... (needed)"},
                                 {"task", "NAME", "of this task only"},
                                 {"limit", "N", "the first N requests of each task"},
                                 {"out", "FILE", "results as JSON, in the form of lm-evaluation-harness"},
                                 {"samples", "FILE", "a line of JSON for each request and what came of it"}};
  for (const Option& option : opening_options()) options.push_back(option);
  const Arguments arguments({.command = "evaluate",
                             .positional = "RUN-OR-FOLDER",
                             .summary = "Asks a model questions with known answers, and scores it as\n"
                                        "lm-evaluation-harness does.",
                             .options = options,
                             .least = 1,
                             .most = 1},
                            words);
  if (arguments.helped()) return 0;
  if (!arguments.has("suite")) fail(ExitCode::usage, "evaluate: --suite FILE is needed");
  const std::int64_t limit = arguments.integer("limit", std::int64_t{1} << 40, 1, std::int64_t{1} << 40);
  const std::vector<SuiteRequest> requests = chosen(read_suite(arguments.text("suite")), arguments.text("task"), limit);
  OpenModel model(model_folder_of(arguments.positional()[0]), opening_of(arguments));
  WorkProgress line;
  const AskedModel asked{model.forward(), model.tokenizer(), model.ids()};
  const std::vector<SuiteAnswer> answers = answer_suite(asked, requests, [&](std::size_t done) {
    line.show({.doing = "answering",
               .done_bytes = static_cast<std::int64_t>(done),
               .all_bytes = std::ssize(requests),
               .counted = "requests"});
  });
  line.wipe();
  const std::vector<TaskScores> tasks = score_suite(requests, answers);
  print_table(tasks);
  if (arguments.has("out")) {
    Json document = suite_document(tasks);
    document.add("config", Json::object({{"model", arguments.positional()[0]},
                                         {"suite", arguments.text("suite")},
                                         {"precision", word(model.precision().policy)},
                                         {"max_length", model.forward().capacity()}}));
    replace_file(arguments.text("out"), document.dump(1) + "\n");
  }
  if (!arguments.has("samples")) return 0;
  std::string lines;
  for (std::size_t i = 0; i < requests.size(); ++i) lines += sample_document(requests[i], answers[i]).dump() + "\n";
  replace_file(arguments.text("samples"), lines);
  return 0;
}

}  // namespace shoestring
