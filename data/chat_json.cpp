#include "data/chat_json.h"

#include <fmt/format.h>

namespace shoestring {
namespace {

// The shortest digits that read back, as Python's repr; fmt leaves ".0" out.
std::string number_text(const Json& value) {
  if (value.is_whole()) return value.dump();
  std::string text = fmt::format("{}", value.number());
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

class Writer {
 public:
  explicit Writer(int indent) : indent_(indent) {}

  void write(const Json& value, int level) {
    if (value.is_array()) {
      list('[', ']', value.items(), level, [&](const Json& item) { write(item, level + 1); });
    } else if (value.is_object()) {
      list('{', '}', value.members(), level, [&](const Json::Member& member) {
        out += Json(member.key).dump() + ": ";
        write(member.value, level + 1);
      });
    } else {
      out += value.is_number() ? number_text(value) : value.dump();
    }
  }

  std::string out;

 private:
  template <class Items, class Each>
  void list(char begin, char end, const Items& items, int level, const Each& each) {
    out += begin;
    bool first = true;
    for (const auto& item : items) {
      if (!first) out += indent_ > 0 ? "," : ", ";
      first = false;
      line(level + 1);
      each(item);
    }
    if (!first) line(level);
    out += end;
  }
  void line(int level) {
    if (indent_ > 0) out.append("\n").append(static_cast<std::size_t>(level * indent_), ' ');
  }

  int indent_;
};

}  // namespace

std::string python_json(const Json& value, int indent) {
  Writer writer(indent);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace shoestring
