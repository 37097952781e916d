// A run as one row: for comparing runs, for sums over a folder of them, and for spreadsheets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/budget/report.h"

namespace shoestring {

RunSummary summary_of(const Report& report);
std::string summary_json(const RunSummary& run);

/// One line each under a header; RFC 4180, texts that a spreadsheet would take for a formula begin with a quote mark.
std::string summaries_csv(std::span<const RunSummary> runs);
/// The same for people, one column a run.
std::string comparison_text(std::span<const RunSummary> runs);

/// For a page; `pointer` is where the runs stand in its document: "/comparison/".
std::string summaries_table(std::span<const RunSummary> runs, const std::string& pointer);

/// The runs of a folder, and what they came to by project.
struct ProjectSum {
  std::string project;
  std::int64_t runs = 0;
  double gpu_hours = 0;
  double lost_gpu_hours = 0;
  double usd = 0;  ///< of the runs that have a price
  double kwh = 0;  ///< of those whose power is known
  std::int64_t tokens = 0;
};
struct Folder {
  std::string name;
  std::vector<RunSummary> runs;       ///< by project, then name
  std::vector<ProjectSum> projects;   ///< by name
  std::vector<std::string> not_read;  ///< what could not be, and why
  ProjectSum all() const;
};

/// Every folder in `directory` that holds a ledger. Throws Error(missing_input) where there is none.
Folder read_folder(const std::filesystem::path& directory);
std::string folder_text(const Folder& folder);
std::string folder_json(const Folder& folder);
std::string folder_html(const Folder& folder);

}  // namespace shoestring
