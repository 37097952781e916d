#include "tools/shard_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/budget/report_charts.h"
#include "core/budget/report_page.h"

namespace shoestring {
namespace {

constexpr std::size_t kBarWidth = 40;  // characters

double share(std::uint64_t part, std::uint64_t all) {
  return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

std::string range(const LengthBin& bin) { return fmt::format("{} to {}", bin.from, 2 * bin.from - 1); }

// One line whatever the text holds: a piece may be a line end, a control, half a character.
std::string visible(std::string_view text) {
  std::string shown;
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '\n') {
      shown += "\\n";
    } else if (code < 0x20 || code == 0x7F) {
      shown += fmt::format("\\x{:02x}", code);
    } else {
      shown += letter;
    }
  }
  return shown;
}

std::uint64_t most_tokens(const ShardContents& contents) {
  std::uint64_t most = 1;
  for (const LengthBin& bin : contents.lengths) most = std::max(most, bin.tokens);
  return most;
}

std::string tokens_per_byte(const ShardContents& contents) {
  return contents.tokens_per_byte > 0 ? fmt::format("{:.4f}", contents.tokens_per_byte) : "not known";
}

}  // namespace

std::string contents_text(const ShardContents& contents) {
  std::string text = fmt::format(
      "{} shards, {} documents, {} tokens; tokens per byte of text {}; {} of {} ids occur\n\n  tokens a document     "
      "documents       tokens\n",
      contents.shards, contents.documents, contents.tokens, tokens_per_byte(contents), contents.distinct_ids,
      contents.vocabulary_size);
  for (const LengthBin& bin : contents.lengths) {
    if (bin.documents == 0) continue;
    const auto width = static_cast<std::size_t>(share(bin.tokens, most_tokens(contents)) * kBarWidth);
    text += fmt::format("  {:<18} {:>12} {:>12}  {}\n", range(bin), bin.documents, bin.tokens, std::string(width, '#'));
  }
  text += "\n  source               shards    documents       tokens\n";
  for (const auto& [name, source] : contents.sources) {
    text +=
        fmt::format("  {:<18} {:>8} {:>12} {:>12}\n", visible(name), source.shards, source.documents, source.tokens);
  }
  text += "\n  most frequent         count   share\n";
  for (const PieceCount& piece : contents.frequent) {
    text += fmt::format("  {:>7} {:>18} {:>6.2f}%  {}\n", piece.id, piece.count,
                        100 * share(piece.count, contents.tokens), visible(piece.text));
  }
  for (const DocumentSample& sample : contents.samples) {
    text += fmt::format("\n  {} ({} tokens):\n    {}\n", sample.place, sample.tokens, visible(sample.text));
  }
  return text;
}

std::string contents_page(const std::string& title, const ShardContents& contents) {
  using page::escaped;
  const auto number = [](std::uint64_t value) { return escaped(fmt::format("{}", value)); };
  page::Table lengths{"Documents by length", {"tokens", "", "documents", "tokens in all"}, {}, {1}};
  for (const LengthBin& bin : contents.lengths) {
    if (bin.documents == 0) continue;
    const auto length = static_cast<double>(bin.tokens);
    lengths.rows.push_back({escaped(range(bin)),
                            charts::bar({{length, "kept", "tokens"}}, static_cast<double>(most_tokens(contents)),
                                        fmt::format("{} tokens", bin.tokens)),
                            number(bin.documents), number(bin.tokens)});
  }
  page::Table sources{"Sources", {"source", "shards", "documents", "tokens"}, {}, {}};
  for (const auto& [name, source] : contents.sources) {
    sources.rows.push_back({page::said(name), number(source.shards), number(source.documents), number(source.tokens)});
  }
  page::Table frequent{"Most frequent pieces", {"id", "piece", "count", "share"}, {}, {1}};
  for (const PieceCount& piece : contents.frequent) {
    frequent.rows.push_back({number(piece.id), page::said(visible(piece.text)), number(piece.count),
                             escaped(fmt::format("{:.2f}%", 100 * share(piece.count, contents.tokens)))});
  }
  std::string samples;
  for (const DocumentSample& sample : contents.samples) {
    samples += page::folded(fmt::format("{}, {} tokens", sample.place, sample.tokens),
                            fmt::format("<pre>{}</pre>\n", escaped(sample.text)));
  }
  const std::string summary = fmt::format(
      "<p>{} shards, {} documents, {} tokens; tokens per byte of text {}; {} of {} ids occur.</p>\n", contents.shards,
      contents.documents, contents.tokens, tokens_per_byte(contents), contents.distinct_ids, contents.vocabulary_size);
  return page::document(
      title,
      fmt::format("<h1>{}</h1>\n", escaped(title)) + page::section("In all", summary) +
          page::section("Lengths", page::html(lengths)) + page::section("Sources", page::html(sources)) +
          page::section("Most frequent pieces", page::html(frequent)) + page::section("Documents", samples),
      0);
}

}  // namespace shoestring
