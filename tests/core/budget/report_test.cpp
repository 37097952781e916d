#include "core/budget/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "kernels/base/check.h"
#include "tests/core/budget/hand_clock.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using nlohmann::json;
using testing::HandClock;
using testing::TemporaryFolder;

AttemptStart start_of(const std::string& run, bool price) {
  AttemptStart start;
  start.run = run;
  start.ranks = 2;
  start.cap = {0.05, "budget.gpu_hours", 1};
  if (price) start.price = Price{2, "example", "2026-11-21"};
  start.hardware.name = "cpu";
  start.hardware.peak_flops[RateFormat::fp8] = 1e12;
  start.hardware.achievable_flops[RateFormat::fp8] = 0.5e12;
  start.parameters = 1000;
  return start;
}

AttemptProgress at(std::int64_t step, double compute, const char* phase) {
  AttemptProgress progress;
  progress.step = step;
  progress.tokens = 512 * step;
  progress.phase = phase;
  progress.seconds[Category::startup] = 4;
  progress.seconds[Category::compute] = compute;
  progress.seconds[Category::evaluation] = 10;
  progress.flops[RateFormat::fp8] = 1.8e12;
  progress.loss = 2.5;
  progress.clipped = step / 2;
  progress.skipped = 3;
  progress.returns = 1;
  return progress;
}

/// Two phases; ends as told, or dies.
void write_run(const std::filesystem::path& folder, const std::string& run, const std::string& end, bool price) {
  HandClock clock;
  Ledger ledger(folder, clock);
  ledger.begin(start_of(run, price));
  ledger.phase("pretrain", at(0, 0, "pretrain"));
  clock.now += 40;
  ledger.phase("long", at(100, 80, "long"));
  ledger.evaluation({100, 5000, 2.25, 1.125, 3, 40, 90}, at(100, 80, "long"));
  ledger.suites({100, "pretrain", 7, 8, 1, {{"sums", "exact_match", 7, 0.5, 0.25}}}, at(100, 80, "long"));
  clock.now += 40;
  ledger.checkpoint({200, 102400, "step-200", 9, 1}, at(200, 150, "long"));
  clock.now += 3;
  DataReading read{.wait_seconds = 8,
                   .storage_bytes = 30'000'000,
                   .storage_seconds = 6,
                   .copy_bytes = 90'000'000,
                   .copy_seconds = 0.5,
                   .staged_bytes = 120'000'000,
                   .staged_seconds = 4,
                   .late = {{"/slow/<b>.h5", 5.5}, {"/slow/a.h5", 0.001}}};
  ledger.data({.wait_seconds = 100});  // an earlier one: the last line counts
  ledger.data(read);
  if (end.empty()) return;
  ledger.end(end, end == "failed" ? 81 : 0, end == "failed" ? "the loss is not finite <b>" : "", at(200, 166, "long"));
}

// A trial of speed afterwards is on the bill, and the run as finished as it was.
TEST(Report, ATrialOfSpeedLeavesARunFinished) {
  const TemporaryFolder folder;
  write_run(folder.path(), "r", "done", true);
  const double spent = make_report(folder.path()).spent.gpu_hours;
  {
    const HandClock clock;
    Ledger trial(folder.path(), clock);
    AttemptStart start = start_of("r", true);
    start.from_step = -1;
    trial.begin(start);
    AttemptProgress progress;
    progress.seconds[Category::startup] = 36;
    trial.end(std::string(kMeasuredOnly), 0, "", progress);
  }
  const Report report = make_report(folder.path());
  EXPECT_EQ(report.state, "done");
  EXPECT_EQ(report.steps, 200);
  EXPECT_NEAR(report.spent.gpu_hours, spent + 0.01, 1e-9);
}

