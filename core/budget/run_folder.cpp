// A folder of runs on one page, summed by project.
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "core/budget/report_page.h"
#include "core/budget/run_summary.h"
#include "core/recipe/units.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

void add(ProjectSum& sum, const RunSummary& run) {
  ++sum.runs;
  sum.gpu_hours += run.gpu_hours;
  sum.lost_gpu_hours += run.lost_gpu_hours;
  sum.usd += run.usd;
  sum.kwh += run.kwh;
  sum.tokens += run.tokens;
}

Json json_of(const ProjectSum& sum) {
  const auto known = [](double value) { return value > 0 ? Json(value) : Json(); };
  return Json::object({{"project", sum.project},
                       {"runs", sum.runs},
                       {"gpu_hours", sum.gpu_hours},
                       {"lost_gpu_hours", sum.lost_gpu_hours},
                       {"usd", known(sum.usd)},
                       {"kwh", known(sum.kwh)},
                       {"tokens", sum.tokens}});
}

std::vector<std::string> row_of(const ProjectSum& sum, const std::string& name, const std::string& at) {
  return {name,
          page::count(sum.runs, at + "runs"),
          page::amount(sum.gpu_hours, at + "gpu_hours"),
          page::amount(sum.lost_gpu_hours, at + "lost_gpu_hours"),
          page::money(sum.usd, at + "usd"),
          sum.kwh > 0 ? page::amount(sum.kwh, at + "kwh") : "–",
          page::amount(static_cast<double>(sum.tokens), at + "tokens")};
}

}  // namespace

ProjectSum Folder::all() const {
  ProjectSum sum;
  for (const RunSummary& run : runs) add(sum, run);
  return sum;
}

Folder read_folder(const std::filesystem::path& directory) {
  Folder folder;
  folder.name = directory.string();
  for (const std::filesystem::path& entry : list_directory(directory)) {
    if (type_of(entry) != std::filesystem::file_type::directory) continue;
    if (type_of(entry / kLedgerFile) == std::filesystem::file_type::not_found) continue;
    try {
      folder.runs.push_back(summary_of(make_report(entry)));
    } catch (const Error& error) {
      folder.not_read.push_back(error.what());
    }
  }
  if (folder.runs.empty() && folder.not_read.empty()) {
    fail(ExitCode::missing_input, "{} holds no folder with a {}: name the folder that runs are kept in, as runs",
         directory.string(), kLedgerFile);
  }
  std::sort(folder.runs.begin(), folder.runs.end(), [](const RunSummary& a, const RunSummary& b) {
    return std::tie(a.project, a.run) < std::tie(b.project, b.run);
  });
  for (const RunSummary& run : folder.runs) {
    if (folder.projects.empty() || folder.projects.back().project != run.project) {
      folder.projects.push_back({.project = run.project});
    }
    add(folder.projects.back(), run);
  }
  return folder;
}

std::string folder_text(const Folder& folder) {
  const auto line = [](const std::string& name, const ProjectSum& sum) {
    return fmt::format("  {:<24} {:>5} {:>10} {:>10} {:>10} {:>9}\n", name.substr(0, 24), sum.runs,
                       rounded(sum.gpu_hours), rounded(sum.lost_gpu_hours), sum.usd > 0 ? "$" + rounded(sum.usd) : "-",
                       rounded(static_cast<double>(sum.tokens)));
  };
  std::string text = fmt::format("  {:<24} {:>5} {:>10} {:>10} {:>10} {:>9}\n", "project", "runs", "GPU-hours", "lost",
                                 "money", "tokens");
  for (const ProjectSum& sum : folder.projects) {
    std::string name = sum.project;
    for (char& letter : name) {
      if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f) letter = '?';
    }
    text += line(name, sum);
  }
  text += line("all", folder.all());
  for (const std::string& why : folder.not_read) text += "  not read: " + why + "\n";
  return text;
}

std::string folder_json(const Folder& folder) {
  Json projects = Json::array();
  for (const ProjectSum& sum : folder.projects) projects.push(json_of(sum));
  Json runs = Json::array();
  for (const RunSummary& run : folder.runs) runs.push(parse_json(summary_json(run), "a run"));
  return Json::object({{"schema", "shoestring.runs/1"},
                       {"folder", folder.name},
                       {"all", json_of(folder.all())},
                       {"projects", std::move(projects)},
                       {"runs", std::move(runs)},
                       {"not_read", Json::array_of(folder.not_read)}})
             .dump(2) +
         "\n";
}

std::string folder_html(const Folder& folder) {
  page::Table table{.caption = "Projects",
                    .head = {"project", "runs", "GPU-hours", "lost", "money", "kWh", "tokens"},
                    .rows = {},
                    .texts = {},
                    .last_is_sum = true};
  for (std::size_t i = 0; i < folder.projects.size(); ++i) {
    table.rows.push_back(
        row_of(folder.projects[i], page::said(folder.projects[i].project, 80), fmt::format("/projects/{}/", i)));
  }
  table.rows.push_back(row_of(folder.all(), "all", "/all/"));
  std::string content = fmt::format("<header><h1>Runs in {}</h1></header>\n", page::said(folder.name, 200));
  content += page::section("By project", page::html(table), "wide");
  content += page::section("The runs", summaries_table(folder.runs, "/runs/"), "wide");
  std::string not_read;
  for (const std::string& why : folder.not_read) not_read += "<p>" + page::said(why) + "</p>";
  content += page::section("Not read", not_read, "wide");
  content += "<footer>Money and energy are of the runs whose price and power are known.</footer>\n";
  return page::document("Runs: what they cost", content, 0);
}

}  // namespace shoestring
