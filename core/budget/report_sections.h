// The sections of a run's page, in two files: report_tables.cpp (bill, attempts, utilisation, recipe ...) and
// report_curves.cpp (what is drawn over time). Each is HTML, or empty where nothing is known. Not for others than
// report_html.cpp.
#pragma once

#include <string>

#include "core/budget/report.h"

namespace shoestring::page {

std::string where_it_went(const Report& report);
/// The phases as columns, GPU-hours and money as rows: the form of the cost table in DeepSeek-V3's report.
std::string by_phase(const Report& report);
std::string suites(const Report& report);
std::string time_line(const Report& report);
std::string foretold(const Report& report);
std::string utilisation(const Report& report);
std::string pipeline(const Report& report);
std::string data(const Report& report);
std::string experts(const Report& report);
std::string comparison(const Report& report);
std::string recipe(const Report& report);
std::string builds(const Report& report);
std::string notes(const Report& report);

std::string burn_down(const Report& report);
std::string losses(const Report& report);
std::string learning_rate(const Report& report);
std::string speed(const Report& report);
std::string quantisation(const Report& report);
std::string expert_balance(const Report& report);

}  // namespace shoestring::page