TEST(Report, SaysWhatWasSpentAndBought) {
  TemporaryFolder folder;
  write_run(folder.path(), "small", "done", true);
  const Report report = make_report(folder.path());
  EXPECT_DOUBLE_EQ(report.spent.gpu_hours, 180.0 / 3600);
  const json document = json::parse(report_json(report));
  EXPECT_EQ(document["schema"], "shoestring.report/1");
  EXPECT_EQ(document["run"]["name"], "small");
  EXPECT_EQ(document["run"]["state"], "done");
  EXPECT_DOUBLE_EQ(document["budget"]["cap_gpu_hours"], 0.05);
  EXPECT_DOUBLE_EQ(document["budget"]["spent_gpu_hours"], 0.05);
  EXPECT_DOUBLE_EQ(document["budget"]["spent_usd"], 0.1);
  EXPECT_EQ(document["tokens"], 102400);
  EXPECT_EQ(document["validation"]["loss"], 2.25);
  EXPECT_EQ(document["validation"]["bits_per_byte"], 1.125);
  EXPECT_EQ(document["suites"][0]["scores"][0]["value"], 0.5);
  EXPECT_EQ(document["clipped_steps"], 100);
  EXPECT_EQ(document["skipped_steps"], 3);
  EXPECT_EQ(document["returns_to_checkpoints"], 1);
  EXPECT_NE(report_html(report).find("steps clipped"), std::string::npos);
  EXPECT_EQ(document["attempts"].size(), 1u);
  ASSERT_EQ(document["phases"].size(), 2u);
  EXPECT_EQ(document["phases"][0]["name"], "pretrain");
  EXPECT_EQ(document["phases"][0]["tokens"], 51200);
  EXPECT_NEAR(document["phases"][0]["gpu_hours"].get<double>(), 94.0 / 3600, 1e-12);
  double of_categories = 0;
  for (const auto& [name, hours] : document["categories"].items()) of_categories += hours.get<double>();
  EXPECT_NEAR(of_categories, 0.05, 1e-12);
  EXPECT_EQ(document["categories"].size(), static_cast<std::size_t>(kCategories));
  EXPECT_DOUBLE_EQ(document["utilisation"]["formats"]["fp8"]["of_peak"], 0.01);
  EXPECT_DOUBLE_EQ(document["utilisation"]["formats"]["fp8"]["of_achievable"], 0.02);
  const std::string text = report_text(report);
  for (const char* expected :
       {"GPU-hours  0.05 of 0.05 (100.0%, budget.gpu_hours)", "money      $0.1 at $2 per GPU-hour",
        "102.4K tokens in 200 steps, 3 of them skipped", "100 steps clipped, 3 skipped; 1 return to a checkpoint",
        "1.1250 bits per byte",
        "on 40 of 90 held-out sequences, spread evenly: the budget, or evaluation.cap_share, had no room",
        "exact_match", "7 of 8 questions", "compute", "pretrain", "of peak 1.00%"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\nnot in\n" << text;
  }
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 40) << text;
  EXPECT_EQ(held_out_words(2.25, 0), "2.2500 nats per learned token");
}

// Of conversations most is only read: it is paid for, and named apart from what is learned.
TEST(Report, NamesLearnedTokensApart) {
  for (const std::int64_t learned : {0, 250, 2040}) {
    TemporaryFolder folder;
    HandClock clock;
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of("chats", false));
    AttemptProgress progress = at(4, 20, "sft");
    progress.learned_tokens = learned;
    ledger.checkpoint({4, 2048, "step-4", 9, 1}, progress);
    ledger.end("done", 0, "", progress);
    const Report report = make_report(folder.path());
    const json document = json::parse(report_json(report));
    EXPECT_EQ(document["tokens"], 2048);
    EXPECT_EQ(document["learned_tokens"], learned == 0 ? json(nullptr) : json(learned));
    const bool named = learned == 250;
    EXPECT_EQ(report_text(report).find("2048 tokens, 250 of them learned, in 4 steps") != std::string::npos, named);
    EXPECT_EQ(report_text(report).find("nats per learned token, last step") != std::string::npos, named);
    EXPECT_EQ(report_html(report).find("of them learned") != std::string::npos, named);
  }
}

