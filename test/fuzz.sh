#!/bin/bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one after the other. A target has failed when an input fails,
# which go test keeps and names. Where it says only that its own time was over while a worker was busy ("context deadline
# exceeded", which a slow machine makes likely), the target runs once more, and nothing else is forgiven.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
deadline() { grep -qE '^ +context deadline exceeded' "$out" && ! grep -qE 'Failing input|panic|hung or terminated' "$out"; }
grep -rlE '^func Fuzz' --include='*_test.go' --exclude-dir=tidy internal | sort | while read -r file; do
	package=./$(dirname "$file")
	for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}'); do
		echo "-- $package $target"
		for try in 1 2 3; do
			if go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x >"$out" 2>&1; then
				tail -n 1 "$out"
				break
			fi
			if ! deadline || [[ $try == 3 ]]; then
				cat "$out"
				exit 1
			fi
			echo "its time was over while a worker was busy, and no input failed: once more"
		done
	done
done
