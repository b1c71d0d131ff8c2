#!/bin/bash
# Kills a job at random moments until it has been killed KILLS times and has come to its end RUNS times; each time its
# file must be EXPECTED's bytes. One kill in four comes within the first second, whatever the job is at; the others a few
# milliseconds after the file has grown by a random number of bytes, so that the kills are spread over the runs however
# fast the machine is.
# usage: kill_job.sh KILLS RUNS SEED EXPECTED OUT COMMAND...   (COMMAND writes OUT)
kills=$1 runs=$2 RANDOM=$3 expected=$4 out=$5
shift 5
killed=0 ended=0
growth=$(($(stat -c %s "$expected") * runs * 8 / 3 / kills + 1)) # bytes; on average half of it

size() { stat -c %s "$out" 2>/dev/null || echo 0; }

pause() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }

compare() {
    cmp "$expected" "$out" || exit 1
    ended=$((ended + 1))
    rm -f "$out" "$out.log"
}

while ((killed < kills)); do
    until=$(($(size) + RANDOM % growth))
    "$@" 2>>"$out.stderr" &
    pid=$!
    if ((RANDOM % 4)); then
        while kill -0 $pid 2>/dev/null && (($(size) < until)); do sleep 0.01; done
        pause 30
    else
        pause 1000
    fi
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    case $? in
        0) compare ;;
        137) killed=$((killed + 1)) ;;
        *) cat "$out.stderr"; exit 1 ;;
    esac
done
under_fire=$ended
while ((ended < runs)) || [ -e "$out" ]; do
    "$@" 2>>"$out.stderr" || { cat "$out.stderr"; exit 1; }
    compare
done
echo "$killed kills, $ended runs, $under_fire of them before the last kill"
