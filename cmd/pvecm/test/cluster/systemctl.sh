#!/bin/bash
# Stands in for systemctl on hosts without systemd: corosync, pve-cluster, ssh.
set -u
log=/var/log/systemctl.log
echo "$*" >> $log

pid() { # of a unit's main process, if it runs
  local p
  p=$(cat /run/$1.mainpid 2>/dev/null) && kill -0 "$p" 2>/dev/null && echo "$p"
}

start() {
  [ -n "$(pid $1)" ] && return 0
  case $1 in
  corosync)
    [ -e /etc/corosync/corosync.conf ] || { echo "corosync.service: no configuration" >&2; return 1; }
    setsid corosync -f >> /var/log/corosync.out 2>&1 < /dev/null &
    echo $! > /run/corosync.mainpid
    for i in $(seq 100); do
      kill -0 $! 2>/dev/null || { echo "corosync.service failed" >&2; tail -n 3 /var/log/corosync.out >&2; return 1; }
      corosync-cmapctl -g totem.cluster_name > /dev/null 2>&1 && return 0
      sleep 0.1
    done
    echo "corosync.service timed out" >&2
    return 1 ;;
  pve-cluster)
    pmxcfs --log-file /var/log/pmxcfs.log < /dev/null > /var/log/pmxcfs.out 2>&1 || { cat /var/log/pmxcfs.out >&2; return 1; }
    cp /run/pve-cluster.pid /run/pve-cluster.mainpid ;;
  ssh|sshd)
    mkdir -p /run/sshd
    /usr/sbin/sshd -o PidFile=/run/ssh.mainpid || return 1 ;;
  *)
    echo "Failed to start $1.service: Unit $1.service not found." >&2
    return 5 ;;
  esac
}

stop() {
  local p i
  case $1 in corosync|pve-cluster|ssh) ;; *) return 5 ;; esac
  p=$(pid $1) || return 0
  [ -n "$p" ] || return 0
  kill "$p"
  for i in $(seq 300); do
    kill -0 "$p" 2>/dev/null || return 0
    sleep 0.05
  done
  kill -9 "$p"
}

verb=$1
shift
units=()
quiet=
for a in "$@"; do
  case $a in
  --quiet|-q) quiet=1 ;;
  -*) ;;
  *) a=${a%.service}; [ "$a" = sshd ] && a=ssh; units+=("$a") ;;
  esac
done
# pve-cluster.service is Before=corosync.service: it starts first and stops last.
order() {
  local u
  for u in "${units[@]}"; do [ $u = "$1" ] && echo $u; done
  for u in "${units[@]}"; do [ $u = "$1" ] || echo $u; done
}
status=0
case $verb in
start) mapfile -t units < <(order pve-cluster)
  for u in "${units[@]}"; do start "$u" || status=$?; done ;;
stop) mapfile -t units < <(order corosync)
  for u in "${units[@]}"; do stop "$u" || status=$?; done ;;
restart) mapfile -t units < <(order corosync)
  for u in "${units[@]}"; do stop "$u" || status=$?; done
  mapfile -t units < <(order pve-cluster)
  for u in "${units[@]}"; do start "$u" || status=$?; done ;;
reload-or-restart|reload)
  for u in "${units[@]}"; do
    if [ -n "$(pid $u)" ]; then kill -HUP "$(pid $u)"; else start "$u" || status=$?; fi
  done ;;
is-active)
  for u in "${units[@]}"; do
    if [ -n "$(pid $u)" ]; then [ -n "$quiet" ] || echo active; else [ -n "$quiet" ] || echo inactive; status=3; fi
  done ;;
enable|disable|daemon-reload) ;;
*) echo "no verb $verb" >&2; status=1 ;;
esac
exit $status
