#!/usr/bin/env bash
# A small task to fine-tune on, made of real text: what the C library's headers declare, as JSON.
#
#   tools/sft_task.sh OUT [INCLUDE_FOLDER]
#
# writes OUT/train.jsonl and OUT/held_out.jsonl: conversations in which a user gives one declaration and the reply is its
# name, the type it returns and how many arguments it takes. Every fifth header, in the order of their names, is held
# out whole, and of functions declared twice the first one counts, so that no held-out function is trained on.
set -euo pipefail
out=${1:?usage: tools/sft_task.sh OUT [INCLUDE_FOLDER]}
include=${2:-/usr/include}
mkdir -p "$out"
: >"$out/train.jsonl"
: >"$out/held_out.jsonl"
find "$include" -maxdepth 1 -name '*.h' | LC_ALL=C sort | LC_ALL=C awk -v out="$out" '
  # How many commas stand between the brackets of the argument list, which begins at `at`; -1: it does not end here.
  function arguments(line, at,    depth, count, i, c, inside) {
    depth = 1; count = 1
    for (i = at; i <= length(line); ++i) {
      c = substr(line, i, 1)
      if (c == "(") ++depth
      if (c == ")" && --depth == 0) {
        inside = substr(line, at, i - at)
        return inside ~ /^ *(void)? *$/ ? 0 : count
      }
      if (c == "," && depth == 1) ++count
    }
    return -1
  }
  {
    header = $0
    file = out (++headers % 5 == 0 ? "/held_out.jsonl" : "/train.jsonl")
    while ((getline line < header) > 0) {
      if (line !~ /^extern [A-Za-z_0-9 *]*[ *][A-Za-z_0-9]+ \(.*;$/ || line ~ /["\\\t]/) continue
      front = substr(line, 8, index(line, "(") - 9)
      match(front, /[A-Za-z_0-9]+$/)
      name = substr(front, RSTART)
      returns = substr(front, 1, RSTART - 1)
      sub(/ +$/, "", returns)
      count = arguments(line, index(line, "(") + 1)
      if (returns == "" || count < 0 || (name in seen)) continue
      seen[name] = 1
      printf "{\"messages\": [{\"role\": \"user\", \"content\": \"Describe as JSON:\\n%s\"}, {\"role\": \"assistant\", \"content\": \"{\\\"name\\\": \\\"%s\\\", \\\"returns\\\": \\\"%s\\\", \\\"arguments\\\": %d}\"}]}\n", line, name, returns, count >> file
    }
    close(header)
  }'
for file in train held_out; do echo "$out/$file.jsonl: $(wc -l <"$out/$file.jsonl") conversations"; done
