# shellcheck shell=bash
# What the benches share: one scratch folder in memory, one host in it, and the ends of both. Sourced, never run.

# shellcheck source=tools/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
cd "$ROOT" || exit 1

SCRATCH='' HOSTD_PID=''
# Other servers that a bench started.
SERVER_PIDS=()

# open_scratch: a folder in tmpfs, with a short path because a Unix socket path has room for 107 bytes.
open_scratch() {
    SCRATCH=$(mktemp -d /dev/shm/coffer-bench.XXXX)
    trap close_scratch EXIT
    trap 'exit 130' INT TERM
}

close_scratch() {
    local pid end=$((SECONDS + 60)) mountpoint
    trap - EXIT
    for pid in "${SERVER_PIDS[@]}" $HOSTD_PID; do kill -TERM "$pid" 2>/dev/null || true; done
    # hostd drains its VMs; what does not end within the time is ended.
    for pid in "${SERVER_PIDS[@]}" $HOSTD_PID; do
        while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $end ]; do sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    while read -r mountpoint; do
        umount -l "$mountpoint" 2>/dev/null || true
    done < <(awk -v folder="$SCRATCH/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo)
    rm -rf --one-file-system "$SCRATCH"
}

# build_programs PACKAGE...: the programs as users get them, and others that the bench needs; COFFER_BIN_DIR names a
# folder with installed ones instead.
build_programs() {
    if [ -n "${COFFER_BIN_DIR:-}" ]; then
        PATH=$COFFER_BIN_DIR:$PATH
        return 0
    fi
    say "building (cargo build --release --bins)"
    cargo build --quiet --release -p hostd -p vmd -p coffer "${@/#/--package=}" --bins
    PATH=$ROOT/target/release:$PATH
}

# start_host: hostd with a new key file and an empty datastore, all in the scratch folder, nothing relaxed.
start_host() {
    local end=$((SECONDS + 30))
    mkdir "$SCRATCH/datastore" "$SCRATCH/state"
    (umask 077 && od -An -N 16 -t x1 /dev/urandom | tr -d ' ' >"$SCRATCH/passphrase")
    cat >"$SCRATCH/hostd.toml" <<TOML
run_dir = "$SCRATCH/run"
state_dir = "$SCRATCH/state"
on_stop = "drain"

[[datastore]]
name = "local"
path = "$SCRATCH/datastore"

[provider.native]
passphrase_file = "$SCRATCH/passphrase"
TOML
    hostd init --config "$SCRATCH/hostd.toml" >/dev/null
    setsid hostd --config "$SCRATCH/hostd.toml" --demo >"$SCRATCH/hostd.log" 2>&1 </dev/null &
    HOSTD_PID=$!
    export COFFER_SOCKET=$SCRATCH/run/hostd.sock
    until coffer host status >/dev/null 2>&1; do
        kill -0 "$HOSTD_PID" 2>/dev/null || fail "hostd ended: $(tail -n 5 "$SCRATCH/hostd.log")"
        [ $SECONDS -lt $end ] || fail "hostd does not answer"
        sleep 0.1
    done
}

# vmd_pid VM: the process that serves it.
vmd_pid() {
    local pid
    pid=$(coffer --json vm show "$1" | sed -n 's/.*"vmd_pid": *\([0-9]*\).*/\1/p')
    [ -n "$pid" ] || fail "no vmd serves $1"
    printf '%s\n' "$pid"
}

# cpu_ticks PID...: user and system time of the processes with all their threads, past ones too, in clock ticks.
cpu_ticks() {
    local pid
    for pid; do
        # The name in brackets may hold blanks; what counts stands behind it.
        sed 's/.*) //' "/proc/$pid/stat"
    done | awk '{ ticks += $12 + $13 } END { print ticks + 0 }'
}

# machine: what the figures were measured on.
machine() {
    say "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, Linux $(uname -r), $(date -u +%F)"
}

# steal_ticks: time that the hypervisor gave to others, and all time.
steal_ticks() { awk '/^cpu / { print $9, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }

# say_steal STEAL ALL: the share since then; more than a few percent, and the figures are worth little.
say_steal() {
    local steal all
    read -r steal all < <(steal_ticks)
    awk -v s="$((steal - $1))" -v a="$((all - $2))" \
        'BEGIN { printf "steal time during the run: %.1f %%\n", 100 * s / (a ? a : 1) }'
}
