// shoestring evaluate RUN-OR-FOLDER --suite FILE
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>

#include "core/generation/open_model.h"
#include "core/generation/suite_answers.h"
#include "core/recipe/names.h"
#include "core/training/work_progress.h"
#include "kernels/base/check.h"
#include "kernels/base/output_file.h"
#include "kernels/base/printable.h"
#include "tools/commands.h"
#include "tools/generation_options.h"
#include "tools/messages.h"
#include "tools/model_folder.h"
#include "tools/output_options.h"

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
  for (const TaskScores& task : tasks) width = std::max(width, printable(task.task).size());
  fmt::print("{:<{}} {:>8} {:<16} {:>10}   {}\n", "task", width, "requests", "metric", "value", "standard error");
  for (const TaskScores& task : tasks) {
    for (const auto& [name, measured] : task.scores) {
      fmt::print("{:<{}} {:>8} {:<16} {:>10.4f}   {}\n", printable(task.task), width, task.requests, name,
                 measured.value, measured.error < 0 ? "-" : fmt::format("{:.4f}", measured.error));
    }
  }
}

void check_files(const Arguments& arguments) {
  std::vector<NamedFile> outputs;
  for (const char* option : {"out", "samples"}) {
    if (arguments.has(option)) outputs.push_back({std::string("--") + option, arguments.text(option)});
  }
  check_outputs("evaluate", outputs, {{"--suite", arguments.text("suite")}});
}

/// Answers, scored; each goes to --samples as it comes, so that a stop in the middle loses none of them.
std::vector<TaskScores> answered(const AskedModel& asked, const std::vector<SuiteRequest>& requests,
                                 const Arguments& arguments) {
  const std::vector<SuiteTokens> tokens = tokens_of(asked, requests);
  std::int64_t cut = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    cut += leaves_out(requests[i], tokens[i], asked.forward.capacity()) ? 1 : 0;
  }
  if (cut > 0) {
    say("shoestring evaluate: of {} of {} requests the beginning of the context is left out, there is room for {} "
        "tokens: raise --context as far as the model has positions to have all of it",
        cut, requests.size(), asked.forward.capacity());
  }
  std::optional<OutputStream> samples;
  if (arguments.has("samples")) samples.emplace(arguments.text("samples"));
  WorkProgress line;
  const auto told = [&](std::size_t index, const SuiteAnswer& answer) {
    if (samples) samples->write(sample_document(requests[index], answer).dump() + "\n");
    line.show({.doing = "answering",
               .done_bytes = static_cast<std::int64_t>(index) + 1,
               .all_bytes = std::ssize(requests),
               .counted = "requests"});
  };
  const std::vector<SuiteAnswer> answers = answer_suite(asked, requests, tokens, told);
  line.wipe();
  if (samples) samples->finish();
  return score_suite(requests, answers);
}

}  // namespace

int evaluate_command(const Words& words) {
  std::vector<Option> options = {
      {"suite", "FILE", "requests, a line of JSON each: task, request_type, ... (needed)"},
      {"task", "NAME", "of this task only"},
      {"limit", "N", "the first N requests of each task"},
      {"out", "FILE", "results as JSON, in the form of lm-evaluation-harness"},
      {"samples", "FILE", "a line of JSON for each request and what came of it, as it comes"}};
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
  check_files(arguments);
  const std::vector<SuiteRequest> requests = chosen(read_suite(arguments.text("suite")), arguments.text("task"), limit);
  OpenModel model(model_folder_of(arguments.positional()[0]), opening_of(arguments));
  const AskedModel asked{model.forward(), model.tokenizer(), model.ids()};
  const std::vector<TaskScores> tasks = answered(asked, requests, arguments);
  print_table(tasks);
  if (!arguments.has("out")) return 0;
  Json document = suite_document(tasks);
  document.add("config", Json::object({{"model", arguments.positional()[0]},
                                       {"suite", arguments.text("suite")},
                                       {"precision", word(model.precision().policy)},
                                       {"max_length", model.forward().capacity()}}));
  write_output(arguments.text("out"), document.dump(1) + "\n");
  return 0;
}

}  // namespace shoestring
