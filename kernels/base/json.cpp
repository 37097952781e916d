#include "kernels/base/json.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

// nlohmann's library reads tokens (events, no tree, no recursion) and writes single values; trees are ours.

namespace shoestring {
namespace {

using Engine = nlohmann::json;

constexpr std::size_t kIndexFrom = 8;  // members; fewer are found as fast by looking at each

[[noreturn]] void wrong_kind(const char* wanted) { fail(ExitCode::bad_data, "the value is not {}", wanted); }

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

std::string scalar(const Engine& value) { return value.dump(-1, ' ', false, Engine::error_handler_t::replace); }

void new_line(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

}  // namespace

struct Json::Members {
  std::vector<Member> list;          // in order of writing
  std::vector<std::uint32_t> order;  // by key, of a parsed object with many; empty otherwise

  const Member* find(std::string_view key) const {
    if (order.size() != list.size()) {
      const auto found =
          std::find_if(list.begin(), list.end(), [&](const Member& member) { return member.key == key; });
      return found == list.end() ? nullptr : &*found;
    }
    const auto found =
        std::lower_bound(order.begin(), order.end(), key,
                         [this](std::uint32_t at, std::string_view text) { return list[at].key < text; });
    return found == order.end() || list[*found].key != key ? nullptr : &list[*found];
  }

  /// Makes every key findable; a key that stands there twice.
  const std::string* seal() {
    if (list.size() <= kIndexFrom) {
      for (std::size_t i = 1; i < list.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
          if (list[i].key == list[j].key) return &list[i].key;
        }
      }
      return nullptr;
    }
    order.resize(list.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(),
              [this](std::uint32_t a, std::uint32_t b) { return list[a].key < list[b].key; });
    const auto twice = std::adjacent_find(
        order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) { return list[a].key == list[b].key; });
    return twice == order.end() ? nullptr : &list[*twice].key;
  }
};

/// Builds the tree from the parser's events. An event that returns false ends the parsing; `problem` says why.
struct Json::Reader {
  explicit Reader(int most) : most_depth(most) {}

  int most_depth;
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
      return refuse(fmt::format("nested deeper than {} levels", most_depth));
    }
    open.push_back(std::move(container));
    return true;
  }
  bool leave() {
    Json closed = std::move(open.back());
    open.pop_back();
    if (closed.is_object()) {
      const std::string* twice = std::get<Object>(closed.value_)->seal();
      if (twice != nullptr)
        return refuse(fmt::format("the key {} stands twice in one object", scalar(twice->substr(0, 60))));
    }
    return put(std::move(closed));
  }

  bool null() { return put({}); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string& text) {
    if (text.find_first_of(".eE") == std::string::npos) return refuse("a whole number beyond 64 bits");
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
    return true;
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
  std::size_t read = 0;
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
  Json::Reader reader(limits.depth);
  read(text, reader, where, code);
  return std::move(reader.root);
}

std::optional<std::string> parse_json_text_field(std::string_view text, std::string_view key,
                                                 const std::string& where) {
  FieldReader reader{.wanted = key, .found = {}, .problem = {}};
  read(text, reader, where, ExitCode::bad_data);
  return std::move(reader.found);
}

void Json::MembersDelete::operator()(Members* members) const { delete members; }

Json::Json(Json&&) noexcept = default;
Json& Json::operator=(Json&&) noexcept = default;
Json::~Json() = default;

Json Json::array() {
  Json value;
  value.value_ = std::vector<Json>();
  return value;
}

Json Json::object(std::initializer_list<Field> fields) {
  Json value;
  value.value_ = Object(new Members);
  for (const Field& field : fields) value.add(field.key, std::move(field.value));
  return value;
}

bool Json::is_whole() const {
  return std::holds_alternative<std::int64_t>(value_) || std::holds_alternative<std::uint64_t>(value_);
}

bool Json::is_count() const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return *value >= 0;
  const auto* value = std::get_if<std::uint64_t>(&value_);
  return value != nullptr && *value <= static_cast<std::uint64_t>(INT64_MAX);
}

bool Json::is_number() const { return is_whole() || std::holds_alternative<double>(value_); }

