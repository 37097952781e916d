#include "core/generation/generator.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring {

/// A text in the making.
struct Generator::Text {
  const GenerationRequest* request = nullptr;
  std::size_t index = 0;
  std::int64_t slot = 0;
  std::int64_t fed = 0;  ///< tokens that the slot holds
  Generated result{};
  bool done = false;

  std::int64_t prompt() const { return static_cast<std::int64_t>(request->prompt.size()); }
  std::int64_t drawn() const { return static_cast<std::int64_t>(result.ids.size()); }
};

Generator::Generator(CachedForward& forward, std::int64_t vocabulary) : forward_(forward), vocabulary_(vocabulary) {
  check(forward.rows() >= forward.slots(), "{} rows for {} sequences", forward.rows(), forward.slots());
  check(vocabulary > 0, "generation over {} tokens", vocabulary);
}

void Generator::check_request(const GenerationRequest& request) const {
  check_sampling(request.sampling);
  if (request.prompt.empty()) fail(ExitCode::usage, "the prompt holds no token: give --prompt a text to go on from");
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  if (prompt <= forward_.capacity()) return;
  fail(ExitCode::usage,
       "the prompt takes {} tokens, but there is room for {}: shorten it, or raise --context as far as the model has "
       "positions",
       prompt, forward_.capacity());
}

/// Whether `text` goes on.
bool Generator::finish_or_continue(Text& text, std::int32_t id, double log_probability, const OnToken& on_token) const {
  const GenerationRequest& request = *text.request;
  Generated& result = text.result;
  result.ids.push_back(id);
  result.log_probabilities.push_back(log_probability);
  if (std::find(request.stop_ids.begin(), request.stop_ids.end(), id) != request.stop_ids.end()) {
    result.end = GenerationEnd::stop_id;
    return false;
  }
  if (!on_token(text.index, id)) {
    result.end = GenerationEnd::caller;
    return false;
  }
  result.end = GenerationEnd::length;
  return text.drawn() < request.most_tokens && text.prompt() + text.drawn() <= forward_.capacity();
}

/// One call of the model: a token of each text that is being written, and as much of the prompts as there are rows for.
void Generator::advance(std::vector<Text*>& live, const OnToken& on_token) {
  std::vector<CachedForward::Piece> pieces;
  std::vector<Text*> drawing;
  std::vector<std::int32_t> last_rows;
  std::int64_t rows = 0;
  const auto feed = [&](Text& text, std::span<const std::int32_t> tokens) {
    pieces.push_back({text.slot, tokens});
    rows += static_cast<std::int64_t>(tokens.size());
    text.fed += static_cast<std::int64_t>(tokens.size());
    if (text.fed < text.prompt()) return;
    drawing.push_back(&text);
    last_rows.push_back(static_cast<std::int32_t>(rows - 1));
  };
  for (Text* text : live) {
    if (text->fed >= text->prompt()) feed(*text, std::span(text->result.ids).last(1));
  }
  for (Text* text : live) {
    if (text->fed >= text->prompt() || rows == forward_.rows()) continue;
    const std::int64_t some = std::min(text->prompt() - text->fed, forward_.rows() - rows);
    feed(*text,
         std::span(text->request->prompt).subspan(static_cast<std::size_t>(text->fed), static_cast<std::size_t>(some)));
  }
  forward_.append(pieces);
  std::vector<std::int32_t> drawn(drawing.size());
  const std::vector<double> log_probabilities =
      forward_.choose(last_rows, [&](std::size_t i, std::span<const float> logits) {
        const Text& text = *drawing[i];
        const Random random(text.request->seed, Purpose::sampling);
        const std::size_t known = std::min(logits.size(), static_cast<std::size_t>(vocabulary_));
        return drawn[i] = draw(candidates(logits.first(known), text.request->sampling),
                               random.uniform(static_cast<std::uint64_t>(text.drawn())));
      });
  for (std::size_t i = 0; i < drawing.size(); ++i) {
    drawing[i]->done = !finish_or_continue(*drawing[i], drawn[i], log_probabilities[i], on_token);
  }
}

std::vector<Generated> Generator::run(std::span<const GenerationRequest> requests, const OnToken& on_token) {
  for (const GenerationRequest& request : requests) check_request(request);
  held_.clear();
  std::vector<Generated> results(requests.size());
  std::vector<Text> texts(static_cast<std::size_t>(forward_.slots()));
  std::vector<Text*> live;
  std::size_t next = 0;
  while (true) {
    for (std::size_t slot = 0; slot < texts.size(); ++slot) {
      Text& text = texts[slot];
      if (text.request != nullptr && !text.done) continue;
      if (text.request != nullptr) results[text.index] = std::move(text.result);
      text = {};
      while (next < requests.size() && requests[next].most_tokens < 1) ++next;
      if (next == requests.size()) continue;
      text.request = &requests[next];
      text.index = next++;
      text.slot = static_cast<std::int64_t>(slot);
      forward_.keep(text.slot, 0);
    }
    live.clear();
    for (Text& text : texts) {
      if (text.request != nullptr) live.push_back(&text);
    }
    if (live.empty()) return results;
    advance(live, on_token);
  }
}

Generated Generator::run_one(const GenerationRequest& request, const std::function<bool(std::int32_t id)>& on_token) {
  check_request(request);
  if (request.most_tokens < 1) return {};
  const auto usable = std::min(held_.size(), request.prompt.size() - 1);  // the last token is run again, for its logits
  const auto same =
      std::mismatch(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(usable), request.prompt.begin()).first;
  Text text;
  text.request = &request;
  text.fed = same - held_.begin();
  held_.clear();  // should the model throw, nothing is known of the slot
  forward_.keep(0, text.fed);
  std::vector<Text*> live{&text};
  while (!text.done) advance(live, [&](std::size_t, std::int32_t id) { return on_token(id); });
  held_ = request.prompt;
  held_.insert(held_.end(), text.result.ids.begin(), text.result.ids.end());
  held_.resize(static_cast<std::size_t>(forward_.length(0)));  // the last token was drawn, not run
  return std::move(text.result);
}

}  // namespace shoestring
