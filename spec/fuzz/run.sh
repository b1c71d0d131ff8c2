#!/bin/bash
# usage: spec/fuzz/run.sh NAME|all SECONDS
# Builds spec/fuzz/fuzz_NAME.c with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer and runs it over
# its seeds (spec/fuzz/corpus/fuzz_NAME) for some seconds. What it learns stays in build/fuzz/corpus; an input that
# breaks something is left in build/fuzz. Ends with `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/../.."
build=build/fuzz
seconds=${2:-60}
if [ "${1:-all}" = all ]; then
    names=$(ls spec/fuzz/fuzz_*.c | sed 's|.*/fuzz_||; s|\.c$||')
else
    names=$1
fi
command -v clang >/dev/null || { echo "skipped: clang is not installed"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }

# What no input reaches directly is built as always; the parsers' rooms with clang's instrumentation.
plain=$(for file in csrc/cpu/*.c csrc/model/*.c; do echo $build/obj/${file%.c}.o; done)
targets=$(for name in $names; do echo $build/fuzz_$name; done)
mkdir -p $build
{ make --no-print-directory -j"$(nproc)" BUILD=$build CFLAGS=-O1 $plain &&
    make --no-print-directory -j"$(nproc)" BUILD=$build CC=clang WARNINGS= \
        CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize=fuzzer-no-link" \
        LDFLAGS="-fsanitize=fuzzer" $targets; } >$build.log 2>&1 || {
    tail -n 30 $build.log
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

passed=0 failed=0
for name in $names; do
    learnt=$build/corpus/$name seeds=spec/fuzz/corpus/fuzz_$name log=$build/$name.log
    mkdir -p "$learnt"
    [ -d "$seeds" ] || seeds=
    if $build/fuzz_$name -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -malloc_limit_mb=2048 \
        -seed="${SEED:-20260501}" -print_final_stats=1 -artifact_prefix=$build/$name- \
        "$learnt" $seeds >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, $(sed -n \
            's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1) edges, ${seconds} s"
    else
        failed=$((failed + 1))
        echo "$name: FAILED ($log)"
        tail -n 40 "$log"
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
