// The commands of the program, one file each; each returns the process's exit code or throws Error.
#pragma once

#include <string>
#include <vector>

namespace shoestring {

using Words = std::vector<std::string>;

int train_command(const Words& words);
int plan_command(const Words& words);
int report_command(const Words& words);
int explain_command(const Words& words);
int data_build_command(const Words& words);
int data_inspect_command(const Words& words);
int data_verify_command(const Words& words);
int sample_command(const Words& words);
int bench_command(const Words& words);

}  // namespace shoestring