bool Json::flag() const {
  if (!is_flag()) wrong_kind("true or false");
  return std::get<bool>(value_);
}

std::int64_t Json::whole() const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return *value;
  if (!is_count()) wrong_kind("a whole number of 64 bits");
  return static_cast<std::int64_t>(std::get<std::uint64_t>(value_));
}

std::int64_t Json::count(std::int64_t most) const {
  if (!is_count() || whole() > most) fail(ExitCode::bad_data, "the value is not a whole number of 0 to {}", most);
  return whole();
}

double Json::number() const {
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  if (const auto* value = std::get_if<std::uint64_t>(&value_)) return static_cast<double>(*value);
  const auto* value = std::get_if<std::int64_t>(&value_);
  if (value == nullptr) wrong_kind("a number");
  return static_cast<double>(*value);
}

const std::string& Json::text() const {
  if (!is_text()) wrong_kind("a text");
  return std::get<std::string>(value_);
}

const std::vector<Json>& Json::items() const {
  if (!is_array()) wrong_kind("a list");
  return std::get<std::vector<Json>>(value_);
}

const std::vector<Json::Member>& Json::members() const {
  if (!is_object()) wrong_kind("an object");
  return std::get<Object>(value_)->list;
}

std::size_t Json::size() const { return is_array() ? items().size() : is_object() ? members().size() : 0; }

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  const Member* member = std::get<Object>(value_)->find(key);
  return member == nullptr ? nullptr : &member->value;
}

const Json& Json::at(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail(ExitCode::bad_data, "{} is missing", key);
  return *value;
}

double Json::number_or(std::string_view key, double otherwise) const {
  const Json* value = find(key);
  return value == nullptr ? otherwise : value->number();
}

std::int64_t Json::whole_or(std::string_view key, std::int64_t otherwise) const {
  const Json* value = find(key);
  return value == nullptr ? otherwise : value->whole();
}

std::string Json::text_or(std::string_view key, std::string_view otherwise) const {
  const Json* value = find(key);
  return value == nullptr ? std::string(otherwise) : value->text();
}

void Json::push(Json value) {
  if (is_null()) *this = array();
  check(is_array(), "an element for a JSON value that is no array");
  std::get<std::vector<Json>>(value_).push_back(std::move(value));
}

Json& Json::add(std::string key, Json value) {
  if (is_null()) *this = object();
  check(is_object(), "a member '{}' for a JSON value that is no object", key);
  Members& members = *std::get<Object>(value_);
  members.order.clear();
  return members.list.emplace_back(std::move(key), std::move(value)).value;
}

Json& Json::set(std::string_view key, Json value) {
  if (Json* found = const_cast<Json*>(find(key))) return *found = std::move(value);
  return add(std::string(key), std::move(value));
}

void Json::write(std::string& out, int indent, int level) const {
  if (is_array() && !items().empty()) {
    char mark = '[';
    for (const Json& item : items()) {
      out += std::exchange(mark, ',');
      new_line(out, indent, level + 1);
      item.write(out, indent, level + 1);
    }
    new_line(out, indent, level);
    out += ']';
  } else if (is_object() && !members().empty()) {
    char mark = '{';
    for (const Member& member : members()) {
      out += std::exchange(mark, ',');
      new_line(out, indent, level + 1);
      out += scalar(member.key);
      out += indent < 0 ? ":" : ": ";
      member.value.write(out, indent, level + 1);
    }
    new_line(out, indent, level);
    out += '}';
  } else if (is_array() || is_object()) {
    out += is_array() ? "[]" : "{}";
  } else if (is_text()) {
    out += scalar(text());
  } else if (const auto* real = std::get_if<double>(&value_)) {
    out += scalar(*real);
  } else if (const auto* whole = std::get_if<std::int64_t>(&value_)) {
    out += fmt::format("{}", *whole);
  } else if (const auto* large = std::get_if<std::uint64_t>(&value_)) {
    out += fmt::format("{}", *large);
  } else {
    out += is_null() ? "null" : flag() ? "true" : "false";
  }
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

}  // namespace shoestring