TEST(Report, HasRoomForWhatCameBeforeTheFirstStep) {
  TemporaryFolder folder;
  HandClock clock;
  Ledger ledger(folder.path(), clock);
  ledger.begin(start_of("measured", false));
  ledger.end("measured", 0, "", at(0, 20, ""));
  EXPECT_NE(report_text(make_report(folder.path())).find("(before the first step) "), std::string::npos);
}

// Neither a word of the number parser's nor the loss of another step.
TEST(Report, SaysThatALossIsNotFinite) {
  TemporaryFolder folder;
  {
    HandClock clock;
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of("broken", false));
    ledger.heartbeat(at(1, 10, "pretrain"));
    AttemptProgress broken = at(4, 20, "pretrain");
    broken.loss = std::nan("");
    ledger.checkpoint({4, 2048, "step-4", 9, 1}, broken);
    ledger.evaluation({4, 500, std::nan(""), std::nan(""), 3, 4, 4}, broken);
    ledger.end("failed", 81, "not finite", broken);
  }
  Report report = make_report(folder.path());
  compare(report, {report});
  const json document = json::parse(report_json(report));
  EXPECT_TRUE(document["train_loss"].is_null());
  EXPECT_TRUE(document["validation"]["loss"].is_null());
  EXPECT_EQ(document["validation"]["step"], 4);
  const std::string text = report_text(report);
  const std::string page = report_html(report);
  for (const char* expected : {"loss       not finite, last step", "held out   not finite (step 4)",
                               "2048 tokens in 4 steps, 3 of them skipped"}) {
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\nnot in\n" << text;
  }
  for (const std::string& whole : {text, page}) {
    for (const char* number : {">inf", ">nan", " inf", " nan", "\"inf", "\"nan", "2.5000"}) {
      EXPECT_EQ(whole.find(number), std::string::npos) << number << "\nin\n" << whole;
    }
  }
  EXPECT_NE(page.find("not finite</span>"), std::string::npos);
}

// Which shard was late, how long, and from where; how fast the storage was.
TEST(Report, SaysWhatDataWereWaitedFor) {
  TemporaryFolder folder;
  write_run(folder.path(), "small", "done", true);
  const Report report = make_report(folder.path());
  const json data = json::parse(report_json(report))["data"];
  EXPECT_DOUBLE_EQ(data["waited_seconds"], 8);
  EXPECT_EQ(data["storage"]["bytes"], 30'000'000);
  EXPECT_DOUBLE_EQ(data["storage"]["bytes_per_second"], 5e6);
  EXPECT_DOUBLE_EQ(data["staged"]["bytes_per_second"], 30e6);
  EXPECT_EQ(data["late"][0]["path"], "/slow/<b>.h5");
  EXPECT_DOUBLE_EQ(data["late"][0]["waited_seconds"], 5.5);
  const std::string text = report_text(report);
  EXPECT_NE(text.find("waited 8 device-seconds (4.4%)"), std::string::npos) << text;
  EXPECT_NE(text.find("at 5 MB/s where the shards lie"), std::string::npos) << text;
  EXPECT_NE(text.find("waited for /slow/<b>.h5"), std::string::npos) << text;
  EXPECT_EQ(text.find("a.h5"), std::string::npos) << "a millisecond is no news";
  const std::string page = report_html(report);
  EXPECT_NE(page.find("/slow/&lt;b&gt;.h5"), std::string::npos);
  EXPECT_NE(page.find("/data/late/0/waited_seconds"), std::string::npos);
}

