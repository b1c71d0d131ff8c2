#!/bin/bash
# Runs the daemons of a Slurm of its own until its input ends, which is when whoever started it says so or has died.
# Then whatever else has a file of the folder open is killed, the jobs too, and the folder removed.
# usage: slurm.sh FOLDER   (holds slurm.conf, munge.key; a daemon that ends is noted in FOLDER/ended)
set -u
folder=$(cd "$1" && pwd -P) || exit 1
exec >/dev/null 2>&1
export PATH="$PATH:/usr/sbin:/sbin"

holders() {
    find /proc/[0-9]*/cwd /proc/[0-9]*/fd \( -lname "$folder" -o -lname "$folder/*" \) | cut -d / -f 3 | sort -u |
        grep -vx "$PPID"
}

clean() {
    for ((i = 0; i < 200; i++)); do # one that was about to be started is found the next time
        pids=$(holders)
        [ -n "$pids" ] || { wait; break; }
        kill -9 $pids
        sleep 0.05
    done
    rm -rf "$folder"
}

start() { # a daemon that stays in the foreground; who waits for it has nothing open
    (env -C "$folder" "$@" </dev/null >"$folder/$1.out" 2>&1; echo "$1" >>"$folder/ended") &
}

trap '' HUP INT QUIT
trap 'exit 1' TERM
trap clean EXIT
start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munge.pid" --log-file="$folder/munge.log" --seed-file="$folder/munge.seed"
for ((i = 0; i < 600; i++)); do
    [ -S "$folder/munge.socket" ] || [ -e "$folder/ended" ] && break
    sleep 0.05
done
start slurmctld -D -i -f "$folder/slurm.conf"
start slurmd -D -f "$folder/slurm.conf"
read -r -t 900 _ # who hangs for so long is not waited for
