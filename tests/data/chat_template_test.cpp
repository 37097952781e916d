#include "data/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/chat_format.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

// The published ones are other people's: that each is known as what it prints is what tests/oracle/chat_compare.py is
// for. This one stands in a hundred models.
const std::string kChatml =
    R"({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + )"
    R"('<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ChatTemplate, WhatJinjaPassesOverIsNoDifference) {
  EXPECT_EQ(recognise_chat_format(kChatml), ChatFormat::chatml);
  for (const std::string& same :
       {kChatml + "\n", with(kChatml, "'\\n'}}", "'\n' }}"),
        with(kChatml, "'<|im_start|>' + m", "\"<|im_start|>\"\n+m"),
        with(kChatml, "{% for message in messages %}{{'", "\n  {%- for  message in\tmessages -%}\r\n  {{- '"),
        with(kChatml, "{% endfor %}", "{%endfor%}")}) {
    EXPECT_EQ(recognise_chat_format(same), ChatFormat::chatml) << same;
    EXPECT_EQ(canonical_template(same), canonical_template(kChatml));
  }
}

TEST(ChatTemplate, OneThatPrintsAnythingElseIsNotKnown) {
  for (const std::string& other :
       {with(kChatml, " + '\\n'}}", "}}"), with(kChatml, "assistant\\n'", "assistant\\nSure, '"),
        with(kChatml, "message['role']", "('human' if message['role'] == 'user' else message['role'])"),
        with(kChatml, "message['content']", "message['content'] | upper"), "{{ '<s>' }}" + kChatml, "<s>" + kChatml,
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nIn French.<|im_end|>\\n' }}{% endif %}" +
            kChatml,
        with(kChatml, "'<|im_start|>' + m", "'<|im_start|> ' + m"), with(kChatml, "{% endfor %}", " {% endfor %}"),
        with(kChatml, "}}{% endfor %}", "}}\n{% endfor %}"), with(kChatml, "'\\n' + m", "'\\\\n' + m"),
        kChatml.substr(0, kChatml.find("{% if")), std::string("<|im_start|><|im_end|>"), std::string()}) {
    EXPECT_EQ(recognise_chat_format(other), std::nullopt) << other;
  }
}

TEST(ChatTemplate, WhatCannotBeFollowedComesBackAsItIs) {
  for (const char* broken : {"{{ 'a' ", "{% x", "{# y", "{{ 'a\\x41' }}", "{{ 'a\\", "{{ {'a': 1}} ", "{{ 'a }}"}) {
    EXPECT_EQ(canonical_template(broken), broken);
  }
  EXPECT_EQ(canonical_template("{{ {'a': {'b': 1}} }} {# c #}-"), "{{{\"a\":{\"b\":1}}}} {# c #}-");
  EXPECT_EQ(canonical_template("a {{- b if 'c\"\\\\' -}} \n d {%- e %} f"), "a{{b if\"c\\\"\\\\\"}}d{%e%} f");
}

TEST(ChatTemplate, OfAFolder) {
  const testing::TemporaryFolder folder;
  EXPECT_EQ(chat_format_of(folder.path()), std::nullopt);
  EXPECT_EQ(chat_template_caveat(folder.path(), ChatFormat::chatml), "");
  const auto named = [](const char* name, const std::string& text) {
    return Json::object({{"name", name}, {"template", text}});
  };
  Json templates = Json::array();
  templates.push(named("x", "y"));
  templates.push(named("default", kChatml));
  std::ofstream(folder.path() / "tokenizer_config.json")
      << Json::object({{"chat_template", std::move(templates)}}).dump();
  EXPECT_EQ(chat_format_of(folder.path()), ChatFormat::chatml);
  EXPECT_EQ(chat_template_caveat(folder.path(), ChatFormat::chatml), "");
  EXPECT_NE(chat_template_caveat(folder.path(), ChatFormat::qwen3).find("that is chatml"), std::string::npos);
  std::ofstream(folder.path() / "chat_template.jinja") << "its own file wins";
  EXPECT_EQ(chat_format_of(folder.path()), std::nullopt);
  EXPECT_NE(chat_template_caveat(folder.path(), ChatFormat::chatml).find("known to print"), std::string::npos);
}

TEST(ChatTemplate, OneThatIsThereAndCannotBeReadIsNotNone) {
  for (const char* name : {"chat_template.jinja", "tokenizer_config.json"}) {
    const testing::TemporaryFolder folder;
    std::filesystem::create_symlink("gone", folder.path() / name);
    EXPECT_THROW(chat_format_of(folder.path()), Error) << name << ": a link to nothing";
    EXPECT_THROW(chat_template_caveat(folder.path(), ChatFormat::chatml), Error) << name;
    std::filesystem::remove(folder.path() / name);
    std::filesystem::create_directory(folder.path() / name);
    EXPECT_THROW(chat_format_of(folder.path()), Error) << name << ": a folder";
  }
}

}  // namespace
}  // namespace shoestring
