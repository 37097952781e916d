// shoestring report | explain
#include <cstdio>

#include "core/budget/report.h"
#include "core/recipe/explain.h"
#include "core/recipe/installed.h"
#include "core/recipe/parse.h"
#include "kernels/base/check.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/messages.h"

namespace shoestring {

int report_command(const Words& words) {
  const Arguments arguments(
      {.command = "report",
       .positional = "RUN",
       .summary = "What the run in directory RUN cost and bought, from its ledger: also for a run "
                  "that is going on, failed or died.\nWrites report.json and report.html into it.",
       .options = {{"json", "", "print the JSON document"}, {"html", "", "print the HTML page"}},
       .least = 1,
       .most = 1},
      words);
  if (arguments.helped()) return 0;
  const std::filesystem::path run = arguments.positional()[0];
  const Report report = make_report(run);
  fmt::print("{}", arguments.has("json")   ? report_json(report)
                   : arguments.has("html") ? report_html(report)
                                           : report_text(report));
  try {
    write_report(run, report);
  } catch (const Error& error) {  // a report on a read-only place is still a report
    say("shoestring: the report was not stored: {}", error.what());
  }
  return 0;
}

int explain_command(const Words& words) {
  const Arguments arguments(
      {.command = "explain",
       .positional = "RECIPE [KEY]",
       .summary = "The effective value of a key (or of a section, or of every key), where it came "
                  "from and what it means.",
       .options = {},
       .least = 1,
       .most = 2,
       .recipe_overrides = true},
      words);
  if (arguments.helped()) return 0;
  const RecipeReading reading = parse_recipe(find_recipe(arguments.positional()[0]), arguments.overrides());
  fmt::print("{}", explain(reading, arguments.positional().size() > 1 ? arguments.positional()[1] : ""));
  return 0;
}

}  // namespace shoestring
