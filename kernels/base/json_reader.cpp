// Reading JSON: nlohmann's library finds the tokens (events, no tree, no recursion); what becomes of them is ours.
#include <iterator>
#include <nlohmann/json.hpp>

#include "kernels/base/json_members.h"

namespace shoestring {
namespace {

using Engine = nlohmann::json;

/// Bytes handed out one by one; `read` is the number so far, which tells where an event of the parser belongs.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, std::size_t* read) : at_(at), read_(read) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    ++at_;
    ++*read_;
    return *this;
  }
  Cursor operator++(int) {
    const Cursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  std::size_t* read_;
};

/// What nlohmann says without its prefix and without the text read last, which may be a whole line of a corpus.
std::string short_reason(std::string reason) {
  if (const auto column = reason.find("column "); column != std::string::npos) {
    if (const auto colon = reason.find(": ", column); colon != std::string::npos) reason.erase(0, colon + 2);
  }
  reason = reason.substr(0, reason.find("; last read"));
  return reason.substr(0, 120);
}

/// Line and column of the last byte read, the first 1.
std::string place_in(std::string_view text, std::size_t read) {
  const std::string_view before = text.substr(0, std::min(text.size(), read > 0 ? read - 1 : 0));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const auto last = before.rfind('\n');
  return fmt::format("{}:{}", line, before.size() - (last == std::string_view::npos ? 0 : last + 1) + 1);
}

}  // namespace

/// Builds the tree from the parser's events. An event that returns false ends the parsing; `problem` says why.
namespace {

std::string twice_text(const std::string& key) {
  return fmt::format("the key {} stands twice in one object; keep one", Json(key.substr(0, 60)).dump());
}

}  // namespace

struct Json::Reader {
  explicit Reader(const JsonLimits& limits) : most_depth(limits.depth), exact(limits.exact) {}

  int most_depth;
  bool exact;
  Json root;
  std::vector<Json> open;         // containers not yet closed, outermost first
  std::vector<std::string> keys;  // of each open container within its parent; of the next value at the end
  std::string problem;

  bool refuse(std::string text) {
    problem = std::move(text);
    return false;
  }
  bool put(Json value) {
    if (open.empty()) {
      root = std::move(value);
    } else if (open.back().is_object()) {
      open.back().add(std::move(keys.back()), std::move(value));
      keys.pop_back();
    } else {
      open.back().push(std::move(value));
    }
    return true;
  }
  bool enter(Json container) {
    if (open.size() >= static_cast<std::size_t>(most_depth)) {
      return refuse(fmt::format("nested deeper than {} levels, the most that are allowed", most_depth));
    }
    open.push_back(std::move(container));
    return true;
  }
  bool leave() {
    Json closed = std::move(open.back());
    open.pop_back();
    if (closed.is_object()) {
      const std::string* twice = std::get<Object>(closed.value_)->seal();
      if (twice != nullptr) return refuse(twice_text(*twice));
    }
    return put(std::move(closed));
  }

  bool null() { return put({}); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string& text) {
    if (exact && text.find_first_of(".eE") == std::string::npos) return refuse("a whole number beyond 64 bits");
    return put(value);
  }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Engine::binary_t&) { return refuse("binary data"); }
  bool start_object(std::size_t) { return enter(object()); }
  bool key(std::string& value) {
    keys.push_back(std::move(value));
    return true;
  }
  bool end_object() { return leave(); }
  bool start_array(std::size_t) { return enter(array()); }
  bool end_array() { return leave(); }
  bool parse_error(std::size_t, const std::string&, const Engine::exception& error) {
    return refuse(short_reason(error.what()));
  }
};

namespace {

/// Keeps one text of the outermost object and forgets all else.
struct FieldReader {
  std::string_view wanted;
  int depth = 0;
  bool mine = false;  // the next value at depth 1 is the wanted key's
  bool met = false;   // that key
  std::optional<std::string> found;
  std::string problem;

  bool other() {
    if (depth == 1 && std::exchange(mine, false)) found.reset();
    return true;
  }
  bool enter() {
    other();
    ++depth;
    return true;
  }
  bool leave() {
    --depth;
    return true;
  }
  bool null() { return other(); }
  bool boolean(bool) { return other(); }
  bool number_integer(std::int64_t) { return other(); }
  bool number_unsigned(std::uint64_t) { return other(); }
  bool number_float(double, const std::string&) { return other(); }
  bool string(std::string& value) {
    if (depth == 1 && std::exchange(mine, false)) found = std::move(value);
    return true;
  }
  bool binary(Engine::binary_t&) { return other(); }
  bool start_object(std::size_t) { return enter(); }
  bool key(std::string& value) {
    mine = depth == 1 && value == wanted;
    if (!mine || !std::exchange(met, true)) return true;
    problem = twice_text(value);
    return false;
  }
  bool end_object() { return leave(); }
  bool start_array(std::size_t) { return enter(); }
  bool end_array() { return leave(); }
  bool parse_error(std::size_t, const std::string&, const Engine::exception& error) {
    problem = short_reason(error.what());
    return false;
  }
};

template <class Events>
void read(std::string_view text, Events& events, const std::string& where, ExitCode code) {
  // The library takes one for the end of the text, whatever stands behind it.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    fail(code, "{}:{}: a NUL byte, which JSON cannot hold: the file has a hole; copy it again", where,
         place_in(text, nul + 1));
  }
  std::size_t read = 0;
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): its end follows
  const Cursor begin(text.data(), &read);
  const Cursor end(text.data() + text.size(), &read);
  if (!Engine::sax_parse(begin, end, &events)) {
    fail(code, "{}:{}: {}", where, place_in(text, read), events.problem);
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, ExitCode code, const JsonLimits& limits) {
  if (text.size() > limits.bytes) {
    fail(code, "{}: {} bytes of JSON, more than the {} that belong here", where, text.size(), limits.bytes);
  }
  Json::Reader reader(limits);
  read(text, reader, where, code);
  return std::move(reader.root);
}

std::optional<std::string> parse_json_text_field(std::string_view text, std::string_view key,
                                                 const std::string& where) {
  FieldReader reader{.wanted = key, .found = {}, .problem = {}};
  read(text, reader, where, ExitCode::bad_data);
  return std::move(reader.found);
}

}  // namespace shoestring
