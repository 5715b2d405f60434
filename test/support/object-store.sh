#!/bin/bash
# A real object store with an S3 interface on 127.0.0.1: Ceph's monitor, one OSD that keeps everything in memory, and its object gateway.
#   object-store.sh DIRECTORY GATEWAY-PORT MONITOR-PORT MONITOR-PORT
# Needs ceph-mon, ceph-osd, radosgw and ceph-common. Prints READY when it takes requests, runs until its stdin ends, and leaves nothing behind.
# Users: WARPKEY / warpsecret123 may do everything; STRANGER / strangersecret1 owns nothing.
set -eu
directory=$1 port=$2 monitor_v2=$3 monitor_v1=$4
mkdir -p "$directory"/{mon,osd.0,rgw,run,log}
pids=()
finish() {
  trap - EXIT
  kill -9 "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$directory"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

start() { # in the background, with nothing of the caller's but a log
  "$@" </dev/null >>"$directory/log/$1.out" 2>&1 &
  pids+=($!)
}
await() { # WHAT COMMAND…: until it succeeds, as long as all daemons live
  local what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    for pid in "${pids[@]}"; do
      kill -0 "$pid" 2>/dev/null || { echo "object-store: $what did not come up:" >&2; tail -n 5 "$directory"/log/*.out >&2; exit 1; }
    done
    sleep 0.05
  done
}

fsid=$(cat /proc/sys/kernel/random/uuid)
cat >"$directory/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$monitor_v2,v1:127.0.0.1:$monitor_v1]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $directory/keyring
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 4
osd pool default pg autoscale mode = off
paxos propose interval = 0.02
paxos min wait = 0.01
mon tick interval = 1
mon data = $directory/mon
mon data avail crit = 1
osd data = $directory/osd.0
osd objectstore = memstore
memstore device bytes = 8G
admin socket = $directory/run/\$name.asok
log file = $directory/log/\$name.log
rgw frontends = beast endpoint=127.0.0.1:$port
rgw data = $directory/rgw
rgw run sync thread = false
CONF
export CEPH_CONF=$directory/ceph.conf

key() { ceph-authtool "$directory/keyring" -g -n "$@" >/dev/null; }
ceph-authtool -C "$directory/keyring" -g -n mon. --cap mon 'allow *' >/dev/null
key client.admin --cap mon 'allow *' --cap osd 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor_v2,v1:127.0.0.1:$monitor_v1]" "$directory/monmap" >/dev/null
ceph-mon -i a --mkfs --monmap "$directory/monmap" --keyring "$directory/keyring" >>"$directory/log/ceph-mon.out" 2>&1
start ceph-mon -i a -f
await 'the monitor' bash -c "exec 3<>/dev/tcp/127.0.0.1/$monitor_v2"
osd=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$osd" 0 </dev/null >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd" >>"$directory/log/ceph-osd.out" 2>&1
start ceph-osd -i 0 -f
start radosgw -n client.admin --keyring "$directory/keyring" -f
await 'the gateway' bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
user() { radosgw-admin user create --uid="$1" --display-name="$1" --access-key="$2" --secret-key="$3" </dev/null >/dev/null 2>>"$directory/log/admin.out"; }
user warp WARPKEY warpsecret123
user stranger STRANGER strangersecret1
echo READY
cat >/dev/null
