#include "tools/bench/step_setting.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <string_view>
#include <vector>

#include "core/recipe/explain.h"
#include "core/recipe/parse.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kWords = 50257;  // GPT-2's; folded where a vocabulary is smaller
constexpr int kDemoVocabulary = 4096;
constexpr std::uint32_t kEnd = 0;
constexpr std::size_t kTokens = 200000;
constexpr const char* kText = "/usr/include";

constexpr const char* kDense = R"([run]
name = {name}_{policy}
threads = {threads}
tensorboard = no
[budget]
gpu_hours = 10
[model]
architecture = llama
vocabulary = {vocabulary}
layers = {layers}
hidden = {hidden}
heads = {heads}
kv_heads = {kv_heads}
feed_forward = {feed_forward}
tie_embeddings = yes
init_std = 0.02
[precision]
policy = {policy}
[data]
train = .
document_mask = no
[schedule]
kind = constant
horizon = steps
learning_rate = 3e-4
[phase.pretrain]
sequence = {sequence}
micro_batch = {batch}
global_batch = {batch}
steps = 3
[checkpoint]
keep = 1
)";

bool of_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Appends the ids of the words, runs of spaces and single signs of `text`.
void number_words(std::string_view text, std::map<std::string, std::uint32_t, std::less<>>& ids,
                  std::vector<std::uint32_t>& tokens) {
  for (std::size_t begin = 0; begin < text.size() && tokens.size() < kTokens;) {
    std::size_t end = begin + 1;
    if (of_word(text[begin])) {
      while (end < text.size() && of_word(text[end])) ++end;
    } else if (text[begin] == ' ') {
      while (end < text.size() && text[end] == ' ') ++end;
    }
    const auto next = static_cast<std::uint32_t>(1 + ids.size() % (kWords - 1));
    tokens.push_back(ids.try_emplace(std::string(text.substr(begin, end - begin)), next).first->second);
    begin = end;
  }
}

std::vector<std::uint32_t> read_text() {
  std::vector<fs::path> files;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(kText, unreadable)) {
    if (entry.is_regular_file() && entry.path().extension() == ".h") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::map<std::string, std::uint32_t, std::less<>> ids;
  std::vector<std::uint32_t> tokens;
  for (const fs::path& file : files) {
    if (fs::is_symlink(file) || tokens.size() >= kTokens) continue;
    number_words(read_file(file, std::int64_t{16} << 20), ids, tokens);
  }
  if (tokens.size() < kTokens)
    fail(ExitCode::missing_input, "{} holds too little text: {} words, of {} that are needed", kText, tokens.size(),
         kTokens);
  return tokens;
}

}  // namespace

fs::path beside_program(const std::string& name) {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path();
  const fs::path built = program / "bench" / name;
  return type_of(built) == fs::file_type::regular ? built : program.parent_path() / "share/shoestring/bench" / name;
}

StepSetting::StepSetting() : folder_("shoestring_step_") { write_tokens(); }

void StepSetting::write_tokens() {
  const std::vector<std::uint32_t> tokens = read_text();
  const auto tokenizer = byte_tokenizer();
  replace_file(file(tokenizer->file_name()), tokenizer->file_content());
  for (const int vocabulary : {kGpt2Shape.vocabulary, kDemoVocabulary}) {
    const auto count = std::min(static_cast<std::uint32_t>(vocabulary), kWords);
    std::vector<std::uint32_t> ids = tokens;
    for (std::uint32_t& id : ids) id = 1 + (id - 1) % (count - 1);
    ShardWriter writer(shard(vocabulary), {count, kEnd, tokenizer->hash(), "bench"});
    writer.append(ids, ids.size());
    writer.finish();
    replace_file(file(fmt::format("tokens_{}.bin", vocabulary)),
                 {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(std::uint32_t)});
  }
}

fs::path StepSetting::token_file(const StepModel& model) const {
  return file(fmt::format("tokens_{}.bin", model.vocabulary));
}

std::string StepSetting::shard(int vocabulary) const { return file(fmt::format("train_{}.h5", vocabulary)).string(); }

Recipe StepSetting::with_data(Recipe recipe, int vocabulary) const {
  recipe.run.directory = file("run_" + recipe.run.name).string();
  recipe.run.threads = kThreads;
  recipe.data.train = {{shard(vocabulary), 1}};
  recipe.data.validation.clear();
  recipe.budget.hardware.clear();
  recipe.data.tokenizer = file(byte_tokenizer()->file_name()).string();
  return recipe;
}

Recipe StepSetting::dense(const StepModel& model, const std::string& policy) const {
  const std::string text =
      fmt::format(fmt::runtime(kDense), fmt::arg("name", model.name), fmt::arg("policy", policy),
                  fmt::arg("threads", kThreads), fmt::arg("vocabulary", model.vocabulary),
                  fmt::arg("layers", model.layers), fmt::arg("hidden", model.hidden), fmt::arg("heads", model.heads),
                  fmt::arg("kv_heads", model.kv_heads), fmt::arg("feed_forward", model.feed_forward),
                  fmt::arg("sequence", model.sequence), fmt::arg("batch", model.batch));
  return with_data(parse_recipe_text(text, std::string(model.name), {}).recipe, model.vocabulary);
}

Recipe StepSetting::tiny_moe() const {
  const std::vector<std::string> overrides = {fmt::format("--model.vocabulary={}", kDemoVocabulary),
                                              "--schedule.horizon=steps", "--phase.pretrain.steps=4",
                                              "--schedule.warmup_steps=0"};
  return with_data(parse_recipe(beside_program("tiny_moe.recipe"), overrides).recipe, kDemoVocabulary);
}

fs::path StepSetting::write(const Recipe& recipe, const std::string& name) const {
  const fs::path path = file(name);
  replace_file(path, canonical_text(recipe));
  return path;
}

}  // namespace shoestring
