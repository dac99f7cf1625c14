#!/bin/sh
# Makes "hosts" out of network namespaces on this machine, so that workers on several hosts can be tried on one. Needs root and iproute2.
#
#   hosts.sh up                 a daemon, three workers and a target, each with its own network, and their secrets
#   hosts.sh on HOST COMMAND…   runs a command there
#   hosts.sh cut HOST           takes a worker's link to the daemon down; the one to the target stays
#   hosts.sh mend HOST          and up again
#   hosts.sh down               ends every process on these hosts and removes them
#
# The network 10.77.0.0/24 is between the daemon (.1) and the workers (.11 .12 .13), 10.77.1.0/24 between the workers and the target (.20).
# HOSTS is the prefix of the namespaces' names, for a second set beside the first.
set -eu
prefix=${HOSTS:-muster}
all="daemon worker-1 worker-2 worker-3 target"
here=$(cd "$(dirname "$0")" && pwd)

link() { # HOST NETWORK ADDRESS: a cable from a host to the switch of a network
  ip link add "$2" netns "$prefix-$1" type veth peer name "$1-$2" netns "$prefix-switch"
  ip -n "$prefix-switch" link set "$1-$2" master "$2" up
  ip -n "$prefix-$1" address add "$3/24" dev "$2"
  ip -n "$prefix-$1" link set "$2" up
}

up() {
  for host in $all switch; do
    ip netns add "$prefix-$host"
    ip -n "$prefix-$host" link set lo up
  done
  for network in ctl load; do
    ip -n "$prefix-switch" link add "$network" type bridge
    ip -n "$prefix-switch" link set "$network" up
  done
  link daemon ctl 10.77.0.1
  link target load 10.77.1.20
  for number in 1 2 3; do
    link "worker-$number" ctl "10.77.0.1$number"
    link "worker-$number" load "10.77.1.1$number"
  done
  secrets
}

secrets() { # an authority, the daemon's certificate, and the token that workers show
  [ -e "$here/secrets/join-token" ] && return
  umask 077
  mkdir -p "$here/secrets"
  cd "$here/secrets"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=several hosts" \
      -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=daemon" -keyout daemon.key -out daemon.csr
    printf 'subjectAltName=IP:10.77.0.1\nbasicConstraints=CA:FALSE\n' >daemon.ext
    openssl x509 -req -in daemon.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile daemon.ext -out daemon.pem
  } 2>openssl.log || { cat openssl.log >&2; exit 1; }
  openssl rand -hex 32 >join-token
}

on() { # HOST COMMAND…, with the host's own name
  host=$1
  shift
  exec ip netns exec "$prefix-$host" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
}

pids() {
  for host in $all; do
    ip netns pids "$prefix-$host" 2>/dev/null || true
  done
}

down() {
  for signal in TERM KILL; do
    for pid in $(pids); do kill -s "$signal" "$pid" 2>/dev/null || true; done
    for _ in $(seq 100); do
      [ -z "$(pids)" ] && break
      sleep 0.1
    done
  done
  for host in $all switch; do
    ip netns delete "$prefix-$host" 2>/dev/null || true
  done
}

command=${1:-}
[ $# -gt 0 ] && shift
case $command in
  up | down | on) "$command" "$@" ;;
  cut) ip -n "$prefix-$1" link set ctl down ;;
  mend) ip -n "$prefix-$1" link set ctl up ;;
  pids) pids ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
esac
