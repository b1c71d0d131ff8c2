#!/bin/bash
# Kills a job at random moments until it has been killed KILLS times and has come to its end RUNS times; each time its
# file must be EXPECTED's bytes. What is random is when: no outcome depends on how fast the machine is.
# usage: kill_job.sh KILLS RUNS MILLISECONDS SEED EXPECTED OUT COMMAND...   (COMMAND writes OUT; killed within MILLISECONDS)
kills=$1 runs=$2 longest=$3 RANDOM=$4 expected=$5 out=$6
shift 6
killed=0 ended=0

compare() {
    cmp "$expected" "$out" || exit 1
    ended=$((ended + 1))
    rm -f "$out" "$out.log"
}

while ((killed < kills)); do
    "$@" 2>>"$out.stderr" &
    pid=$!
    sleep "$(printf '%d.%03d' $((RANDOM % longest / 1000)) $((RANDOM % longest % 1000)))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    case $? in
        0) compare ;;
        137) killed=$((killed + 1)) ;;
        *) cat "$out.stderr"; exit 1 ;;
    esac
done
while ((ended < runs)) || [ -e "$out" ]; do
    "$@" 2>>"$out.stderr" || { cat "$out.stderr"; exit 1; }
    compare
done
echo "$killed kills, $ended runs"
