#include "data/line_fields.h"

#include <algorithm>
#include <utility>

#include "data/line_scan.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

const Json* at_path(const Json& object, std::string_view path) {
  if (const Json* found = object.find(path)) return found;
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos) return nullptr;
  const Json* inner = object.find(path.substr(0, dot));
  return inner == nullptr ? nullptr : at_path(*inner, path.substr(dot + 1));
}

bool matches(const Json& line, const FieldFilter& filter) {
  const Json* value = at_path(line, filter.path);
  if (value == nullptr) return false;
  if (value->is_text()) return value->text() == filter.value;
  return (value->is_flag() || value->is_number()) && value->dump() == filter.value;
}

/// What `read` makes of a line. It is given no place, so that its error begins with ":1:193: ": the line's own front.
template <class Read>
auto as_json(const std::string& where, const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    std::string_view what = error.what();
    const bool placed = what.starts_with(":1:");
    if (placed) what.remove_prefix(3);
    fail(error.code(), "{}: is not JSON{}{}", where, placed ? " at character " : "", what);
  }
}

// Of the one common case no tree is made.
bool is_plain(const LineFields& fields) {
  return !fields.chat && fields.where.empty() && fields.text.size() == 1 &&
         fields.text.front().find('.') == std::string::npos;
}

void check_conversation(const Json& line, ChatFormat format, const std::string& where) {
  const Conversation conversation = read_conversation(line, where);
  try {
    const auto pieces = render_chat(format, conversation, {.training = true});
    if (std::any_of(pieces.begin(), pieces.end(), [](const ChatPiece& piece) { return piece.learned; })) return;
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", where, error.what());
  }
  fail(ExitCode::bad_data,
       "{}: there is nothing to learn in it: no reply, or none whose reasoning the format {} keeps; leave it out",
       where, name(format));
}

}  // namespace

FieldFilter field_filter(const std::string& word) {
  const std::size_t equals = word.find('=');
  if (equals == 0 || equals == std::string::npos) {
    fail(ExitCode::usage, "'{}' is no filter; write --where FIELD=VALUE, for example lang=en", word);
  }
  return {word.substr(0, equals), word.substr(equals + 1)};
}

LineText text_of_line(std::string_view line, const LineFields& fields, const std::string& where) {
  if (is_plain(fields)) {
    const std::string& field = fields.text.front();
    if (auto text = scan_text_field(line, field)) return {true, std::move(text)};
    return {true, as_json(where, [&] { return parse_json_text_field(line, field, ""); })};
  }
  const JsonLimits limits{.exact = fields.chat.has_value()};  // of conversations, arguments of calls are written again
  const Json json = as_json(where, [&] { return parse_json(line, "", ExitCode::bad_data, limits); });
  LineText answer;
  answer.wanted = std::all_of(fields.where.begin(), fields.where.end(),
                              [&](const FieldFilter& filter) { return matches(json, filter); });
  if (fields.chat) {
    if (answer.wanted) check_conversation(json, *fields.chat, where);
    answer.text = std::string(line);
    return answer;
  }
  for (std::size_t at = 0; at < fields.text.size(); ++at) {
    const Json* value = at_path(json, fields.text[at]);
    if (value == nullptr || !value->is_text()) {
      answer.absent.push_back(at);
      continue;
    }
    if (answer.text) *answer.text += "\n\n";
    answer.text = answer.text.value_or("") + value->text();
  }
  return answer;
}

}  // namespace shoestring
