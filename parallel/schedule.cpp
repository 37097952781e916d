#include "parallel/schedule.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/check.h"
#include "parallel/schedule_builders.h"

namespace shoestring {
namespace {

constexpr std::array<std::string_view, 7> kKindNames = {"F", "B", "W", "sa", "ra", "sg", "rg"};

constexpr std::array kBuilders = {
    ScheduleBuilder{"1f1b", refuses_1f1b, build_1f1b},
    ScheduleBuilder{"interleaved", refuses_interleaved, build_interleaved},
    ScheduleBuilder{"zb_h1", refuses_zb_h1, build_zb_h1},
    ScheduleBuilder{"zb_v", refuses_zb_v, build_zb_v},
    ScheduleBuilder{"dualpipev", refuses_dualpipev, build_dualpipev},
};

/// Reads the text form word by word and knows the line for messages.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool end() {
    skip_blank();
    return at_ == text_.size();
  }
  std::string_view word() {
    skip_blank();
    const std::size_t begin = at_;
    while (at_ < text_.size() && !is_blank(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  void expect(std::string_view wanted) {
    const std::string_view got = word();
    if (got != wanted) reject(got, fmt::format("expected '{}'", wanted));
  }
  int number(std::string_view word) const {
    int value = 0;
    const auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (status != std::errc{} || end != word.data() + word.size() || value < 0) reject(word, "expected a number");
    return value;
  }
  [[noreturn]] void reject(std::string_view word, const std::string& why) const {
    fail(ExitCode::bad_recipe, "schedule text, line {}: '{}': {}", line_, word, why);
  }

 private:
  static bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
  void skip_blank() {
    for (; at_ < text_.size() && is_blank(text_[at_]); ++at_) line_ += text_[at_] == '\n' ? 1 : 0;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
};

const ScheduleBuilder& builder_of(std::string_view name) {
  std::string known;
  for (const ScheduleBuilder& builder : kBuilders) {
    if (builder.name == name) return builder;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", builder.name);
  }
  fail(ExitCode::bad_recipe, "no schedule is called '{}'; choose another: known are {}", name, known);
}

Action parse_action(const Reader& reader, std::string_view word) {
  Action action;
  std::string_view rest = word;
  if (rest.ends_with('&')) {
    action.with_next = true;
    rest.remove_suffix(1);
  }
  const std::size_t digits = rest.find_first_of("0123456789");
  const std::size_t dot = rest.find('.');
  const std::string_view kind = rest.substr(0, digits);
  const auto found = std::find(kKindNames.begin(), kKindNames.end(), kind);
  if (digits == std::string_view::npos || dot == std::string_view::npos || dot < digits || found == kKindNames.end()) {
    reader.reject(word, "expected an action such as F0.3, B, W, sa, ra, sg or rg");
  }
  action.kind = static_cast<ActionKind>(found - kKindNames.begin());
  action.stage = reader.number(rest.substr(digits, dot - digits));
  action.microbatch = reader.number(rest.substr(dot + 1));
  return action;
}

}  // namespace

std::string to_string(const Action& action) {
  return fmt::format("{}{}.{}{}", kKindNames[static_cast<std::size_t>(action.kind)], action.stage, action.microbatch,
                     action.with_next ? "&" : "");
}

std::string to_string(const Schedule& schedule) {
  std::string text = fmt::format("schedule {} stages {} microbatches {} ranks {}\n", schedule.name, schedule.stages,
                                 schedule.microbatches, schedule.ranks.size());
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    text += fmt::format("{}:", rank);
    for (const Action& action : schedule.ranks[rank]) text.append(" ").append(to_string(action));
    text += "\n";
  }
  return text;
}

Schedule parse_schedule(std::string_view text) {
  Reader reader(text);
  Schedule schedule;
  reader.expect("schedule");
  schedule.name = std::string(reader.word());
  reader.expect("stages");
  schedule.stages = reader.number(reader.word());
  reader.expect("microbatches");
  schedule.microbatches = reader.number(reader.word());
  reader.expect("ranks");
  const std::string_view count = reader.word();
  const int ranks = reader.number(count);
  if (ranks > 65536) reader.reject(count, "that many ranks");
  schedule.ranks.reserve(static_cast<std::size_t>(ranks));
  while (!reader.end()) {
    const std::string_view word = reader.word();
    if (word.ends_with(':')) {
      if (static_cast<std::size_t>(reader.number(word.substr(0, word.size() - 1))) != schedule.ranks.size()) {
        reader.reject(word, fmt::format("expected the line of rank {}", schedule.ranks.size()));
      }
      schedule.ranks.emplace_back();
    } else {
      if (schedule.ranks.empty()) reader.reject(word, "expected '0:'");
      schedule.ranks.back().push_back(parse_action(reader, word));
    }
  }
  if (static_cast<int>(schedule.ranks.size()) != ranks) {
    reader.reject(count, fmt::format("{} lines of ranks follow", schedule.ranks.size()));
  }
  return schedule;
}

std::vector<int> rank_of_stage(const Schedule& schedule) {
  std::vector<int> owner(static_cast<std::size_t>(std::max(0, schedule.stages)), -1);
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      if (action.computes() && action.stage >= 0 && action.stage < schedule.stages) {
        owner[static_cast<std::size_t>(action.stage)] = static_cast<int>(rank);
      }
    }
  }
  return owner;
}

bool forward_only(const Schedule& schedule) {
  const auto backward = [](const Action& action) {
    return action.kind == ActionKind::backward_input || action.kind == ActionKind::backward_weight;
  };
  return std::none_of(schedule.ranks.begin(), schedule.ranks.end(),
                      [&](const auto& list) { return std::any_of(list.begin(), list.end(), backward); });
}

Schedule forward_schedule(const Schedule& training, int microbatches) {
  check(microbatches > 0, "a forward pass of {} micro-batches", microbatches);
  Schedule schedule{"forward", training.stages, microbatches, {}};
  schedule.ranks.resize(training.ranks.size());
  const std::vector<int> owner = rank_of_stage(training);
  const int ranks = static_cast<int>(training.ranks.size());
  const int chunks = (training.stages + ranks - 1) / ranks;
  for (int stage = 0; stage < training.stages; ++stage) {
    auto& list = schedule.ranks[static_cast<std::size_t>(owner[static_cast<std::size_t>(stage)])];
    for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
      list.push_back({ActionKind::forward, stage, microbatch});
    }
  }
  // In the order of a wave: a rank of c stages starts a micro-batch every c units, each stage takes one.
  for (auto& list : schedule.ranks) {
    std::stable_sort(list.begin(), list.end(), [&](const Action& a, const Action& b) {
      return chunks * a.microbatch + a.stage < chunks * b.microbatch + b.stage;
    });
  }
  return with_transfers(schedule);
}

std::span<const ScheduleBuilder> schedule_builders() { return kBuilders; }

std::string refusal(std::string_view name, const ScheduleRequest& request) {
  if (request.ranks < 1 || request.microbatches < 1) return "there must be one of each at least";
  return builder_of(name).refuses(request);
}

Schedule make_schedule(std::string_view name, const ScheduleRequest& request) {
  const ScheduleBuilder& builder = builder_of(name);
  const std::string reason = refusal(name, request);
  if (!reason.empty()) {
    fail(ExitCode::bad_recipe, "schedule {} for {} ranks and {} micro-batches: {}", name, request.ranks,
         request.microbatches, reason);
  }
  Schedule computation = builder.build(request);
  computation.name = std::string(name);
  return with_transfers(computation);
}

}  // namespace shoestring
