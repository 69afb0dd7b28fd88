#!/usr/bin/env bash
# packages.sh GROUP...: make the Debian packages of each group present. Root on a Debian system installs what is missing;
# anyone else is told what is missing, and what that leaves out. Groups: python, bpf, lab,
# peers, routers, guest, manager, lint.
set -euo pipefail

missing=()
wants_pimd=
need() { command -v "$1" > /dev/null 2>&1 || missing+=("$2"); }
need_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
}
# Debian's pimd and frr cannot both be installed: pimd is unpacked beside the system, for tests that name it by its path.
pimd_directory=.cache/pimd
unpack_pimd() {
    [ ! -x $pimd_directory/usr/sbin/pimd ] || return 0
    mkdir -p $pimd_directory
    if ! (cd $pimd_directory && apt-get download -qq pimd && dpkg-deb -x pimd_*.deb .) > /dev/null 2>&1; then
        echo "pimd could not be downloaded; tests with it are left out" >&2
    fi
}
need_file() { [ -e "$1" ] || compgen -G "$1" > /dev/null || missing+=("$2"); }

for group in "$@"; do
    case $group in
        python) need_python ;;
        bpf) # what compiles and loads the programs for the kernel
            need clang clang; need llvm-strip llvm; need_file '/usr/lib/*/libbpf.so.1' libbpf1
            need_file /usr/include/bpf/bpf_helpers.h libbpf-dev; need_file /usr/include/linux/bpf.h linux-libc-dev ;;
        lab) # namespaces and what carries the demonstration
            need ip iproute2; need nft nftables; need sysctl procps; need nsenter util-linux; need ethtool ethtool
            need conntrack conntrack; need ffmpeg ffmpeg ;;
        peers) # programs the tests talk to
            need tshark tshark; need tcpdump tcpdump; need iperf iperf; need ping iputils-ping
            need systemd-analyze systemd; need bpftool bpftool ;;
        routers) # routing daemons and name servers the domain of the lab has
            need_file /usr/lib/frr/pimd frr; need named bind9; need dig bind9-dnsutils; wants_pimd=yes ;;
        guest) # what building the User Mode Linux guest and booting Debian's own kernel takes
            need flex flex; need bison bison; need bc bc; need xz xz-utils; need gcc gcc; need make make
            need depmod kmod; need_file '/usr/lib/*-linux-gnu*/libc.a' libc6-dev
            need busybox busybox-static; need qemu-system-x86_64 qemu-system-x86 ;;
        manager) # databases, servers and validators the relay manager is tested with
            need_file '/usr/lib/postgresql/*/bin/postgres' postgresql; need yanglint libyang2-tools
            need netconfd netconfd; need sshd openssh-server; need curl curl ;;
        lint) need npm npm ;;
        *) echo "packages.sh: no group named $group" >&2; exit 2 ;;
    esac
done
finish() { [ -z "$wants_pimd" ] || ! command -v apt-get > /dev/null || unpack_pimd; }
[ ${#missing[@]} -gt 0 ] || { finish; exit 0; }

if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "not installed here (needs root and apt-get): ${missing[*]}; whatever needs them is left out" >&2
    [[ " ${missing[*]} " != *" python3"* ]] || { echo "Python 3.11 with venv is the one thing nothing works without" >&2; exit 1; }
    exit 0
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
# The tests run servers of their own: what is installed here shall not start any on the machine.
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$log" "$policy"' EXIT
else
    trap 'rm -f "$log"' EXIT
fi
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
finish
