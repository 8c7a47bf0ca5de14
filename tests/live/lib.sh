# Shared by the commands beside this file (sourced): where the cluster lives, and which processes are its machines.
#
# The cluster is one controller, `ctl`, which is also the login node, and the compute nodes n1, n2, n3. A machine is a
# process that is pid 1 of its own namespaces (mount, network, pid, ipc, uts): killing it takes every process, mount
# and interface of the machine with it, so that nothing can be left behind on the host but files.
#
#   $CLUSTER/shared    the file system that all machines share, writable by the user of the cluster
#   $CLUSTER/etc       slurm.conf, hosts, the munge key, and `machine` from here: a clone in /tmp the nodes do not see
#   $CLUSTER/log       of the daemons and of the machines
#   $CLUSTER/state/M   of machine M: the process that holds it, Slurm's spool
#   $CLUSTER/images    images, kept by `down` (see conftest.py)
# shellcheck shell=bash disable=SC2034
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLUSTER=${HPCSCALE_CLUSTER:-/var/tmp/hpcscale-cluster}
CLUSTER_USER=${HPCSCALE_CLUSTER_USER:-hpc}
NODES=(n1 n2 n3)
MACHINES=(ctl "${NODES[@]}")

fail() { printf '%s: %s\n' "tests/live/$(basename "$0")" "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "run me as root"
case $CLUSTER in
/tmp | /tmp/* | /run/* | /dev/*) fail "HPCSCALE_CLUSTER=$CLUSTER: machines have a private /tmp, /run and /dev/shm; name another folder" ;;
/?*) ;;
*) fail "HPCSCALE_CLUSTER=$CLUSTER: must be an absolute path" ;;
esac

# started PID: when the process was started (in clock ticks), which tells it from a later one of the same number.
started() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    cut -d' ' -f20 <<<"$stat"
}

notes=$CLUSTER/state # where machines have noted their plugs

# plug_of MACHINE: prints the number of the process that holds the machine: when it ends, so does the machine.
plug_of() {
    local pid since
    read -r pid since 2>/dev/null <"$notes/$1/plug" || return 1
    [ "$(started "$pid")" = "$since" ] || return 1
    echo "$pid"
}

# pid_of MACHINE: prints the host's number of the machine's pid 1; fails if the machine is not running.
pid_of() {
    local plug pid
    plug=$(plug_of "$1") || return 1
    read -r pid <"/proc/$plug/task/$plug/children" || [ -n "$pid" ] || return 1
    echo "${pid% }"
}

# power_off MACHINE: every process of the machine ends at once, as if somebody had pulled the plug.
power_off() {
    local plug pid
    plug=$(plug_of "$1") || return 0
    pid=$(pid_of "$1") || pid=
    kill -KILL "$plug" 2>/dev/null || return 0
    for _ in {1..200}; do
        if [ ! -e "/proc/$plug" ] && [ ! -e "/proc/${pid:-none}" ]; then return 0; fi
        sleep 0.05
    done
    fail "machine $1 (process $pid) does not end"
}

address_of() { case $1 in ctl) echo 10.77.0.1 ;; *) echo "10.77.0.$((10 + ${1#n}))" ;; esac; }

# power_on MACHINE: starts its pid 1 and plugs its network cable into the controller's switch.
power_on() {
    local name=$1 pid enter=()
    mkdir -p "$CLUSTER/state/$name"
    rm -f "$CLUSTER/state/$name/plug"
    # What the controller has mounted (the small disk) the nodes see too, as if it were a file server.
    if [ "$name" != ctl ]; then enter=(nsenter --mount --target "$(pid_of ctl)"); fi
    # It notes its own number before there is anything to end: `down` finds it, whenever `up` is killed.
    # shellcheck disable=SC2016  # the other bash expands it
    setsid bash -c 'read -r stat </proc/$$/stat && echo "$$ $(cut -d" " -f20 <<<"${stat##*) }")" >"$0" && exec "$@"' \
        "$CLUSTER/state/$name/plug" \
        "${enter[@]}" unshare --uts --mount --pid --ipc --net --fork --kill-child=KILL --mount-proc \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        NAME="$name" ADDRESS="$(address_of "$name")" CLUSTER="$CLUSTER" \
        bash "$CLUSTER/etc/machine" </dev/null >>"$CLUSTER/log/machine-$name.log" 2>&1 &
    for _ in {1..100}; do
        pid=$(pid_of "$name") && break
        sleep 0.05
    done
    [ -n "$pid" ] || fail "machine $name did not start, see $CLUSTER/log/machine-$name.log"
    if [ "$name" != ctl ]; then
        # shellcheck disable=SC2016  # the other bash expands it
        nsenter --net --target "$(pid_of ctl)" bash -c '
            until ip link show switch >/dev/null 2>&1; do sleep 0.05; done
            until ! ip link show "to-$0" >/dev/null 2>&1; do sleep 0.05; done # the cable of a crashed machine
            ip link add "to-$0" type veth peer name eth0 netns "$1"
            ip link set "to-$0" master switch up' "$name" "$pid"
    fi
}

# at MACHINE COMMAND...: as root on that machine.
at() {
    local pid
    pid=$(pid_of "$1") || fail "machine $1 is not running"
    shift
    nsenter --target "$pid" --uts --mount --pid --ipc --net -- "$@"
}
