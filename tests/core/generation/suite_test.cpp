#include "core/generation/suite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "core/generation/suite_run.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

SuiteRequest request_of(std::string_view line) {
  return read_suite_request(parse_json(line, "suite"), "suite, line 1");
}

SuiteAnswer likelihoods(const std::vector<double>& values) {
  SuiteAnswer answer;
  for (const double value : values) answer.likelihoods.push_back({value, false});
  return answer;
}

std::map<std::string, Measured> scores(const std::vector<SuiteRequest>& requests,
                                       const std::vector<SuiteAnswer>& answers) {
  return score_suite(requests, answers).at(0).scores;
}

// Of the sums the second is best; per character (2, 1, 4 of them) the first; per byte (2, 1, 8) the third would be.
TEST(Suite, MultipleChoiceBySumAndPerCharacter) {
  const std::string line =
      R"({"task":"t","request_type":"multiple_choice","context":"c","choices":["ab","x","\u00e9\u00e9\u00e9\u00e9"],"gold":)";
  const std::vector<SuiteRequest> requests{request_of(line + "1}"), request_of(line + "2}"), request_of(line + "0}")};
  const SuiteAnswer answer = likelihoods({-6, -4, -14});
  const auto found = scores(requests, {answer, answer, answer});
  EXPECT_NEAR(found.at("acc").value, 1.0 / 3, 1e-12);
  EXPECT_NEAR(found.at("acc_norm").value, 1.0 / 3, 1e-12);
  EXPECT_NEAR(found.at("acc").error, std::sqrt((2.0 / 3) / 2 / 3), 1e-12);  // deviation of 1 0 0 over the root of 3
  const auto first = scores({requests[0]}, {answer});
  EXPECT_EQ(first.at("acc").value, 1);
  EXPECT_EQ(first.at("acc_norm").value, 0);
  EXPECT_EQ(first.at("acc").error, -1);  // of one
  EXPECT_EQ(scores({requests[2]}, {answer}).at("acc_norm").value, 1);
}

TEST(Suite, PerplexityOfContinuations) {
  const SuiteRequest request =
      request_of(R"({"task":"t","request_type":"loglikelihood","context":"c","continuation":" d"})");
  SuiteAnswer one = likelihoods({-1}), three = likelihoods({-3});
  one.likelihoods[0].greedy = true;
  const auto found = scores({request, request}, {one, three});
  EXPECT_NEAR(found.at("perplexity").value, std::exp(2.0), 1e-12);
  EXPECT_NEAR(found.at("perplexity").error, std::exp(2.0) * 1.0, 1e-12);  // deviation root 2, over root 2
  EXPECT_EQ(found.at("acc").value, 0.5);
}

// 3 words and 1 + 2 + 1 + 2 + 1 bytes; 2 words and 3 bytes.
TEST(Suite, PerplexityOfTextsHasStatedDenominators) {
  const std::vector<SuiteRequest> requests{
      request_of(R"({"task":"t","request_type":"loglikelihood_rolling","text":"a  \u00e9\nbc"})"),
      request_of(R"({"task":"t","request_type":"loglikelihood_rolling","text":"d e"})")};
  EXPECT_EQ(words_of(requests[0].context), 3);
  EXPECT_EQ(requests[0].context.size(), 8u);
  const auto found = scores(requests, {likelihoods({-8}), likelihoods({-2})});
  EXPECT_NEAR(found.at("word_perplexity").value, std::exp(10.0 / 5), 1e-12);
  EXPECT_NEAR(found.at("byte_perplexity").value, std::exp(10.0 / 11), 1e-12);
  EXPECT_NEAR(found.at("bits_per_byte").value, 10.0 / 11 / std::log(2.0), 1e-12);
  // Residuals 8 - 8 r = -(2 - 3 r) = 8/11: the root of 2 (8/11)^2 * 2, over 11 bytes.
  EXPECT_NEAR(found.at("bits_per_byte").error, 2 * (8.0 / 11) / 11 / std::log(2.0), 1e-12);
}

TEST(Suite, CountsAsTheHarnessDoes) {
  EXPECT_EQ(words_of(""), 1);
  EXPECT_EQ(words_of("one"), 1);
  EXPECT_EQ(words_of(" one\u00a0two \n"), 4);  // what stands before, between and behind runs of white space
  EXPECT_EQ(characters_of("a\u00e9\U0001F600"), 3);
  EXPECT_EQ(characters_of("\xFF\xFF"), 2);
}

