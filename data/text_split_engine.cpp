// Patterns run by PCRE2: the only file that sees it.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
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
using Compiling = std::unique_ptr<pcre2_compile_context, Release<pcre2_compile_context_free>>;

/// Looks a pattern through for what PCRE2 takes as well as Oniguruma, the engine of the library `tokenizers`, and in
/// another sense (Oniguruma's doc/RE, syntax of Ruby). What one of the two refuses is not its business.
class Dialect {
 public:
  explicit Dialect(std::string_view pattern) : rest_(pattern), whole_(pattern.size()) {}

  /// The first such thing; empty where there is none. Behind it, `place` is where it stands.
  std::string_view differs() {
    while (!rest_.empty()) {
      const std::string_view found = rest_.front() == '[' ? in_class() : in_sequence();
      if (!found.empty()) return found;
    }
    return {};
  }
  std::size_t place() const { return whole_ - rest_.size(); }

 private:
  std::string_view in_sequence() {
    switch (rest_.front()) {
      case '\\': return escape();
      case '(': return group();
      case '{': return interval();
      default: rest_.remove_prefix(1); return {};
    }
  }

  // A hexadecimal digit there, a blank here; a letter there, the begin and end of a quotation here.
  std::string_view escape() {
    if (rest_.size() > 1 && std::string_view("hHQE").find(rest_[1]) != npos) {
      return rest_.substr(0, 2);
    }
    const bool braced = rest_.size() > 2 && rest_[2] == '{' && std::string_view("xpPogk").find(rest_[1]) != npos;
    rest_.remove_prefix(std::min<std::size_t>(braced ? rest_.find('}') : 2, rest_.size()));
    return {};
  }

  std::string_view group() {
    if (rest_.starts_with("(*") || rest_.starts_with("(?|")) return rest_.substr(0, 3);
    if (rest_.starts_with("(?#")) {
      rest_.remove_prefix(std::min(rest_.find(')'), rest_.size()));
      return {};
    }
    if (rest_.starts_with("(?")) {  // m: a dot takes line ends there, ^ and $ know lines here
      const std::string_view flags = rest_.substr(2, std::min(rest_.find_first_of(":)"), rest_.size()) - 2);
      const bool all = flags.find_first_not_of("-abcdefghijklmnopqrstuvwxyz") == npos;
      if (all && flags.find_first_not_of("-ix") != npos) return rest_.substr(0, 2 + flags.size());
    }
    rest_.remove_prefix(1);
    return {};
  }

  // {,n} is text here; behind {n,m} a + repeats all of it there, and so does a ? behind {n}.
  std::string_view interval() {
    constexpr std::string_view kDigits = "0123456789";
    const std::size_t close = rest_.find('}');
    const std::string_view inner = close == npos ? "" : rest_.substr(1, close - 1);
    const std::size_t least = std::min(inner.find_first_not_of(kDigits), inner.size());
    const bool exact = least > 0 && least == inner.size();
    const bool range = least < inner.size() && inner[least] == ',' && inner.size() > 1 &&
                       inner.find_first_not_of(kDigits, least + 1) == npos;
    if (exact || range) {
      const std::string_view behind = rest_.substr(close + 1, 1);
      if (range && least == 0) return rest_.substr(0, close + 1);
      if (behind == "+" || (exact && behind == "?")) return rest_.substr(0, close + 2);
    }
    rest_.remove_prefix(1);
    return {};
  }

  // Classes within a class, and what two of them share, are Oniguruma's alone: here they are characters.
  std::string_view in_class() {
    rest_.remove_prefix(1);
    if (rest_.starts_with('^')) rest_.remove_prefix(1);
    if (rest_.starts_with(']')) rest_.remove_prefix(1);
    while (!rest_.empty() && rest_.front() != ']') {
      if (rest_.starts_with("&&")) return rest_.substr(0, 2);
      const std::size_t posix = rest_.starts_with("[:") ? rest_.find(":]") : npos;
      if (rest_.front() == '[' && posix == npos) return rest_.substr(0, 1);
      if (rest_.front() == '\\') {
        if (const std::string_view found = escape(); !found.empty()) return found;
      } else {
        rest_.remove_prefix(posix == npos ? 1 : posix + 2);
      }
    }
    if (!rest_.empty()) rest_.remove_prefix(1);
    return {};
  }

  static constexpr std::size_t npos = std::string_view::npos;
  std::string_view rest_;
  std::size_t whole_;
};

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
    Dialect dialect(pattern);
    if (const std::string_view other = dialect.differs(); !other.empty()) {
      fail(ExitCode::bad_data,
           "{}: character {} of the pattern: {} means something else to the library `tokenizers`, which would cut text "
           "elsewhere; take a model with another tokenizer",
           where_, dialect.place(), other);
    }
    int error = 0;
    PCRE2_SIZE place = 0;
    const Compiling compiling(pcre2_compile_context_create(nullptr));
    if (!compiling) throw std::bad_alloc();
    pcre2_set_newline(compiling.get(), PCRE2_NEWLINE_LF);
    // To Oniguruma ^ and $ are of lines.
    const auto options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &place,
                              compiling.get()));
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
