#!/bin/sh
# The quickstart of the README: from data to alarms, on the screen in half a minute. Leaves its files in demo-out/.
set -eu
mkdir -p demo-out
cd demo-out
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}
run aeedge sample motor.csv motor-new.csv --force
run aeedge train motor.csv -o run --force
run aeedge export run -o motor.aeedge --false-alarm-rate 0.001 --force
run aeedge verify motor.aeedge
run aeedge score motor.aeedge motor-new.csv -o alarms.csv --keep time --keep fault --summary --force
