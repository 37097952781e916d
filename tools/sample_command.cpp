// shoestring sample RUN-OR-FOLDER
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "core/generation/generator.h"
#include "core/generation/text_stream.h"
#include "kernels/base/check.h"
#include "tools/commands.h"
#include "tools/generation_options.h"
#include "tools/messages.h"
#include "tools/model_folder.h"

namespace shoestring {
namespace {

constexpr SamplingSettings kDefaults{.temperature = 0.8, .top_k = 50};
constexpr std::int64_t kTextsAtATime = 16;

void print_now(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

/// When tokens came, since the model was opened.
class Pace {
 public:
  void token() {
    if (tokens_++ == 0) first_ = now();
    last_ = now();
  }
  void tell(std::size_t prompts, std::size_t prompt_tokens) const {
    if (tokens_ == 0) return;
    say("{} prompts of {} tokens in {:.3f} s; then {} tokens in {:.3f} s ({:.2f} per second)", prompts, prompt_tokens,
        first_ - begin_, tokens_ - 1, last_ - first_,
        static_cast<double>(tokens_ - 1) / std::max(last_ - first_, 1e-9));
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  double begin_ = now();
  double first_ = 0;
  double last_ = 0;
  std::int64_t tokens_ = 0;
};

/// One text as its tokens come; several each as a whole, behind a line that numbers it.
void print_texts(Generator& generator, const OpenModel& model, const std::vector<GenerationRequest>& requests,
                 const std::string& prompt, const std::vector<std::string>& stops, Pace& pace) {
  std::vector<TextStream> streams(requests.size(), TextStream(model.tokenizer(), stops));
  std::vector<std::string> texts(requests.size());
  const bool alone = requests.size() == 1;
  if (alone) print_now(prompt);
  generator.run(requests, [&](std::size_t i, std::int32_t id) {
    pace.token();
    const std::string more = streams[i].add(id);
    alone ? print_now(more) : static_cast<void>(texts[i] += more);
    return !streams[i].stopped();
  });
  for (std::size_t i = 0; i < requests.size(); ++i) {
    texts[i] += streams[i].finish();
    if (alone) {
      fmt::print("{}\n", texts[i]);
    } else {
      fmt::print("---- {}, seed {}\n{}{}\n", i + 1, requests[i].seed, prompt, texts[i]);
    }
  }
}

}  // namespace

int sample_command(const Words& words) {
  std::vector<Option> options = {{"prompt", "TEXT", "what the text begins with"},
                                 {"tokens", "N", "tokens to add at most (200)"},
                                 {"texts", "N", "so many texts, with seeds that follow each other (1)"},
                                 {"stop", "TEXT", "ends before this text, besides what the model ends with"},
                                 {"seed", "N", "another seed, another text (1)"},
                                 {"pace", "", "say on stderr how long it took"}};
  for (const std::vector<Option>& more : {sampling_options(kDefaults), opening_options()}) {
    options.insert(options.end(), more.begin(), more.end());
  }
  const Arguments arguments({.command = "sample",
                             .positional = "RUN-OR-FOLDER",
                             .summary = "Writes text from a model folder or the newest checkpoint of a run.",
                             .options = options,
                             .least = 1,
                             .most = 1},
                            words);
  if (arguments.helped()) return 0;
  const std::int64_t count = arguments.integer("tokens", 200, 0, 1 << 20);
  const std::int64_t texts = arguments.integer("texts", 1, 1, 1 << 16);
  const std::int64_t seed = arguments.integer("seed", 1, 0, std::int64_t{1} << 62);
  const SamplingSettings sampling = sampling_of(arguments, kDefaults);
  const std::string prompt = arguments.text("prompt");
  std::vector<std::string> stops;
  if (!arguments.text("stop").empty()) stops.push_back(arguments.text("stop"));

  OpenModelOptions opening = opening_of(arguments);
  opening.slots = std::min(texts, kTextsAtATime);
  // A token has at least a byte of text, but for those in front.
  if (opening.capacity == 0) opening.capacity = static_cast<std::int64_t>(prompt.size()) + count + 16;
  OpenModel model(model_folder_of(arguments.positional()[0]), opening);
  const std::vector<std::int32_t> ids = model.prompt(prompt);
  std::vector<GenerationRequest> requests;
  for (std::int64_t i = 0; i < texts; ++i) {
    requests.push_back({.prompt = ids,
                        .most_tokens = count,
                        .sampling = sampling,
                        .seed = static_cast<std::uint64_t>(seed + i),
                        .stop_ids = model.ids().stop});
  }
  Generator generator(model.forward(), model.tokenizer().vocabulary_size());
  Pace pace;
  print_texts(generator, model, requests, prompt, stops, pace);
  if (arguments.has("pace")) pace.tell(requests.size(), ids.size());
  if (const std::int64_t room = model.forward().capacity() - static_cast<std::int64_t>(ids.size()); room < count) {
    say("shoestring sample: {} positions have room for {} tokens behind the prompt", model.forward().capacity(), room);
  }
  return 0;
}

}  // namespace shoestring