TEST(Report, ARunThatFailedOrDiedHasOneToo) {
  for (const char* end : {"failed", ""}) {
    TemporaryFolder folder;
    write_run(folder.path(), "small", end, false);
    const Report report = make_report(folder.path());
    const json document = json::parse(report_json(report));
    EXPECT_EQ(document["run"]["state"], *end != 0 ? "failed" : "died");
    EXPECT_TRUE(document["budget"]["spent_usd"].is_null());
    EXPECT_GT(document["budget"]["lost_gpu_hours"].get<double>(), 0);
    EXPECT_EQ(document["tokens"], 102400);
    const std::string text = report_text(report);
    EXPECT_EQ(text.find('$'), std::string::npos) << "no price, no money\n" << text;
    EXPECT_NE(text.find("lost"), std::string::npos);
    if (*end != 0) {
      EXPECT_NE(text.find("the loss is not finite"), std::string::npos);
    }
  }
}

TEST(Report, ThePredictionIsComparedWithWhatHappened) {
  TemporaryFolder folder;
  write_run(folder.path(), "small", "done", true);
  testing::write_text(folder / "plan.json", R"({"schema":"shoestring.plan/1","gpu_hours":0.06,"tokens":102400})");
  const Report report = make_report(folder.path());
  EXPECT_NEAR(json::parse(report_json(report))["predicted"]["gpu_hours_error"].get<double>(), 0.2, 1e-9);
  EXPECT_NE(report_text(report).find("+20.0%"), std::string::npos) << report_text(report);
  testing::write_text(folder / "plan.json", R"({"recipe":"another","gpu_hours":0.06,"tokens":102400})");
  EXPECT_NE(report_text(make_report(folder.path())).find("made for another recipe"), std::string::npos);
  EXPECT_TRUE(json::parse(report_json(make_report(folder.path())))["predicted"].is_null());
  testing::write_text(folder / "plan.json", "{broken");
  EXPECT_TRUE(make_report(folder.path()).foretold.empty());
}

