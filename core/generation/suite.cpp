#include "core/generation/suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <numbers>

#include "data/characters.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMostSuiteBytes = std::int64_t{1} << 30;
constexpr std::int64_t kMostNewTokens = std::int64_t{1} << 20;
constexpr std::array<std::string_view, 4> kKinds = {"multiple_choice", "loglikelihood", "loglikelihood_rolling",
                                                    "generate_until"};

/// What `read` makes of the value of `key`, which must be there; its complaints name the key.
template <class Read>
auto keyed(const Json& line, std::string_view key, const Read& read) {
  const Json& value = line.at(key);
  try {
    return read(value);
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", key, error.what());
  }
}

std::string text_at(const Json& line, std::string_view key) {
  return keyed(line, key, [](const Json& value) { return value.text(); });
}

bool holds(const Json& line, std::string_view key) {
  const Json* value = line.find(key);
  return value != nullptr && !value->is_null();
}

SuiteKind kind_named(const std::string& word) {
  const auto found = std::find(kKinds.begin(), kKinds.end(), word);
  if (found == kKinds.end()) {
    fail(ExitCode::bad_data, "request_type is {}; it must be one of {}", Json(word).dump(), fmt::join(kKinds, ", "));
  }
  return static_cast<SuiteKind>(found - kKinds.begin());
}

bool flag_or(const Json& line, std::string_view key, bool otherwise) {
  return holds(line, key) ? keyed(line, key, [](const Json& value) { return value.flag(); }) : otherwise;
}

/// A text, or a list of them.
std::vector<std::string> texts_of(const Json& value) {
  std::vector<std::string> texts;
  if (value.is_text()) {
    texts.push_back(value.text());
  } else {
    for (const Json& text : value.items()) texts.push_back(text.text());
  }
  return texts;
}

void read_choices(const Json& line, SuiteRequest& request) {
  request.delimiter = line.text_or("delimiter", " ");
  request.choices = keyed(line, "choices", [](const Json& list) {
    std::vector<std::string> choices;
    for (const Json& choice : list.items()) choices.push_back(choice.text());
    return choices;
  });
  if (request.choices.size() < 2)
    fail(ExitCode::bad_data, "choices holds {}; it must hold two at least", request.choices.size());
  request.gold = keyed(line, "gold", [](const Json& value) { return static_cast<std::size_t>(value.count()); });
  if (request.gold >= request.choices.size()) {
    fail(ExitCode::bad_data, "gold is {} of {} choices; it must count from 0", request.gold, request.choices.size());
  }
  for (const std::string& choice : request.choices) {
    if (choice.empty()) fail(ExitCode::bad_data, "choices holds an empty text; each must have a character");
  }
}

void read_generation(const Json& line, SuiteRequest& request) {
  request.targets = keyed(line, "target", texts_of);
  if (request.targets.empty()) fail(ExitCode::bad_data, "target holds nothing; it must hold a right answer");
  if (holds(line, "until")) request.until = keyed(line, "until", texts_of);
  for (const std::string& text : request.until) {
    if (text.empty())
      fail(ExitCode::bad_data, "until holds an empty text, which every answer would end at; leave it out");
  }
  if (holds(line, "max_gen_toks")) {
    request.most_tokens = keyed(line, "max_gen_toks", [](const Json& value) { return value.count(kMostNewTokens); });
  }
  request.ignore_case = flag_or(line, "ignore_case", false);
  request.ignore_punctuation = flag_or(line, "ignore_punctuation", false);
  request.strip = flag_or(line, "strip", false);
}

/// Calls visit(kinds) for each code point; bytes that are no UTF-8 count as one each.
template <class Visit>
void each_character(std::string_view text, const Visit& visit) {
  const std::uint8_t* kinds = character_kinds();
  while (!text.empty()) {
    const std::size_t bytes = character_bytes(text);
    visit(bytes == 0 ? std::uint8_t{0} : character_at(kinds, text, 0).kinds,
          text.substr(0, std::max<std::size_t>(1, bytes)));
    text.remove_prefix(std::max<std::size_t>(1, bytes));
  }
}

