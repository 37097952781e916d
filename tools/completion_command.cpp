// shoestring completion bash|zsh
#include <fmt/core.h>

#include <set>

#include "kernels/base/check.h"
#include "tools/commands.h"

namespace shoestring {
namespace {

/// Bash's own, which zsh runs as well once it is told to (bashcompinit). Words of two parts ("data build") are
/// completed part by part. A word without a file of that name may be a recipe that came with the program; the options
/// are asked of the command itself, so that they are those of the program that is run.
constexpr const char* kBash = R"(_shoestring() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words=
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{first}"
  elif [ "$COMP_CWORD" -eq 2 ] && [ "$command" = data ]; then
    words="{second}"
  else
    [ "$command" = data ] && command="data ${{COMP_WORDS[2]}}"
    case $word in
      -*) words=$("${{COMP_WORDS[0]}}" $command --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p') ;;
      *)
        local IFS=$'\n'  # names may have blanks; zsh has no mapfile
        COMPREPLY=($(compgen -f -- "$word"))
        return ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _shoestring shoestring
)";

}  // namespace

int completion_command(const Words& words, const std::vector<std::string>& names) {
  if (words.size() != 1 || (words[0] != "bash" && words[0] != "zsh")) {
    fail(ExitCode::usage, "completion: give it the shell: shoestring completion bash|zsh");
  }
  std::string first;
  std::string second;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    const std::size_t space = name.find(' ');
    if (space != std::string::npos) second += (second.empty() ? "" : " ") + name.substr(space + 1);
    if (seen.insert(name.substr(0, space)).second) first += (first.empty() ? "" : " ") + name.substr(0, space);
  }
  if (words[0] == "zsh") fmt::print("#compdef shoestring\nautoload -U +X bashcompinit && bashcompinit\n");
  fmt::print(kBash, fmt::arg("first", first), fmt::arg("second", second));
  if (words[0] == "zsh") fmt::print("_bash_complete -o filenames -F _shoestring\n");
  return 0;
}

}  // namespace shoestring
