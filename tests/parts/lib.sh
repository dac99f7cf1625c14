# What the scripts of this folder share; sourced, never run. Each of them: PART.sh install|up|down [STATE FOLDER].
#
#   install  packages and binaries, as root; nothing is started
#   up       installs what is missing, starts the part, waits until it answers; up already is success
#   down     stops it; its data goes with it, downloads stay
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
verb=${1:-}
state=${2:-$root/.cache/parts}
mkdir -p "$state"
state=$(cd "$state" && pwd)

say() { echo "$(basename "$0" .sh): $*" >&2; }

# One at a time per part and state folder. Servers are started without this descriptor, or they would hold the lock.
alone() {
  exec 9>"$state/$1.lock"
  flock -w 900 9 || { say "another $0 has held $state/$1.lock for 15 minutes"; exit 1; }
}

# need_packages NAME…: installs Debian packages that are missing, without starting the services in them.
need_packages() {
  local name missing=()
  for name in "$@"; do
    dpkg-query -W -f='${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  # apt asks this program whether it may start a service: 101 is no. RUNLEVEL=1 says so to the scripts that do not ask.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
    "${sudo[@]}" chmod 755 $policy
  fi
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -q -y)
  "${apt[@]}" --no-install-recommends install "${missing[@]}" >"$state/apt.log" 2>&1 9>&- && return
  # Lists may be missing or old. Another apt may be refreshing them just now: that lock has no timeout of its own.
  local try
  for try in 1 2 3 4 5 6; do
    "${apt[@]}" update >>"$state/apt.log" 2>&1 9>&- && break
    [ "$try" = 6 ] || sleep 10
  done
  "${apt[@]}" --no-install-recommends install "${missing[@]}" >>"$state/apt.log" 2>&1 9>&- || {
    tail -n 20 "$state/apt.log" >&2
    exit 1
  }
}

# detached LOG PIDFILE COMMAND…: starts a server in a session of its own that holds neither our output nor our lock.
detached() {
  local log=$1 pid=$2
  shift 2
  setsid "$@" </dev/null >"$log" 2>&1 9>&- &
  echo $! >"$pid"
  disown
}

# alive PIDFILE WORD: whether the process is there and its command line holds the word (a number may belong to another by now).
alive() {
  [ -s "$1" ] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$1")/cmdline" | grep -qF -- "$2"
}

# stop PIDFILE WORD: asks it to end, and after 30 s makes it.
stop() {
  local pid left=300
  if alive "$1" "$2"; then
    pid=$(cat "$1")
    kill "$pid"
    while [ $left -gt 0 ] && kill -0 "$pid" 2>/dev/null; do
      sleep 0.1
      left=$((left - 1))
    done
    [ $left -gt 0 ] || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$1"
}

# until_ready LOG PIDFILE WORD COMMAND…: waits up to 60 s until the command succeeds, or says why it never will.
until_ready() {
  local log=$1 pid=$2 word=$3 left=600
  shift 3
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    if [ $left = 0 ] || ! alive "$pid" "$word"; then
      tail -n 20 "$log" >&2
      say "did not start; its log is $log"
      exit 1
    fi
    sleep 0.1
  done
}

# test_users [PLUGIN]: what the tests connect as. Rights on their own databases only, as in production; one that may only read; and
# one that checks its password the server's own way, which PLUGIN replaces for the others where the driver needs it.
test_users() {
  local identified="IDENTIFIED ${1:+WITH $1} BY" own='ON `muster\_%`.* TO'
  echo "CREATE USER IF NOT EXISTS 'muster'@'%' $identified 'muster'; GRANT ALL $own 'muster'@'%';" \
    "CREATE USER IF NOT EXISTS 'muster_reader'@'%' $identified 'reader'; GRANT SELECT $own 'muster_reader'@'%';" \
    "CREATE USER IF NOT EXISTS 'muster_own_way'@'%' IDENTIFIED BY 'secret'; GRANT ALL $own 'muster_own_way'@'%';"
}

# answers PORT: whether a server answers there, ours or that of another checkout.
answers() { mariadb-admin --no-defaults --protocol=tcp --host=127.0.0.1 --port="$1" --connect-timeout=2 ping >/dev/null 2>&1; }

# run_verb: calls the function named by the first argument.
run_verb() {
  case "$verb" in
    install | up | down) "$verb" ;;
    *)
      echo "usage: $0 install|up|down [STATE FOLDER]" >&2
      exit 2
      ;;
  esac
}
