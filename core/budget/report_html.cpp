// The report as one page without scripts, links or outside resources: what is asked first stands on the first screen.
#include <fmt/core.h>

#include <algorithm>
#include <ctime>

#include "core/budget/report_charts.h"
#include "core/budget/report_page.h"
#include "core/budget/report_sections.h"
#include "core/recipe/units.h"

namespace shoestring {
namespace {

using page::amount;
using page::count;
using page::money;
using page::said;

std::string date_of(double unix_seconds) {
  const auto seconds = static_cast<std::time_t>(unix_seconds);
  std::tm when{};
  char text[64];
  if (!(unix_seconds > 0 && unix_seconds < 1e11) || ::gmtime_r(&seconds, &when) == nullptr) return {};
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &when)};
}

std::string badge(const Report& report) {
  const std::string& state = report.state;
  const bool good = state == "done" || state == "budget";
  const bool bad = state == "failed" || state == "died";
  const char* sign = good ? "✓" : bad ? "✕" : "…";
  return fmt::format("<span class=\"badge {}\">{} {}</span>",
                     good  ? "good"
                     : bad ? "bad"
                           : "warn",
                     sign, said(state_words(state), 40));
}

/// Finished or not, and why.
std::string why(const Report& report) {
  if (report.state == "budget") {
    return fmt::format("The next step and what had to follow it no longer fitted into {}.", said(report.cap_from));
  }
  if (report.state == "done") return "It took all the steps that its recipe asks for.";
  if (report.state == "preempted") return "It left as asked or as its job ended; the same command goes on.";
  if (report.state == "running") return "It is going on: these figures are of when this page was written.";
  if (report.state == "died")
    return "Its process was gone without a word; the same command goes on from what was saved.";
  return report.text.empty() ? std::string() : said(report.text, 600);
}

std::string head(const Report& report) {
  std::string facts;
  const auto add = [&](const std::string& fact) { facts += (facts.empty() ? "" : " · ") + fact; };
  if (!report.attempts.empty()) {
    const AttemptStart& start = report.attempts.back().start;
    const std::string last = std::to_string(report.attempts.size() - 1);
    add(fmt::format("{} {} {}", count(start.ranks, "/attempts/" + last + "/ranks"),
                    start.ranks == 1 ? "device" : "devices", report.hardware.empty() ? "" : said(report.hardware, 60)));
    if (report.parameters > 0) {
      add(fmt::format("{} parameters, {} active", amount(static_cast<double>(report.parameters), "/model/parameters"),
                      amount(static_cast<double>(report.active_parameters), "/model/active_parameters")));
    }
    const std::string begun = date_of(report.attempts.front().begin_unix_seconds);
    if (!begun.empty()) add("begun " + said(begun));
  }
  if (report.project != report.run) add("project " + said(report.project, 80));
  return fmt::format("<header><h1>{}</h1>{}<p class=\"why\">{}</p><p class=\"facts\">{}</p></header>\n",
                     said(report.run, 120), badge(report), why(report), facts);
}

struct Share {
  const char* look;
  const char* what;
  double hours;
  const char* pointer;
};

std::string spent(const Report& report) {
  const double lost = report.lost_gpu_hours();
  const double left = std::max(0.0, report.cap_gpu_hours - report.spent.gpu_hours);
  const double whole = std::max(report.cap_gpu_hours, report.spent.gpu_hours);
  std::vector<charts::Segment> segments = {{report.spent.gpu_hours - lost, "kept", "kept work and what it took"},
                                           {lost, "lost", "lost"}};
  std::string text = "<div><div class=\"label\">GPU-hours</div><div class=\"figure\">" +
                     amount(report.spent.gpu_hours, "/budget/spent_gpu_hours");
  std::string spoken = fmt::format("{} GPU-hours spent", rounded(report.spent.gpu_hours));
  if (report.cap_gpu_hours > 0) {
    text += fmt::format(" <small>of {} · {}</small>", amount(report.cap_gpu_hours, "/budget/cap_gpu_hours"),
                        page::share(report.spent_share(), "/budget/spent_share"));
    spoken += fmt::format(" of {}", rounded(report.cap_gpu_hours));
  } else {
    text += " <small>no cap</small>";
  }
  text += "</div>" + charts::bar(segments, whole, spoken);
  const auto key = [](const char* look, const std::string& what) {
    return fmt::format(
        "<li><svg class=\"swatch\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"{}\" width=\"12\" "
        "height=\"12\"/></svg>{}</li>",
        look, what);
  };
  text += "<ul class=\"legend\">" + key("kept", "kept");
  if (lost > 0) text += key("lost", "lost, then done again: " + amount(lost, "/budget/lost_gpu_hours"));
  if (left > 0) text += key("rest", "left");
  text += "</ul>";
  if (report.cap_gpu_hours > 0) {
    text +=
        fmt::format("<p class=\"note\">The cap is <code>{}</code>, over all attempts.</p>", said(report.cap_from, 60));
  }
  return text + "</div>\n";
}

