#!/bin/sh
# Does a piece of work every second, and finishes the one in hand before it leaves.
set -eu

stopping=
trap 'stopping=yes' TERM INT

echo "ready for work"
count=0
while [ -z "$stopping" ]; do
    count=$((count + 1))
    echo "piece $count done"
    # In the background, as the shell runs a trap only when no command is in the foreground.
    sleep 1 &
    wait $! || true
done
echo "left after $count pieces"
