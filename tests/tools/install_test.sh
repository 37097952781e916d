#!/usr/bin/env bash
# An installation in a folder of its own: found from any folder, and again after it has moved.
#   install_test.sh BUILD FOLDER
set -euo pipefail
build=$1 folder=$2
wrong() { echo "$*" >&2; exit 1; }

rm -rf "$folder"
mkdir -p "$folder/elsewhere"
cmake --install "$build" --prefix "$folder/first" >/dev/null
mv "$folder/first" "$folder/moved"
cd "$folder/elsewhere"
program=$folder/moved/bin/shoestring

"$program" explain tiny_dense model.hidden | grep -q 256 || wrong "no recipe tiny_dense"
"$program" plan deepseek_v3.recipe | grep -q 'GPU-hours' || wrong "no plan of deepseek_v3"
python3 -m json.tool "$folder/moved/share/shoestring/report.schema.json" >/dev/null || wrong "no report.schema.json"
code=0
"$program" explain tiny_dens model.hidden 2>/dev/null || code=$?
[ $code -eq 66 ] || wrong "a recipe that is not there ended with $code"

# What a press of the tab key would offer behind these words.
offers() {
  COMP_WORDS=("$program" "$@") COMP_CWORD=$# COMPREPLY=()
  _shoestring
  echo "${COMPREPLY[*]}"
}
. "$folder/moved/share/bash-completion/completions/shoestring"
[ "$(offers tr)" = train ] || wrong "tr: $(offers tr)"
[ "$(offers d)" = data ] || wrong "d: $(offers d)"
[ "$(offers data v)" = verify ] || wrong "data v: $(offers data v)"
[ "$(offers train --be)" = --begin-anew ] || wrong "train --be: $(offers train --be)"
[ "$(offers data build x --hold)" = --hold-out ] || wrong "data build x --hold: $(offers data build x --hold)"
touch a.recipe 'b c.recipe' 'b d.recipe'
offers train b >/dev/null
[ "${#COMPREPLY[@]}" -eq 2 ] || wrong "train b: ${#COMPREPLY[@]} names"
[ "$(printf '%s\n' "${COMPREPLY[@]}" | sort | head -n 1)" = 'b c.recipe' ] || wrong "train b: ${COMPREPLY[*]}"
[ "$(offers train a)" = a.recipe ] || wrong "train a: $(offers train a)"
head -n 1 "$folder/moved/share/zsh/site-functions/_shoestring" | grep -qx '#compdef shoestring' || wrong "zsh"
if command -v zsh >/dev/null; then zsh -n "$folder/moved/share/zsh/site-functions/_shoestring"; fi
rm -rf "$folder"
