// JSON, ours and foreign: a small value type, one bounded reader, one writer. The only door to nlohmann's library,
// which stays inside json.cpp: including it costs seconds of compile time and copying its trees costs a stack frame a
// level.
//
// Foreign text is bounded before it becomes a tree: bytes, depth, no key twice in an object (so that a file means one
// thing), no NUL byte. A whole number beyond 64 bits, as transformers writes for a length without limit, becomes the
// nearest double, which is_whole denies. A tree takes at most some 40 bytes a byte of text, looking up a key is
// logarithmic, and trees are moved, never copied.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {

struct JsonLimits;

class Json {
 public:
  struct Member;  ///< a key and its value
  struct Field;   ///< the same as an argument of `object`

  Json() = default;  ///< null
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  template <std::integral Whole>
  requires(!std::same_as<Whole, bool>) Json(Whole value) {
    if constexpr (std::signed_integral<Whole>) {
      value_ = static_cast<std::int64_t>(value);
    } else {
      value_ = static_cast<std::uint64_t>(value);
    }
  }
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;
  Json(const Json&) = delete;
  Json& operator=(const Json&) = delete;
  ~Json();

  static Json array();
  static Json object(std::initializer_list<Field> fields = {});  ///< no key twice
  /// An array of a range's elements; an object of a range's pairs, no key twice.
  template <class Range>
  static Json array_of(const Range& range);
  template <class Range>
  static Json object_of(const Range& range);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_flag() const { return std::holds_alternative<bool>(value_); }
  bool is_whole() const;   ///< a number without fraction or exponent, of 64 bits
  bool is_count() const;   ///< a whole number of 0 to 2^63 - 1
  bool is_number() const;  ///< any number
  bool is_text() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<std::vector<Json>>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Each throws Error(bad_data) when the value is something else. Whole numbers must fit the type; counts are >= 0.
  bool flag() const;
  std::int64_t whole() const;
  std::int64_t count(std::int64_t most = INT64_MAX) const;
  double number() const;
  const std::string& text() const;
  const std::vector<Json>& items() const;
  const std::vector<Member>& members() const;
  std::size_t size() const;  ///< of an array or object; 0 for all else

  /// The value of a key; nullptr where there is none or this is no object.
  const Json* find(std::string_view key) const;
  const Json& at(std::string_view key) const;  ///< throws Error(bad_data) where there is none
  // The value of a key or, where there is none, another; a value of another kind is an Error(bad_data).
  double number_or(std::string_view key, double otherwise) const;
  std::int64_t whole_or(std::string_view key, std::int64_t otherwise) const;
  std::string text_or(std::string_view key, std::string_view otherwise) const;

  void push(Json value);                        ///< to an array (null becomes one)
  Json& add(std::string key, Json value);       ///< to an object (null becomes one) that has no such key
  Json& set(std::string_view key, Json value);  ///< adds or replaces; walks over the keys

  /// As text, on one line or with `indent` blanks a level. What is not UTF-8 is replaced, what is not finite is null.
  std::string dump(int indent = -1) const;

 private:
  struct Members;
  struct Reader;
  struct MembersDelete {
    void operator()(Members* members) const;
  };
  using Object = std::unique_ptr<Members, MembersDelete>;
  void write(std::string& out, int indent, int level) const;

  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, std::vector<Json>, Object>
      value_;
  friend Json parse_json(std::string_view, const std::string&, ExitCode, const JsonLimits&);
};

struct Json::Member {
  std::string key;
  Json value;
};

struct Json::Field {
  std::string key;
  mutable Json value;  // moved on: the elements of an initializer_list are const
};

struct JsonLimits {
  std::size_t bytes = std::size_t{64} << 20;
  int depth = 32;
  bool exact = false;  ///< refuse whole numbers beyond 64 bits: where what was read is written again
};

/// The value that `text` is. Throws Error(code) with `where`, line and column for what is not JSON or beyond a limit.
Json parse_json(std::string_view text, const std::string& where, ExitCode code = ExitCode::bad_data,
                const JsonLimits& limits = {});

/// The text under `key` of the object that `text` is (an error, should the key come twice), without making a tree:
/// for lines of corpora, whose other fields are nobody's business. Nothing when it is no object or has no such text.
std::optional<std::string> parse_json_text_field(std::string_view text, std::string_view key, const std::string& where);

template <class Range>
Json Json::array_of(const Range& range) {
  Json list = array();
  for (const auto& item : range) list.push(item);
  return list;
}

template <class Range>
Json Json::object_of(const Range& range) {
  Json all = object();
  for (const auto& [key, value] : range) all.add(std::string(key), value);
  return all;
}

}  // namespace shoestring
