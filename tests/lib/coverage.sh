#!/bin/bash
# How much of each source of core/ and fs/ the unit tests run, by gcc's own counters. Nothing but the
# programs of tests/unit/ is counted: no mount, no scenario.
#
#   coverage.sh BUILD LEAST UNIT-TEST-PROGRAM...
#
# BUILD is the directory that `make VARIANT=cov` made. Prints a line per source: its name, its lines that
# can be run, percent of them that were. Fails if a test does, or if a source has less than LEAST percent.
# What a test's child process did before it was killed is not counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=$1
least=$2
units=("${@:3}")

logs=$(mktemp -d /tmp/walefs-coverage.XXXXXX)
trap 'rm -rf "$logs"' EXIT

# Counts of an earlier run would be added to.
find "$build/obj" -name '*.gcda' -delete

# Two runs side by side. Counters are merged under a lock when a program ends.
halves=(0 1)
pids=()
for half in "${halves[@]}"; do
    mine=()
    for i in "${!units[@]}"; do
        [[ $((i % 2)) != "$half" ]] || mine+=("${units[i]}")
    done
    WALEFS=$PWD/$build/walefs tests/run '^unit' "${mine[@]}" >"$logs/$half" 2>&1 &
    pids+=($!)
done
rc=0
for half in "${halves[@]}"; do
    wait "${pids[half]}" || {
        rc=1
        grep -v '^ok ' "$logs/$half"
    }
done
[[ $rc == 0 ]] || {
    echo "coverage: unit tests fail; nothing is counted" >&2
    exit 1
}

# gcov speaks of every file that an object has lines of; a source's own are those under its name.
executed() # SOURCE
{
    gcov --no-output --object-directory "$build/obj/${1%/*}" "$1" 2>/dev/null |
        awk -v source="$1" '
            /^File / { own = $0 == "File \047" source "\047" }
            own && /^Lines executed:/ { sub("%", "", $2); sub("executed:", "", $2); print $4, $2; exit }'
}

for source in core/*.c fs/*.c; do
    echo "$source $(executed "$source")"
done | awk -v least="$least" '
    NF == 1 { next } # no code of its own: tables only
    {
        printf "%-28s %5d lines %6.1f %%%s\n", $1, $2, $3, $3 < least ? "   too few" : ""
        folder = substr($1, 1, index($1, "/"))
        lines[folder] += $2
        run[folder] += $2 * $3 / 100
        few += $3 < least
        sources++
    }
    END {
        for (folder in lines)
            printf "%-28s %5d lines %6.1f %%\n", folder, lines[folder], 100 * run[folder] / lines[folder]
        printf "%d sources, %d below %d %%\n", sources, few, least
        exit few > 0 || sources == 0
    }'
