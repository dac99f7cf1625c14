#!/usr/bin/env bash
# MariaDB 10.11 on 127.0.0.1:13306 and STATE/mariadb/socket; root without a password, user muster with password muster.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
alone mariadb
home=$state/mariadb
port=${MARIADB_PORT:-13306}

client() { mariadb --no-defaults --user=root --socket="$home/socket" "$@"; }

install() { need_packages mariadb-server mariadb-client; }

up() {
  install
  alive "$home/pid" "$home/data" && client -e 'DO 1' 2>/dev/null && return
  answers "$port" && say "another server answers on 127.0.0.1:$port; the tests use that one" && return
  mkdir -p "$home"
  local me
  me=$(id -un)
  # Made beside its place and moved there, so that one that was cut off is not taken for whole.
  if [ ! -d "$home/data" ]; then
    rm -rf "$home/new"
    mariadb-install-db --no-defaults --user="$me" --datadir="$home/new" --auth-root-authentication-method=normal \
      --skip-test-db --innodb-log-file-size=16M >"$home/install.log" 2>&1 || { tail "$home/install.log" >&2; exit 1; }
    mv "$home/new" "$home/data"
  fi
  # --no-defaults must come first, or /etc/mysql decides on user, socket and address.
  detached "$home/log" "$home/pid" mariadbd --no-defaults --user="$me" --datadir="$home/data" --socket="$home/socket" \
    --pid-file="$home/server.pid" --port="$port" --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M \
    --innodb-log-file-size=16M --performance-schema=OFF --skip-name-resolve --skip-log-bin
  until_ready "$home/log" "$home/pid" "$home/data" client -e 'DO 1'
  client -e "$(test_users)"
  say "ready on 127.0.0.1:$port"
}

down() {
  stop "$home/pid" "$home/data"
  rm -rf "$home"
}

run_verb
