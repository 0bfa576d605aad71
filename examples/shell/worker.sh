#!/bin/sh
# Does a piece of work a second, and finishes the one in hand before it leaves.
set -eu

stopping=
trap 'stopping=yes' TERM INT

count=0
while [ -z "$stopping" ]; do
    count=$((count + 1))
    echo "piece $count begun"
    # A signal sent to the whole process group must not cut the work short.
    (trap '' TERM INT; sleep 1)
    echo "piece $count done"
done
echo "left after $count pieces"
