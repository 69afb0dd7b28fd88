#!/usr/bin/env bash
# build.sh DIRECTORY: Debian's User Mode Linux with two modules built from its source package: the kernel's AMT driver,
# which Debian leaves out, and nf_tables with tables for IPv4, which Debian's other kernels have. Takes about 180 MB of
# packages and a minute; leaves DIRECTORY/linux.uml, halt, modules/ and a copy of this script, 60 MB.
set -euo pipefail

mkdir -p "$1"
directory=$(readlink -f "$1")
script=$(readlink -f "$0")
work=$(mktemp -d "$directory/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir package build module

fetch() { # as root apt would drop to a user that may not write here
    apt-get -qq -o APT::Sandbox::User=root download "$1" 2> fetch.log || { cat fetch.log >&2; return 1; }
}
apt-cache show user-mode-linux > /dev/null 2>&1 || apt-get update -qq
fetch user-mode-linux
dpkg -x user-mode-linux_*.deb package
version=$(ls package/usr/lib/uml/modules)
series=$(cut -d. -f1,2 <<< "$version")
source=$(apt-cache madison "linux-source-$series" | awk -v version="$version" 'index($3, version "-") == 1 { print $3; exit }')
[ -n "$source" ] || { echo "Debian's archive has no linux-source-$series of version $version" >&2; exit 3; }
fetch "linux-source-$series=$source"
dpkg -x "linux-source-$series"_*.deb source
tar -xf "source/usr/src/linux-source-$series.tar.xz" \
    --exclude='*/Documentation/[a-z]*' --exclude='*/sound/*.[ch]' --exclude='*/drivers/gpu/*.[ch]' \
    --exclude='*/drivers/media/*.[ch]' --exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]'

zcat package/usr/share/doc/user-mode-linux/config.gz > build/.config
kernel_make() { make -s -C "linux-source-$series" ARCH=um O="$work/build" "$@" >> make.log 2>&1 || { tail -n 20 make.log >&2; return 1; }; }
sed -i 's/^# CONFIG_NF_TABLES_IPV4 is not set/CONFIG_NF_TABLES_IPV4=y/' build/.config
kernel_make olddefconfig
kernel_make "-j$(nproc)" modules_prepare
cp "linux-source-$series/drivers/net/amt.c" module/
echo 'obj-m := amt.o' > module/Makefile
# Symbols of the running kernel are resolved when modules load.
kernel_make "M=$work/module" KBUILD_MODPOST_WARN=1 modules
kernel_make KBUILD_MODPOST_WARN=1 net/netfilter/nf_tables.ko

rm -rf "$directory/modules"
mkdir -p "$directory/modules/lib/modules"
cp -r "package/usr/lib/uml/modules/$version" "$directory/modules/lib/modules/"
install -D module/amt.ko "$directory/modules/lib/modules/$version/extra/amt.ko"
cp build/net/netfilter/nf_tables.ko "$directory/modules/lib/modules/$version/kernel/net/netfilter/nf_tables.ko"
depmod -b "$directory/modules" "$version"
gcc -O2 -static -x c -o "$directory/halt" - <<'C'
#include <sys/reboot.h>
int main(void) { return reboot(RB_POWER_OFF); }
C
cp package/usr/bin/linux.uml "$directory/linux.uml"
cp "$script" "$directory/build.sh" # last: it says that the build is whole, and which one it is
