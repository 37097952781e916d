#include "core/budget/report_page.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/budget/report_charts.h"
#include "core/budget/sha256.h"
#include "core/recipe/units.h"

namespace shoestring::page {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    switch (letter) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: {
        const auto code = static_cast<unsigned char>(letter);
        result += (code < 0x20 && letter != '\n') || code == 0x7f ? ' ' : letter;
      }
    }
  }
  return result;
}

std::string said(std::string_view text, std::size_t longest) {
  const bool cut = text.size() > longest;
  if (cut) {
    while (longest > 0 && (static_cast<unsigned char>(text[longest]) & 0xc0) == 0x80) --longest;  // inside a letter
  }
  return fmt::format("<span class=\"said\">{}{}</span>", escaped(text.substr(0, longest)), cut ? " …" : "");
}

std::string number(double value, const std::string& text, const std::string& pointer) {
  if (!std::isfinite(value)) return "<span class=\"none\">not finite</span>";  // and null in the document
  return fmt::format(R"(<data value="{}" data-at="{}">{}</data>)", value, escaped(pointer), escaped(text));
}

std::string number(std::int64_t value, const std::string& text, const std::string& pointer) {
  return fmt::format(R"(<data value="{}" data-at="{}">{}</data>)", value, escaped(pointer), escaped(text));
}

std::string pointer_key(std::string_view key) {
  std::string text;
  for (const char letter : key) text += letter == '~' ? "~0" : letter == '/' ? "~1" : std::string(1, letter);
  return text;
}

namespace {

constexpr const char* kUnknown = "<span class=\"none\">–</span>";

}  // namespace

std::string amount(double value, const std::string& pointer) { return number(value, rounded(value), pointer); }

std::string count(std::int64_t value, const std::string& pointer) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > (value < 0 ? 4u : 3u);) {
    at -= 3;
    text.insert(at, "\u202f");  // a narrow space that does not break
  }
  return number(value, text, pointer);
}

std::string money(double value, const std::string& pointer) {
  return value > 0 ? number(value, "$" + rounded(value), pointer) : kUnknown;
}

std::string share(double value, const std::string& pointer) {
  return number(value, fmt::format("{:.{}f}%", 100 * value, value != 0 && value < 0.001 ? 4 : 1), pointer);
}

std::string signed_share(double value, const std::string& pointer) {
  return number(value, fmt::format("{:+.1f}%", 100 * value), pointer);
}

std::string html(const Table& table) {
  const auto is_text = [&](std::size_t column) {
    return column == 0 || std::find(table.texts.begin(), table.texts.end(), column) != table.texts.end();
  };
  std::string text = "<div class=\"scroll\"><table>";
  if (!table.caption.empty()) text += fmt::format("<caption>{}</caption>", escaped(table.caption));
  text += "<thead><tr>";
  for (std::size_t i = 0; i < table.head.size(); ++i) {
    text += fmt::format("<th scope=\"col\"{}>{}</th>", is_text(i) ? "" : " class=\"n\"", table.head[i]);
  }
  text += "</tr></thead>\n<tbody>";
  for (std::size_t row = 0; row < table.rows.size(); ++row) {
    text += table.last_is_sum && row + 1 == table.rows.size() ? "<tr class=\"sum\">" : "<tr>";
    for (std::size_t i = 0; i < table.rows[row].size(); ++i) {
      const std::string& cell = table.rows[row][i];
      text += i == 0       ? fmt::format("<th scope=\"row\">{}</th>", cell)
              : is_text(i) ? fmt::format("<td>{}</td>", cell)
                           : fmt::format("<td class=\"n\">{}</td>", cell);
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

std::string folded(const std::string& line, const std::string& content) {
  return fmt::format("<details><summary>{}</summary>\n{}</details>\n", escaped(line), content);
}

std::string section(const std::string& title, const std::string& content, const char* look) {
  if (content.empty()) return {};
  return fmt::format("<section class=\"{}\"><h2>{}</h2>\n{}</section>\n", look, escaped(title), content);
}

std::string document(const std::string& title, const std::string& content, int refresh_seconds) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{}'; "
      "base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n{}"
      "<title>{}</title>\n<style>{}</style></head>\n<body>\n{}<main>\n{}</main></body></html>\n",
      sha256_base64(style()),
      refresh_seconds > 0 ? fmt::format("<meta http-equiv=\"refresh\" content=\"{}\">\n", refresh_seconds) : "",
      escaped(title), style(), charts::patterns(), content);
}

}  // namespace shoestring::page