std::string tile(const char* label, const std::string& value, const std::string& note) {
  return fmt::format(
      "<div class=\"tile\"><div class=\"label\">{}</div><div class=\"value\">{}</div><div "
      "class=\"note\">{}</div></div>\n",
      label, value, note);
}

std::string tiles(const Report& report) {
  std::string text = "<div class=\"tiles\">\n";
  if (report.price) {
    std::string note =
        fmt::format("{} per GPU-hour: {}, {}", money(report.price->usd_per_gpu_hour, "/budget/price/usd_per_gpu_hour"),
                    said(report.price->source, 160), said(report.price->date, 40));
    if (report.other_prices) note += "; earlier attempts at their own price";
    const bool capped = report.cap_from == "budget.usd";
    text += tile("Money",
                 money(report.spent.usd, "/budget/spent_usd") +
                     (capped ? " of " + money(report.cap_usd(), "/budget/cap_usd") : ""),
                 note);
  } else {
    text += tile("Money", "<span class=\"none\">no price</span>",
                 "Give <code>budget.usd_per_gpu_hour</code> and its source.");
  }
  if (report.validation) {
    const bool bytes = report.validation->bits_per_byte > 0;  // else conversations, and some of their tokens
    const std::string loss =
        page::number(report.validation->loss, fmt::format("{:.4f}", report.validation->loss), "/validation/loss");
    std::string note = fmt::format("{}, held out, step {}", bytes ? loss + " nats per token" : "nats per learned token",
                                   count(report.validation->step, "/validation/step"));
    if (report.validation->sequences < report.validation->all_sequences) {
      note += fmt::format("; on {} of {} sequences: the budget, or evaluation.cap_share, had no room for more",
                          count(report.validation->sequences, "/validation/sequences"),
                          count(report.validation->all_sequences, "/validation/all_sequences"));
    }
    const std::string bits =
        page::number(report.validation->bits_per_byte, fmt::format("{:.4f}", report.validation->bits_per_byte),
                     "/validation/bits_per_byte");
    text += tile(bytes ? "Bits per byte" : "Loss", bytes ? bits : loss, note);
  } else if (report.train_loss != 0) {
    text += tile("Loss", page::number(report.train_loss, fmt::format("{:.4f}", report.train_loss), "/train_loss"),
                 "nats per token, last step; no held-out text was looked at");
  } else {
    text += tile("Loss", "<span class=\"none\">none yet</span>", "");
  }
  std::string bought = fmt::format("in {} steps", count(report.steps, "/steps"));
  if (report.skipped > 0) bought += fmt::format(", {} of them skipped", count(report.skipped, "/skipped_steps"));
  if (report.learns_a_part()) {
    bought +=
        fmt::format("; {} of them learned", amount(static_cast<double>(report.learned_tokens), "/learned_tokens"));
  }
  if (report.tokens > 0) {
    bought += fmt::format("; {} per GPU-hour", amount(report.tokens_per_gpu_hour(), "/budget/tokens_per_gpu_hour"));
    if (report.spent.usd > 0) {
      bought +=
          fmt::format(", {} per billion", money(report.usd_per_billion_tokens(), "/budget/usd_per_billion_tokens"));
    }
  }
  text += tile("Tokens", amount(static_cast<double>(report.tokens), "/tokens"), bought);
  text += tile("Energy",
               report.spent.kwh > 0 ? amount(report.spent.kwh, "/budget/spent_kwh") + " kWh" +
                                          (report.cap_from == "budget.kwh" && report.cap_kwh() > 0
                                               ? " of " + amount(report.cap_kwh(), "/budget/cap_kwh")
                                               : "")
                                    : "<span class=\"none\">not known</span>",
               report.spent.kwh > 0 ? fmt::format("modelled: GPU-hours × {} W per device",
                                                  amount(report.watts, "/energy/watts_per_device"))
                                    : "The hardware file states no power.");
  return text + "</div>";
}

}  // namespace

std::string report_html(const Report& report, int refresh_seconds) {
  std::string content = head(report);
  content += "<section class=\"hero\" aria-label=\"In short\">\n" + spent(report) + tiles(report) + "</section>\n";
  content += page::where_it_went(report) + page::by_phase(report);
  content += page::burn_down(report) + page::losses(report) + page::suites(report);
  content += page::time_line(report) + page::foretold(report);
  content += page::learning_rate(report) + page::speed(report);
  content += page::utilisation(report) + page::pipeline(report) + page::data(report) + page::quantisation(report) +
             page::expert_balance(report) + page::experts(report);
  content += page::comparison(report) + page::recipe(report) + page::notes(report) + page::builds(report);
  content +=
      "<footer>Every number of this page stands in report.json too. One GPU-hour is one device for an hour, from "
      "the start of a process to its end, over all attempts, failed ones included.</footer>\n";
  return page::document(report.run + ": cost report", content, refresh_seconds);
}

}  // namespace shoestring
