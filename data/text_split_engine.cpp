// Patterns run by PCRE2: the only file that sees it.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <new>

#include "data/characters.h"
#include "data/text_split.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::size_t kLongestPattern = 16384;
constexpr std::uint32_t kMatchSteps = 10'000'000;  // of one match, and one step more for each byte of the text
constexpr std::uint32_t kHeapKib = 64 << 10;
constexpr std::size_t kJitStackBytes = std::size_t{1} << 20;

template <auto release>
struct Release {
  template <class T>
  void operator()(T* owned) const {
    release(owned);
  }
};
using Code = std::unique_ptr<pcre2_code, Release<pcre2_code_free>>;

std::string reason_of(int error) {
  std::array<char, 256> text{};
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
  return text.data();
}

/// What one thread matches with; patterns of any tokenizer share it, one after another.
struct Scratch {
  std::unique_ptr<pcre2_match_data, Release<pcre2_match_data_free>> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Release<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Release<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)};

  Scratch() {
    if (!match || !context || !stack) throw std::bad_alloc();
    pcre2_set_heap_limit(context.get(), kHeapKib);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

class EngineSplit : public TextSplit {
 public:
  EngineSplit(const std::string& pattern, std::string where) : where_(std::move(where)) {
    if (pattern.size() > kLongestPattern) {
      fail(ExitCode::bad_data, "{}: a pattern of {} bytes, more than {}", where_, pattern.size(), kLongestPattern);
    }
    int error = 0;
    PCRE2_SIZE place = 0;
    const auto options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    code_.reset(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &place, nullptr));
    if (!code_)
      fail(ExitCode::bad_data, "{}: character {} of the pattern: {}; take a sound copy of the tokenizer", where_, place,
           reason_of(error));
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without it, where the system forbids it, only slower
  }

  std::size_t piece_end(std::string_view text, std::size_t at) const override {
    std::size_t from = at;
    while (from < text.size()) {
      const Found found = find(text, from);
      if (found.begin > at) return found.begin;
      if (found.end > at) return found.end;
      from += character_bytes(text.substr(from));  // nothing long matches here
    }
    return text.size();
  }

 private:
  struct Found {
    std::size_t begin, end;
  };

  // The first match from `from` on; behind the text where there is none.
  Found find(std::string_view text, std::size_t from) const {
    thread_local const Scratch scratch;
    pcre2_set_match_limit(scratch.context.get(), kMatchSteps + static_cast<std::uint32_t>(text.size()));
    const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                   PCRE2_NO_UTF_CHECK, scratch.match.get(), scratch.context.get());
    if (result == PCRE2_ERROR_NOMATCH) return {text.size(), text.size()};
    if (result == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
    if (result < 0) {
      fail(ExitCode::bad_data,
           "{}: the pattern gives up at byte {} of a text of {}: {}; it backtracks without end; take another tokenizer",
           where_, from, text.size(), reason_of(result));
    }
    const PCRE2_SIZE* place = pcre2_get_ovector_pointer(scratch.match.get());
    return {place[0], place[1]};
  }

  std::string where_;
  Code code_;
};

}  // namespace

std::unique_ptr<TextSplit> split_by_engine(const std::string& pattern, const std::string& where) {
  return std::make_unique<EngineSplit>(pattern, where);
}

}  // namespace shoestring