/// As the request compares it.
std::string compared(const SuiteRequest& request, std::string_view text) {
  std::string result;
  std::size_t end = 0;  // behind the last character that is no white space
  each_character(text, [&](std::uint8_t kinds, std::string_view character) {
    const bool space = (kinds & kind::space) != 0;
    if (request.strip && space && result.empty()) return;
    if (request.ignore_punctuation && character.size() == 1 && std::ispunct(static_cast<unsigned char>(character[0]))) {
      return;
    }
    result += request.ignore_case && character.size() == 1
                  ? std::string(1, static_cast<char>(std::tolower(static_cast<unsigned char>(character[0]))))
                  : std::string(character);
    if (!space) end = result.size();
  });
  if (request.strip) result.resize(end);
  return result;
}

/// The index of the largest; the first of equals.
std::size_t likeliest(const std::vector<double>& values) {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

using Requests = std::vector<const SuiteRequest*>;
using Answers = std::vector<const SuiteAnswer*>;
using Scores = std::map<std::string, Measured>;

Scores score_choices(const Requests& requests, const Answers& answers) {
  std::vector<double> plain, normed;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    std::vector<double> whole, each;
    for (std::size_t c = 0; c < requests[i]->choices.size(); ++c) {
      const double sum = answers[i]->likelihoods.at(c).log_probability;
      whole.push_back(sum);
      each.push_back(sum / static_cast<double>(characters_of(requests[i]->choices[c])));
    }
    plain.push_back(likeliest(whole) == requests[i]->gold ? 1 : 0);
    normed.push_back(likeliest(each) == requests[i]->gold ? 1 : 0);
  }
  return {{"acc", mean_of(plain)}, {"acc_norm", mean_of(normed)}};
}

/// exp of a measured number of nats, its error to first order.
Measured exponential(const Measured& nats) {
  const double value = std::exp(nats.value);
  return {value, nats.error < 0 ? -1 : value * nats.error};
}

Scores score_continuations(const Answers& answers) {
  std::vector<double> losses, greedy;
  for (const SuiteAnswer* answer : answers) {
    losses.push_back(-answer->likelihoods.at(0).log_probability);
    greedy.push_back(answer->likelihoods.at(0).greedy ? 1 : 0);
  }
  return {{"perplexity", exponential(mean_of(losses))}, {"acc", mean_of(greedy)}};
}

Scores score_texts(const Requests& requests, const Answers& answers) {
  std::vector<double> losses, words, bytes;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    losses.push_back(-answers[i]->likelihoods.at(0).log_probability);
    words.push_back(static_cast<double>(words_of(requests[i]->context)));
    bytes.push_back(static_cast<double>(requests[i]->context.size()));
  }
  const Measured nats = ratio_of(losses, bytes);
  return {{"word_perplexity", exponential(ratio_of(losses, words))},
          {"byte_perplexity", exponential(nats)},
          {"bits_per_byte", {nats.value / std::numbers::ln2, nats.error < 0 ? -1 : nats.error / std::numbers::ln2}}};
}

Scores score_generated(const Answers& answers) {
  std::vector<double> matches;
  for (const SuiteAnswer* answer : answers) matches.push_back(answer->matched ? 1 : 0);
  return {{"exact_match", mean_of(matches)}};
}

}  // namespace

SuiteRequest read_suite_request(const Json& line, const std::string& where) {
  try {
    SuiteRequest request;
    request.task = text_at(line, "task");
    if (request.task.empty()) fail(ExitCode::bad_data, "task is empty; it must have a name");
    request.kind = kind_named(text_at(line, "request_type"));
    const bool rolling = request.kind == SuiteKind::loglikelihood_rolling;
    request.context = text_at(line, rolling ? "text" : "context");
    switch (request.kind) {
      case SuiteKind::multiple_choice: read_choices(line, request); break;
      case SuiteKind::loglikelihood:
        request.choices = {text_at(line, "continuation")};
        if (request.choices[0].empty()) fail(ExitCode::bad_data, "continuation is empty; it must have a character");
        break;
      case SuiteKind::loglikelihood_rolling:
        if (request.context.empty()) fail(ExitCode::bad_data, "text is empty; it must have a character");
        break;
      case SuiteKind::generate_until: read_generation(line, request); break;
    }
    return request;
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", where, error.what());
  }
}

