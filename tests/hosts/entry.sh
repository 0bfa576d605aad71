#!/bin/sh
# PID 1 of a host, before systemd: cgroups of its own. Never the machine's: two hosts in one tree would kill each other's processes.
# FLEET_TEST_CGROUPS=unified makes a host of version 2 alone.
set -e
umount -R /sys/fs/cgroup 2>/dev/null || true
if [ "$FLEET_TEST_CGROUPS" = unified ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
fi
exec /sbin/init