TEST(Report, NoLedgerIsMissingInput) {
  TemporaryFolder folder;
  try {
    make_report(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
  testing::write_text(folder / "ledger.jsonl", "");
  EXPECT_EQ(make_report(folder.path()).state, "empty");
  EXPECT_FALSE(report_text(make_report(folder.path())).empty());
}

TEST(Report, StringsCannotBreakOutOfThePage) {
  const std::string payloads[] = {"<script>alert(1)</script>",
                                  "\"><img src=x onerror=alert(1)>",
                                  "' onmouseover='alert(1)",
                                  "</title><svg/onload=x>",
                                  "</script><script>x",
                                  "<!--",
                                  "]]>",
                                  "&lt;script&gt;",
                                  "javascript:alert(1)",
                                  "</table></body>",
                                  "<a href=x>",
                                  "\x1b[2J<b>",
                                  "{{7*7}}",
                                  "<style>*{}</style>",
                                  "<iframe src=//x>",
                                  "<math><mi//xlink:href=x>",
                                  "\u2028<x>",
                                  "%3Cx%3E"};
  TemporaryFolder plain_folder;
  write_run(plain_folder.path(), "name", "failed", true);
  const auto tags = [](const std::string& page) { return std::count(page.begin(), page.end(), '<'); };
  Report plain = make_report(plain_folder.path());
  plain.text = plain.cap_from = plain.hardware = plain.recipe_text = "x";
  plain.project = "y";
  plain.changed_keys = {{"x", "x", "x"}};
  plain.foretold = {{"x", 1, 1}};
  const auto expected = tags(report_html(plain));
  for (const std::string& payload : payloads) {
    Report report = plain;
    report.run = report.state = report.text = report.cap_from = report.hardware = payload;
    report.price->source = report.price->date = payload;
    for (PhaseCost& phase : report.phases) phase.name = payload;
    report.recipe_text = payload;
    report.project = payload + "y";
    report.changed_keys = {{payload, payload, payload}};
    report.foretold = {{payload, 1, 1}};
    for (AttemptHistory& attempt : report.attempts) attempt.start.host = attempt.reason = attempt.text = payload;
    const std::string page = report_html(report);
    EXPECT_EQ(tags(page), expected) << payload;
    EXPECT_EQ(page.find("<script"), std::string::npos);
    EXPECT_EQ(report_text(report).find('\x1b'), std::string::npos);
    EXPECT_EQ(json::parse(report_json(report))["run"]["name"], payload);
  }
  EXPECT_NE(report_html(plain).find("Content-Security-Policy"), std::string::npos);
}

// The cost table of the technical report (arXiv 2412.19437, table 1), from a ledger of its figures: 2048 devices, three
// phases of 2664K, 119K and 5K H800-hours at $2.
TEST(Report, PrintsTheTableOfDeepSeekV3) {
  TemporaryFolder folder;
  {
    HandClock clock;
    Ledger ledger(folder.path(), clock);
    AttemptStart start = start_of("deepseek_v3", true);
    start.ranks = 2048;
    start.cap = {2788e3, "budget.gpu_hours", 1e6};
    start.hardware.name = "H800";
    ledger.begin(start);
    const auto progress = [](double gpu_hours, std::int64_t step, const char* phase) {
      AttemptProgress at;
      at.step = step;
      at.tokens = step * 1000;
      at.phase = phase;
      at.seconds[Category::compute] = gpu_hours * 3600;
      return at;
    };
    ledger.phase("Pre-Training", progress(0, 0, "Pre-Training"));
    ledger.phase("Context Extension", progress(2664e3, 100, "Context Extension"));
    ledger.phase("Post-Training", progress(2664e3 + 119e3, 110, "Post-Training"));
    const AttemptProgress last = progress(2788e3, 120, "Post-Training");
    ledger.checkpoint({120, 120000, "step_00000120", 1, 1}, last);
    ledger.end("done", 0, "", last);
  }
  const Report report = make_report(folder.path());
  EXPECT_DOUBLE_EQ(report.spent.gpu_hours, 2788e3);
  EXPECT_NEAR(report.spent.usd, 5.576e6, 1e-3);
  const std::string page = report_html(report);
  std::string words;  // of the page's tables, tags left out
  bool tag = false;
  for (const char letter : page.substr(page.find("training costs"))) {
    tag = letter == '<' || (tag && letter != '>');
    if (letter == '>' && !words.empty() && words.back() != ' ') words += ' ';
    if (!tag && letter != '>' && letter != '\n') words += letter;
  }
  for (const char* row : {"Pre-Training Context Extension Post-Training total", "GPU-hours 2664K 119K 5K 2788K",
                          "in US dollars $5.328M $0.238M $0.01M $5.576M"}) {
    EXPECT_NE(words.find(row), std::string::npos) << row << "\nnot in\n" << words.substr(0, 600);
  }
}

// Two attempts, on other numbers of devices and at other prices, in one ledger.
TEST(Report, EachAttemptCostsItsOwnPrice) {
  TemporaryFolder folder;
  for (const int ranks : {2, 4}) {
    HandClock clock;
    clock.now += 1000 * ranks;
    Ledger ledger(folder.path(), clock);
    AttemptStart start = start_of("small", true);
    start.ranks = ranks;
    start.price->usd_per_gpu_hour = ranks;
    start.hardware.watts = 500;
    start.from_step = ranks == 2 ? 0 : 100;
    ledger.begin(start);
    const AttemptProgress point = at(100 * ranks, 3586, "pretrain");  // an hour with startup and evaluation
    ledger.checkpoint({100 * ranks / (4 / ranks), 5, "step", 1, 1}, point);
    ledger.end("preempted", 75, "", point);
  }
  const Report report = make_report(folder.path());
  EXPECT_DOUBLE_EQ(report.spent.gpu_hours, 2);
  EXPECT_DOUBLE_EQ(report.spent.usd, 6);  // an hour at $2, one at $4
  EXPECT_DOUBLE_EQ(report.spent.kwh, 1);
  EXPECT_TRUE(report.other_prices);
  const json document = json::parse(report_json(report));
  EXPECT_EQ(document["energy"]["kind"], "modelled");
  EXPECT_EQ(document["attempts"][1]["ranks"], 4);
  EXPECT_NE(report_text(report).find("earlier attempts at their own price"), std::string::npos);
}

// Whoever leaves the price out of a later start does not get those hours for nothing.
TEST(Report, AnAttemptWithoutAPriceIsChargedAtTheNewest) {
  TemporaryFolder folder;
  for (const bool priced : {true, false}) {
    HandClock clock;
    Ledger ledger(folder.path(), clock);
    AttemptStart start = start_of("small", priced);
    start.from_step = priced ? 0 : 100;
    ledger.begin(start);
    const AttemptProgress point = at(priced ? 100 : 200, 3586, "pretrain");
    ledger.checkpoint({priced ? 100 : 200, 5, "step", 1, 1}, point);
    ledger.end("preempted", 75, "", point);
  }
  const Report report = make_report(folder.path());
  EXPECT_GT(report.attempts[1].charged.total(), 3000);
  EXPECT_DOUBLE_EQ(report.spent.usd, 2 * report.spent.gpu_hours);
  EXPECT_NE(report_text(report).find("at $2 per GPU-hour"), std::string::npos);
}

json schema() { return json::parse(testing::read_text(SHOESTRING_SOURCE_DIR "/core/budget/report.schema.json")); }

bool fits(const json& document) {
  valijson::Schema parsed;
  const json file = schema();
  valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(file), parsed);
  valijson::Validator validator;
  return validator.validate(parsed, valijson::adapters::NlohmannJsonAdapter(document), nullptr);
}

TEST(Report, FitsItsSchema) {
  for (const char* end : {"done", "failed", ""}) {
    TemporaryFolder folder;
    write_run(folder.path(), "small", end, *end == 'd');
    testing::write_text(folder / "plan.json", R"({"gpu_hours":0.06,"tokens":102400})");
    testing::write_text(folder / "recipe.recipe", "[run]\nname = small\n");
    testing::write_text(folder / "metrics.jsonl",
                        R"({"step":1,"tokens":2,"loss":3,"gradient_norm":1,"quantisation":{"saturated.weight":0.5},)"
                        R"("timing":{"gpu_hours":0.1}})"
                        "\n");
    Report report = make_report(folder.path());
    compare(report, {report});
    const json document = json::parse(report_json(report));
    EXPECT_TRUE(fits(document)) << document.dump(1);
    EXPECT_EQ(document["curve"]["points"].size(), 1u);
    EXPECT_EQ(document["foretold"].size(), 2u);
    for (const auto& [key, value] : document.items()) {  // each key is needed, and is of its own kind
      json damaged = document;
      damaged.erase(key);
      EXPECT_FALSE(fits(damaged)) << key << " is left out";
      damaged[key] = json::array({json::array()});
      EXPECT_FALSE(fits(damaged)) << key << " is something else";
    }
  }
  TemporaryFolder folder;
  testing::write_text(folder / "ledger.jsonl", "");
  EXPECT_TRUE(fits(json::parse(report_json(make_report(folder.path())))));
}

TEST(Report, FilesAreWrittenWhole) {
  TemporaryFolder folder;
  write_run(folder.path(), "small", "done", true);
  write_report(folder.path(), make_report(folder.path()));
  EXPECT_EQ(json::parse(testing::read_text(folder / "report.json"))["run"]["name"], "small");
  EXPECT_TRUE(testing::read_text(folder / "report.html").ends_with("</html>\n"));
  EXPECT_FALSE(std::filesystem::exists(folder / "report.json.tmp"));
}

}  // namespace
}  // namespace shoestring
