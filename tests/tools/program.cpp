#include "tests/tools/program.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/budget/ledger_history.h"
#include "core/budget/meter.h"
#include "core/training/checkpoint.h"
#include "core/training/watch.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kTries = 12000;  // of 0.01 s: what is waited for takes far less, on any machine

double now() { return system_clock().monotonic_seconds(); }

int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

constexpr const char* kRecipe = R"([run]
name = small
seed = 5
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
hardware = cpu
[kernels]
allow_reference = yes
[model]
architecture = llama
layers = 2
hidden = 64
heads = 2
kv_heads = 1
feed_forward = 128
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 4
[data]
train = shards/train
validation = shards/validation
[optimizer]
weight_decay = 0.1
[schedule]
kind = cosine
horizon = steps
learning_rate = 1e-3
warmup_steps = 4
[phase.pretrain]
sequence = 64
micro_batch = 2
global_batch = 8
steps = 20
[checkpoint]
every_steps = 5
keep = 2
)";

}  // namespace

std::function<void()> after(double seconds) {
  return [=] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
}

Workplace::Workplace() {
  for (int file = 0; file < 40; ++file) {
    std::string text;
    for (int line = 0; line < 40; ++line) {
      text += "int value_" + std::to_string(file * 131 + line * line) + " = compute(" + std::to_string(line * file) +
              ");\n";
    }
    write_text(path() / "text" / (std::to_string(file) + ".c"), text);
  }
  write_text(path() / "small.recipe", kRecipe);
  fs::create_directories(path() / "hardware");
  fs::copy(fs::path(SHOESTRING_SOURCE_DIR) / "recipes/hardware/cpu.hardware", path() / "hardware/cpu.hardware");
  const Ended built = run("data build text --out shards --tokenizer bytes --hold-out 0.1 --threads 1");
  check(built.exit_code == 0, "the shards of the test could not be built: {}", built.output);
}

Ended Workplace::run(const std::string& arguments, const std::string& prefix) const {
  const std::string command = "cd '" + path().string() + "' && { " + (prefix.empty() ? "exec" : prefix) + " '" +
                              SHOESTRING_PROGRAM + "' " + arguments + "; } 2>&1 </dev/null";
  const double begin = now();
  std::FILE* pipe = popen(command.c_str(), "r");
  Ended ended;
  char buffer[4096];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) ended.output.append(buffer, got);
  ended.exit_code = code_of(pclose(pipe));
  ended.seconds = now() - begin;
  return ended;
}

Ended Workplace::interrupt(const std::string& name, const std::string& arguments, int signal,
                           const std::function<void()>& meanwhile, const std::string& prefix) const {
  const fs::path log = path() / "interrupted.log";
  const auto attempts = [&] { return read_ledger(run_folder(name)).attempts.size(); };
  const std::size_t attempts_before = attempts();
  const double begin = now();
  const pid_t child = fork();
  if (child == 0) {
    const std::string command = "cd '" + path().string() + "' && exec " + prefix + " '" + SHOESTRING_PROGRAM + "' " +
                                arguments + " >'" + log.string() + "' 2>&1 </dev/null";
    for (const int number : {SIGINT, SIGHUP})
      std::signal(number, SIG_DFL);  // ignored where tests run in the background
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  pid_t gone = 0;
  while (gone == 0 && attempts() == attempts_before) {
    after(0.002)();
    gone = waitpid(child, &status, WNOHANG);
  }
  if (gone == 0) {
    meanwhile();
    kill(child, signal);
    waitpid(child, &status, 0);
  }
  const double seconds = now() - begin;
  return {code_of(status), read_text(log), seconds};
}

std::string Workplace::train(const std::string& name, const std::string& overrides) const {
  return "train small.recipe --run.name=" + name + " " + overrides;
}

TrainedWorkplace::TrainedWorkplace(const std::string& name) {
  const Ended trained = run(train(name));
  check(trained.exit_code == 0, "the run of the test could not be trained: {}", trained.output);
}

std::map<std::string, std::string> Workplace::result(const std::string& name) const {
  std::map<std::string, std::string> result;
  const CheckpointStore store(run_folder(name) / "checkpoints");
  const auto newest = store.newest([](const std::string&) {});
  check(newest.has_value(), "run {} has no checkpoint", name);
  result["checkpoint"] = newest->filename().string();
  for (const auto& [part, file] :
       {std::pair{"weights", "model.safetensors"}, std::pair{"optimizer", "training/optimizer.safetensors"}}) {
    if (exists(*newest / file)) result[part] = hash_file(*newest / file);  // several ranks write parts
  }
  std::istringstream lines(read_text(run_folder(name) / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(line);
    json.erase("timing");
    result["metrics"] += json.dump() + "\n";
  }
  return result;
}

void wait_for_step(const Workplace& place, const std::string& name) {
  const auto running = [&] {
    const AttemptHistory& attempt = read_ledger(place.run_folder(name)).attempts.back();
    return attempt.last().step == 0 && attempt.state == AttemptState::running;
  };
  while (running()) after(0.01)();
}

void wait_for_checkpoint(const Workplace& place, const std::string& name) {
  const fs::path folder = place.run_folder(name) / "checkpoints";
  for (int tries = 0; tries < kTries && CheckpointStore(folder).all().empty(); ++tries) after(0.01)();
}

std::int64_t saved_step(const Workplace& place, const std::string& name) {
  const auto newest = CheckpointStore(place.run_folder(name) / "checkpoints").newest([](const std::string&) {});
  return newest ? step_of(*newest) : 0;
}

int process_of_rank(const Workplace& place, const std::string& name, int rank) {
  const SignFolder folder(place.run_folder(name) / kRanksFolder);
  for (int tries = 0; tries < kTries; ++tries) {
    const auto sign = folder.read(rank);
    if (sign && sign->doing.find("step") != std::string::npos) return static_cast<int>(sign->process);
    after(0.01)();
  }
  fail(ExitCode::missing_input, "rank {} of run {} left no sign", rank, name);
}

bool is_gone(int process) {
  for (int tries = 0; tries < kTries; ++tries) {
    if (kill(process, 0) != 0 && errno == ESRCH) return true;
    after(0.01)();
  }
  return false;
}

double hours_of_steps(const nlohmann::json& report) {
  double hours = 0;
  for (const auto& [category, spent] : report.at("categories").items()) {
    if (category != "evaluation" && category != "checkpoint") hours += spent.get<double>();
  }
  return hours;
}

double slowest_step_hours(const Workplace& place, const std::string& name) {
  double slowest = 0;
  std::istringstream lines(read_text(place.run_folder(name) / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json.contains("timing") && json["timing"].contains("step_seconds")) {
      slowest = std::max(slowest, json["timing"]["step_seconds"].get<double>());
    }
  }
  return slowest / 3600;
}

}  // namespace shoestring::testing
