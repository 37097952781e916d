#include "data/line_fields.h"

#include <algorithm>

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

LineText text_of_line(std::string_view line, const LineFields& fields, const std::string& where_it_stands) {
  const std::string where = where_it_stands + ": is not JSON";
  if (is_plain(fields)) return {true, parse_json_text_field(line, fields.text.front(), where)};
  const Json json = parse_json(line, where);
  LineText answer;
  answer.wanted = std::all_of(fields.where.begin(), fields.where.end(),
                              [&](const FieldFilter& filter) { return matches(json, filter); });
  if (fields.chat) {
    if (answer.wanted) check_conversation(json, *fields.chat, where_it_stands);
    answer.text = std::string(line);
    return answer;
  }
  for (const std::string& path : fields.text) {
    const Json* value = at_path(json, path);
    if (value == nullptr || !value->is_text()) continue;
    if (answer.text) *answer.text += "\n\n";
    answer.text = answer.text.value_or("") + value->text();
  }
  return answer;
}

}  // namespace shoestring