TEST(Suite, ExactMatchAsTheRequestCompares) {
  const std::string front = R"({"task":"t","request_type":"generate_until","context":"c","target":["Paris","42"])";
  const SuiteRequest plain = request_of(front + "}");
  EXPECT_TRUE(exact_match(plain, "42"));
  EXPECT_FALSE(exact_match(plain, " 42"));
  EXPECT_FALSE(exact_match(plain, "paris"));
  const SuiteRequest loose = request_of(front + R"(,"ignore_case":true,"ignore_punctuation":true,"strip":true})");
  EXPECT_TRUE(exact_match(loose, " paris. \n"));
  EXPECT_FALSE(exact_match(loose, "par is"));
  SuiteAnswer yes, no;
  yes.matched = true;
  const auto found = scores({plain, plain, plain, plain}, {yes, yes, yes, no});
  EXPECT_EQ(found.at("exact_match").value, 0.75);
  EXPECT_NEAR(found.at("exact_match").error, 0.25, 1e-12);  // deviation 1/2, over root 4
}

TEST(Suite, ReadsEveryKindAndKeepsTasksApart) {
  const testing::TemporaryFolder folder;
  const auto file = folder.path() / "suite.jsonl";
  std::ofstream(file) << R"({"task":"a","request_type":"multiple_choice","context":"c","choices":["x","y"],"gold":1})"
                      << "\n\n"
                      << R"({"task":"b","request_type":"generate_until","context":"c","target":"x","until":["\n"],)"
                      << R"("max_gen_toks":7})"
                      << "\n"
                      << R"({"task":"a","request_type":"multiple_choice","context":"c","choices":["x","y"],"gold":0,)"
                      << R"("delimiter":""})";
  const std::vector<SuiteRequest> requests = read_suite(file);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].delimiter, " ");
  EXPECT_EQ(requests[2].delimiter, "");
  EXPECT_EQ(requests[1].most_tokens, 7);
  SuiteAnswer text;
  text.text = "x";
  const std::vector<TaskScores> tasks = score_suite(requests, {likelihoods({-1, -2}), text, likelihoods({-1, -2})});
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].task, "a");
  EXPECT_EQ(tasks[0].scores.at("acc").value, 0.5);
  const std::string document = suite_document(tasks).dump();
  EXPECT_NE(document.find(R"("acc,none":0.5)"), std::string::npos) << document;
  EXPECT_NE(document.find(R"("exact_match_stderr,none":"N/A")"), std::string::npos) << document;
}

TEST(Suite, TextsMaySpellTokens) {
  SuiteRequest request;
  request.kind = SuiteKind::generate_until;
  request.context = "a</s>b";
  request.most_tokens = 1;
  EXPECT_EQ(tokens_of(request, *byte_tokenizer(), 0).prompt, (std::vector<std::int32_t>{'a', 256, 'b'}));
}

TEST(Suite, FaultsHaveFileAndLine) {
  const testing::TemporaryFolder folder;
  const auto file = folder.path() / "suite.jsonl";
  const auto refused = [&](const std::string& line, const std::string& named) {
    std::ofstream(file) << R"({"task":"a","request_type":"loglikelihood","context":"c","continuation":"d"})"
                        << "\n"
                        << line << "\n";
    try {
      read_suite(file);
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find("suite.jsonl, line 2"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  };
  refused("{", "");
  refused("[]", "");
  refused(R"({"request_type":"loglikelihood"})", "task");
  refused(R"({"task":"b","request_type":"guess"})", "multiple_choice");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":["x"],"gold":0})", "choices");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":["x","y"],"gold":2})", "gold is 2");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":["x",""],"gold":0})", "empty");
  refused(R"({"task":"b","request_type":"generate_until","context":"c","target":[]})", "target");
  refused(R"({"task":"b","request_type":"generate_until","context":"c","target":"x","until":[""]})", "until");
  refused(R"({"task":"a","request_type":"loglikelihood_rolling","text":"x"})", "another kind");
  refused(R"({"task":5,"request_type":"loglikelihood"})", "task: ");
  refused(R"({"task":"b","request_type":"loglikelihood","context":[],"continuation":"d"})", "context: ");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":["x","y"],"gold":-1})", "gold: ");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":["x",1],"gold":0})", "choices: ");
  refused(R"({"task":"b","request_type":"multiple_choice","context":"c","choices":[],"gold":0,"delimiter":1})",
          "delimiter: ");
  refused(R"({"task":"b","request_type":"generate_until","context":"c","target":"x","max_gen_toks":"9"})",
          "max_gen_toks: ");
  refused(R"({"task":"b","request_type":"generate_until","context":"c","target":"x","strip":1})", "strip: ");
  std::ofstream(file) << "\n";
  EXPECT_THROW(read_suite(file), Error);
}

}  // namespace
}  // namespace shoestring
