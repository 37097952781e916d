#include "kernels/base/json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/base/json_members.h"

// Trees are ours; nlohmann's library writes single values. Reading is in json_reader.cpp.

namespace shoestring {
namespace {

using Engine = nlohmann::json;

[[noreturn]] void wrong_kind(std::string_view key, const char* wanted) {
  fail(ExitCode::bad_data, "{}: the value must be {}", key, wanted);
}
[[noreturn]] void wrong_kind(const char* wanted) { fail(ExitCode::bad_data, "the value must be {}", wanted); }

std::string scalar(const Engine& value) { return value.dump(-1, ' ', false, Engine::error_handler_t::replace); }

void new_line(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

}  // namespace

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
  if (!is_count() || whole() > most) fail(ExitCode::bad_data, "the value must be a whole number of 0 to {}", most);
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
  if (value == nullptr) fail(ExitCode::bad_data, "{} is missing, and must be there", key);
  return *value;
}

double Json::number_or(std::string_view key, double otherwise) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_number()) wrong_kind(key, "a number");
  return value == nullptr ? otherwise : value->number();
}

std::int64_t Json::whole_or(std::string_view key, std::int64_t otherwise) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_whole()) wrong_kind(key, "a whole number of 64 bits");
  return value == nullptr ? otherwise : value->whole();
}

std::string Json::text_or(std::string_view key, std::string_view otherwise) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_text()) wrong_kind(key, "a text");
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
