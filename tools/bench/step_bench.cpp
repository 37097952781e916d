#include "tools/bench/step_bench.h"

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "core/training/memory_plan.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "tools/bench/rival_process.h"
#include "tools/bench/step_setting.h"
#include "tools/bench/trained_model.h"

namespace shoestring {
namespace {

/// A number format of ours and what its steps should reach over a rival's; 0: judged by nobody.
struct Policy {
  const char* name;
  double over_llm_c;
  double over_pytorch;
  double unjudged = 0;
};
/// Of processors with tiles, and of those with AVX2 or AVX-512, which have one rate for all formats.
constexpr std::array kWithTiles = {Policy{"fp32", 8, 0}, Policy{"bf16", 0, 1.2}, Policy{"fp8_block", 25, 1.2}};
constexpr std::array kWithout = {Policy{"fp32", 5, 1.5}, Policy{"bf16", 5, 1.5}, Policy{"fp8_block", 0, 0}};

/// One of our models with what its steps came to.
struct Subject {
  const Policy& policy;
  std::unique_ptr<TrainedModel> model;
  Ratios over_llm_c;
  Ratios over_pytorch;
  Ratios alone;
};

std::vector<std::string> thread_settings() {
  const std::string count = std::to_string(StepSetting::kThreads);
  return {"OMP_NUM_THREADS=" + count, "MKL_NUM_THREADS=" + count};
}

/// llm.c has one shape: GPT-2's.
std::unique_ptr<RivalProcess> llm_c(const BenchRivals& rivals, const StepSetting& setting, const StepModel& model) {
  if (rivals.llm_c.empty() || &model != &kGpt2Shape) return nullptr;
  const std::string program = setting.file("llmc_step").string();
  const std::string log = setting.file("llmc.log").string();
  const int compiled =
      run_child({.words = {"gcc", "-Ofast", "-march=native", "-fopenmp", "-DTESTING", "-w", "-I" + rivals.llm_c,
                           beside_program("llmc_step.c").string(), "-o", program, "-lm"},
                 .environment = {},
                 .log = log});
  if (compiled != 0) fail(ExitCode::missing_input, "{}: train_gpt2.c does not compile, see gcc", rivals.llm_c);
  return std::make_unique<RivalProcess>(
      ChildCommand{.words = {program, setting.token_file(model).string(), std::to_string(model.batch),
                             std::to_string(model.sequence)},
                   .environment = thread_settings(),
                   .log = log});
}

std::unique_ptr<RivalProcess> pytorch(const BenchRivals& rivals, const StepSetting& setting, const StepModel& model) {
  if (rivals.pytorch.empty()) return nullptr;
  std::vector<std::string> words = {rivals.pytorch, beside_program("pytorch_step.py").string(),
                                    setting.token_file(model).string()};
  for (const int number : {StepSetting::kThreads, model.batch, model.sequence, model.layers, model.hidden, model.heads,
                           model.kv_heads, model.feed_forward, model.vocabulary}) {
    words.push_back(std::to_string(number));
  }
  if (rivals.pytorch_compiled) words.emplace_back("--compile");
  return std::make_unique<RivalProcess>(ChildCommand{
      .words = std::move(words), .environment = thread_settings(), .log = setting.file("pytorch.log").string()});
}

/// Our steps in turn, each against `rival_seconds` of just before; without a rival they are only timed.
void take_turns(std::vector<Subject>& subjects, double rival_seconds, Ratios Subject::*ratios) {
  for (Subject& subject : subjects) {
    const double seconds = subject.model->step();
    const double rate = static_cast<double>(subject.model->tokens_per_step()) / seconds;
    (subject.*ratios).add(rival_seconds / seconds, rate);
  }
}

void report_rows(const std::vector<Subject>& subjects, Ratios Subject::*ratios, double Policy::*goal,
                 const StepModel& model, const std::string& over, const BenchReport& report) {
  for (const Subject& subject : subjects) {
    report((subject.*ratios)
               .row(fmt::format("step {} {} {}x{}", model.name, subject.policy.name, model.batch, model.sequence), over,
                    subject.policy.*goal, "token/s"));
  }
}

void speed_rows(const BenchEffort& effort, const StepSetting& setting, const StepModel& model,
                const BenchReport& report) {
  std::vector<Subject> subjects;
  for (const Policy& policy : cpu_features().amx_bf16 ? kWithTiles : kWithout) {
    subjects.push_back({policy, std::make_unique<TrainedModel>(setting.dense(model, policy.name)), {}, {}, {}});
    subjects.back().model->step();  // memory becomes resident
  }
  const auto torch = pytorch(effort.rivals, setting, model);
  const auto plain = llm_c(effort.rivals, setting, model);
  for (int round = 0; round < model.rounds; ++round) {
    if (plain) take_turns(subjects, plain->step(), &Subject::over_llm_c);
    if (torch) take_turns(subjects, torch->step(), &Subject::over_pytorch);
    if (!plain && !torch) take_turns(subjects, 0, &Subject::alone);
  }
  if (plain) report_rows(subjects, &Subject::over_llm_c, &Policy::over_llm_c, model, plain->name(), report);
  if (torch) report_rows(subjects, &Subject::over_pytorch, &Policy::over_pytorch, model, torch->name(), report);
  if (!plain && !torch) {
    report_rows(subjects, &Subject::alone, &Policy::unjudged, model, "no rival (--llm-c DIR, --pytorch PYTHON)",
                report);
  }
}

MemoryPlan planned_memory(const Recipe& recipe) {
  const PhaseSpec& phase = recipe.phases.at(0);
  const std::int64_t vocabulary = load_tokenizer(recipe.data.tokenizer)->vocabulary_size();
  const Transformer model({.model = resolve_model(recipe.model, vocabulary, phase.sequence),
                           .precision = recipe.precision,
                           .run = {.tokens = phase.sequence * phase.micro_batch,
                                   .sequences = phase.micro_batch,
                                   .workers = recipe.run.threads},
                           .stages = 1,
                           .own_stages = {},
                           .in_flight = {},
                           .count_precision = recipe.precision.count_saturation});
  return plan_memory(model, recipe, layout_of(recipe, 0, 1));
}

/// What a run of `shoestring train` really held over what the accounting says of its recipe.
void memory_row(const std::string& name, const Recipe& recipe, const StepSetting& setting, const BenchReport& report) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string log = setting.file(name + ".log").string();
  long long peak = 0;
  const int code = run_child(
      {.words = {program, "train", setting.write(recipe, name + ".recipe").string()}, .environment = {}, .log = log},
      peak);
  if (code != 0) fail(ExitCode::bug, "the run of {} ended with exit code {}: see {}", name, code, log);
  const auto counted = static_cast<double>(planned_memory(recipe).total());
  report({.name = "peak memory of training, " + name,
          .over = "the accounting",
          .median = static_cast<double>(peak) / counted,
          .p10 = static_cast<double>(peak) / counted,
          .p90 = static_cast<double>(peak) / counted,
          .goal = 1.10,
          .absolute = static_cast<double>(peak) / (1 << 20),
          .absolute_unit = "MiB",
          .kept = 1,
          .dropped = 0,
          .at_most = true});
}

}  // namespace

void bench_step(Workers&, const BenchEffort& effort, const BenchReport& report) {
  const StepSetting setting;
  memory_row("gpt2_124m fp8_block", setting.dense(kGpt2Shape, "fp8_block"), setting, report);
  memory_row("tiny_moe", setting.tiny_moe(), setting, report);
  speed_rows(effort, setting, kTinyDense, report);
  speed_rows(effort, setting, kGpt2Shape, report);
}

}  // namespace shoestring
