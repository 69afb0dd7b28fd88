#!/usr/bin/env bash
# build.sh DIRECTORY: Debian's kernel from its package, and a first file system that only mounts the one of the machine
# it runs on. Takes 70 MB of packages and a few seconds; leaves DIRECTORY/vmlinuz, initrd, modules/ and a copy of this script.
set -euo pipefail

mkdir -p "$1"
directory=$(readlink -f "$1")
script=$(readlink -f "$0")
work=$(mktemp -d "$directory/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

newest() { apt-cache depends linux-image-amd64 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
package=$(newest)
[ -n "$package" ] || { apt-get update -qq; package=$(newest); }
[ -n "$package" ] || { echo "apt knows no package linux-image-amd64" >&2; exit 3; }
# As root apt would drop to a user that may not write here.
apt-get -qq -o APT::Sandbox::User=root download "$package" 2> fetch.log || { cat fetch.log >&2; exit 1; }
dpkg-deb -x linux-image-*.deb package
version=${package#linux-image-}

# What a router's kernel may want, and what the root is mounted with; not drivers of hardware the guest has not.
all=package/lib/modules/$version kept=modules/lib/modules/$version
mkdir -p "$kept/kernel/drivers" "$kept/kernel/fs"
cp -a "$all"/modules.{builtin,builtin.modinfo,order} "$kept"
cp -a "$all"/kernel/{arch,crypto,lib,net} "$kept/kernel"
cp -a "$all"/kernel/drivers/{net,virtio} "$kept/kernel/drivers"
cp -a "$all"/kernel/fs/{9p,fscache,netfs} "$kept/kernel/fs"
rm -rf "$kept"/kernel/drivers/net/{can,ethernet,usb,wireless}
depmod -b modules "$version"

mkdir -p first/modules first/proc first/root
cp "$(command -v busybox)" first/busybox
{
    echo '#!/busybox sh'
    for module in virtio_pci 9pnet_virtio 9p; do
        modprobe -d modules -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        cp "$file" first/modules
        echo "/busybox insmod /modules/${file##*/} || /busybox poweroff -f"
    done
    echo '/busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=524288,ro root /root || /busybox poweroff -f'
    echo '/busybox mount -t proc proc /proc && read -r line < /proc/cmdline && /busybox umount /proc'
    echo 'exec /busybox switch_root /root "${line##*start=}"'
} > first/init
chmod 755 first/init
(cd first && find . | busybox cpio -o -H newc) 2> /dev/null | gzip -1 > initrd

rm -rf "$directory/modules"
mv "package/boot/vmlinuz-$version" "$directory/vmlinuz"
mv initrd modules "$directory"
cp "$script" "$directory/build.sh" # last: it says that the rest is there