std::vector<SuiteRequest> read_suite(const std::filesystem::path& file) {
  const std::string text = read_file(file, kMostSuiteBytes);
  std::vector<SuiteRequest> requests;
  std::map<std::string, SuiteKind> kinds;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const std::string where = fmt::format("{}, line {}", file.string(), ++number);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    SuiteRequest request = read_suite_request(parse_json(line, where), where);
    if (kinds.emplace(request.task, request.kind).first->second != request.kind) {
      fail(ExitCode::bad_data, "{}: task {} asks another kind of request before; give one of them another name", where,
           Json(request.task).dump());
    }
    requests.push_back(std::move(request));
  }
  if (requests.empty()) fail(ExitCode::bad_data, "{}: holds no request; write one a line, as JSON", file.string());
  return requests;
}

std::vector<SuiteRequest> read_suites(const std::vector<std::string>& files) {
  std::vector<SuiteRequest> all;
  std::map<std::string, std::string> file_of_task;
  for (const std::string& file : files) {
    for (SuiteRequest& request : read_suite(file)) {
      const std::string& other = file_of_task.emplace(request.task, file).first->second;
      if (other != file) {
        fail(ExitCode::bad_data, "{}: task {} stands in {} too; give one of them another name", file,
             Json(request.task).dump(), other);
      }
      all.push_back(std::move(request));
    }
  }
  return all;
}

Measured mean_of(const std::vector<double>& values) {
  return ratio_of(values, std::vector<double>(values.size(), 1.0));
}

// With r = sum a / sum s, the error of r is that of the mean of a - r s, over the mean of s.
Measured ratio_of(const std::vector<double>& amounts, const std::vector<double>& sizes) {
  check(amounts.size() == sizes.size() && !amounts.empty(), "{} amounts of {} things", amounts.size(), sizes.size());
  double amount = 0, size = 0;
  for (std::size_t i = 0; i < amounts.size(); ++i) {
    amount += amounts[i];
    size += sizes[i];
  }
  Measured result{amount / size, -1};
  const auto n = static_cast<double>(amounts.size());
  if (n < 2) return result;
  double squares = 0;
  for (std::size_t i = 0; i < amounts.size(); ++i) squares += std::pow(amounts[i] - result.value * sizes[i], 2);
  result.error = std::sqrt(squares * n / (n - 1)) / size;
  return result;
}

std::map<std::string, Measured> score_task(const Requests& requests, const Answers& answers) {
  check(!requests.empty() && requests.size() == answers.size(), "{} answers to {} requests", answers.size(),
        requests.size());
  switch (requests[0]->kind) {
    case SuiteKind::multiple_choice: return score_choices(requests, answers);
    case SuiteKind::loglikelihood: return score_continuations(answers);
    case SuiteKind::loglikelihood_rolling: return score_texts(requests, answers);
    case SuiteKind::generate_until: return score_generated(answers);
  }
  return {};
}

bool exact_match(const SuiteRequest& request, std::string_view text) {
  const std::string own = compared(request, text);
  return std::any_of(request.targets.begin(), request.targets.end(),
                     [&](const std::string& target) { return compared(request, target) == own; });
}

std::int64_t words_of(std::string_view text) {
  std::int64_t words = 1;
  bool before = false;
  each_character(text, [&](std::uint8_t kinds, std::string_view) {
    const bool space = (kinds & kind::space) != 0;
    words += space && !before ? 1 : 0;
    before = space;
  });
  return words;
}

std::int64_t characters_of(std::string_view text) {
  std::int64_t count = 0;
  each_character(text, [&](std::uint8_t, std::string_view) { ++count; });
  return count;
}

}  // namespace shoestring
