#!/bin/sh
# Boots systemd as process 1 of new namespaces, over a copy of this machine that is forgotten with it.
# boot.sh PLACE REPOSITORY: PLACE/disk is an empty directory; REPOSITORY is at /srv/tenantry there.
set -eu
place=$1
repository=$2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$place/disk"
root=$place/disk/root
mkdir "$place/disk/changes" "$place/disk/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$place/disk/changes,workdir=$place/disk/work" overlay "$root"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

mkdir -p "$root/srv/tenantry"
mount --bind "$repository" "$root/srv/tenantry"

# Nothing of this machine starts in the copy; accounts and files of units are made as ever.
rm -rf "$root"/etc/systemd/system/* "$root"/etc/machine-id
touch "$root/etc/machine-id"

cd "$root"
mkdir outside
pivot_root . outside
umount -l /outside
# As systemd does it where it is no container's: LoadCredential relies on it.
mount --make-rshared /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin container=tenantry-test \
    setpriv --bounding-set -sys_module,-sys_boot,-sys_time,-sys_rawio \
    /lib/systemd/systemd --system --log-target=console --show-status=no
