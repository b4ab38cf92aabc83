# shellcheck shell=bash
# What the shell tools share: messages, Debian packages, the QEMU rule. Sourced, never run.
# It must not know what Coffer is; it prepares a Debian machine for those who do.

# Absolute path of the project.
# shellcheck disable=SC2034  # for those who source this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "needs root (mounts, /dev/fuse, packages): run it as root"
}

need_debian() {
    command -v apt-get >/dev/null ||
        fail "needs a Debian system (apt-get); elsewhere install by hand what the install functions of the tools name"
}

# The Rust toolchain is the one thing that is not installed here: where it comes from is the user's choice.
need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || fail "needs a Rust toolchain: no cargo on PATH"
}

# codename of this Debian, for example bookworm
debian_codename() {
    local name
    # shellcheck disable=SC1091  # a file of the system
    name=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$name" ] || fail "/etc/os-release has no VERSION_CODENAME"
    printf '%s\n' "$name"
}

# package_version NAME: prints the installed version, fails when it is not installed.
package_version() {
    local state
    state=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 1
    [ "${state%% *}" = installed ] || return 1
    printf '%s\n' "${state#* }"
}

# apt_update: reads the package lists, once in a run of the tool that was started first.
apt_update() {
    [ -n "${COFFER_APT_UPDATED:-}" ] && return 0
    apt-get update -qq || fail "apt-get update failed: check the sources of apt and the network"
    export COFFER_APT_UPDATED=1
}

# apt_install OPTION-OR-PACKAGE...: no recommends, no questions. The log is shown only when it failed.
apt_install() {
    local log
    log=$(mktemp)
    apt_update
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        fail "apt-get install $* failed; its last lines are above"
    fi
    rm -f "$log"
}

# install_packages NAME...: installs those that are missing, and nothing at all when none is.
install_packages() {
    local name missing=()
    for name; do
        package_version "$name" >/dev/null || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return 0
    say "installing Debian packages: ${missing[*]}"
    apt_install "${missing[@]}"
}

# The binary packages of `Types: deb` sources that apt reads, one a line: URI, suite, components, Signed-By
# path or `-`, separated by tabs. Reads both forms: deb822 (*.sources) and one-line (*.list).
debian_sources() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && awk '
            function flush(   u, s, nu, ns, i, j) {
                if (types ~ /(^| )deb( |$)/ && enabled !~ /^no/) {
                    nu = split(uris, u, " "); ns = split(suites, s, " ")
                    for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++)
                        printf "%s\t%s\t%s\t%s\n", u[i], s[j], components, (key == "" ? "-" : key)
                }
                types = uris = suites = components = key = enabled = field = ""
            }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[ \t]/ { value = $0; sub(/^[ \t]+/, "", value) }
            /^[^ \t]/ {
                field = tolower($0); sub(/:.*/, "", field)
                value = $0; sub(/^[^:]*:[ \t]*/, "", value)
            }
            {
                if (field == "types") types = types " " value
                else if (field == "uris") uris = uris " " value
                else if (field == "suites") suites = suites " " value
                else if (field == "components") components = components " " value
                else if (field == "enabled") enabled = value
                else if (field == "signed-by" && value ~ /^\//) key = value
            }
            END { flush() }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && awk '
            $1 != "deb" { next }
            {
                line = $0; key = "-"
                if (match(line, /\[[^]]*\]/)) {
                    options = substr(line, RSTART + 1, RLENGTH - 2)
                    line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                    if (match(options, /signed-by=[^ \]]+/)) key = substr(options, RSTART + 10, RLENGTH - 10)
                }
                n = split(line, w, " "); components = ""
                for (i = 4; i <= n; i++) components = components " " w[i]
                printf "%s\t%s\t%s\t%s\n", w[2], w[3], components, key
            }' "$file"
    done
    return 0
}

# debian_archive: the URI and the Signed-By path (or `-`) of the source that has this Debian's main suite.
debian_archive() {
    local codename
    codename=$(debian_codename)
    debian_sources | awk -F '\t' -v suite="$codename" '
        $2 == suite && $3 ~ /(^| )main( |$)/ { printf "%s\t%s\n", $1, $4; found = 1; exit }
        END { exit !found }' ||
        fail "apt has no source with the suite $codename and the component main"
}

# has_suite SUITE: is it among the sources of apt?
has_suite() {
    debian_sources | awk -F '\t' -v suite="$1" '$2 == suite { found = 1 } END { exit !found }'
}

# add_backports SUITE: one more file for apt, with the address and the key of the source that is there already.
add_backports() {
    local uri key
    has_suite "$1" && return 0
    IFS=$'\t' read -r uri key < <(debian_archive)
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$1"
        [ "$key" = - ] || printf 'Signed-By: %s\n' "$key"
    } >"/etc/apt/sources.list.d/coffer-$1.sources"
    unset COFFER_APT_UPDATED
}

# install_qemu: qemu-utils and qemu-system-x86 share exact versions of their common packages. Where qemu-utils
# came from the backports suite, the system emulator must come from there too.
install_qemu() {
    local utils suite
    package_version qemu-system-x86 >/dev/null && package_version qemu-utils >/dev/null && return 0
    utils=$(package_version qemu-utils || true)
    case $utils in
    *~bpo*)
        suite=$(debian_codename)-backports
        add_backports "$suite"
        say "installing QEMU from $suite, where the installed qemu-utils $utils comes from"
        apt_install -t "$suite" qemu-system-x86 qemu-utils
        ;;
    *) install_packages qemu-utils qemu-system-x86 ;;
    esac
}

# install_postgresql: its programs. Debian's package makes a cluster and starts it, unless told not to.
install_postgresql() {
    local settings=/etc/postgresql-common/createcluster.d
    compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null && return 0
    mkdir -p "$settings"
    printf 'create_main_cluster = false\n' >"$settings/coffer.conf"
    install_packages postgresql
    rm -f "$settings/coffer.conf"
}

# install_etcd: the program only. Debian's package starts a server, unless a policy forbids it (invoke-rc.d(8)).
install_etcd() {
    local policy=/usr/sbin/policy-rc.d made=''
    package_version etcd-server >/dev/null && return 0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    install_packages etcd-server
    [ -z "$made" ] || rm -f "$policy"
}

# install_build_packages: what `cargo build` needs besides cargo.
install_build_packages() {
    install_packages gcc libc6-dev make pkg-config ca-certificates
}
