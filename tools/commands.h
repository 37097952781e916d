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
int chat_command(const Words& words);
int evaluate_command(const Words& words);
int verify_command(const Words& words);
int export_command(const Words& words);
int inspect_command(const Words& words);
int bench_command(const Words& words);
/// Not in the help: `completion bash|zsh` prints what makes that shell complete the commands `names`, their options as
/// their own --help has them, and files.
int completion_command(const Words& words, const std::vector<std::string>& names);

}  // namespace shoestring
