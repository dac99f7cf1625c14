#!/usr/bin/env bash
# A real git server: ssh by sshd, http and https by git http-backend under nginx. STATE/git/env says where; repositories lie in STATE/git/repos.
# /git/ asks for user lab with password secret; /open/ asks nobody; /busy/ answers 429.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
alone git
home=$state/git

install() { need_packages openssh-server openssh-client fcgiwrap nginx git openssl; }

# A port nobody answers on; checkouts on one machine do not meet.
free_port() {
  local port
  while port=$((20000 + RANDOM % 9000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

answers_on() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

all_alive() { alive "$home/sshd.pid" "$home" && alive "$home/fcgi.pid" "$home" && alive "$home/nginx.pid" "$home"; }

up() {
  install
  [ -s "$home/env" ] && all_alive && return
  down
  mkdir -p "$home/repos"
  local me ssh http https
  me=$(id -un) ssh=$(free_port) http=$(free_port) https=$(free_port)
  ssh-keygen -q -t ed25519 -N '' -f "$home/hostkey"
  ssh-keygen -q -t ed25519 -N '' -f "$home/id"
  ssh-keygen -q -t ed25519 -N '' -f "$home/stranger"
  cp "$home/id.pub" "$home/authorized_keys"
  # StrictModes asks who owns the folders above, which is the checkout's matter.
  cat >"$home/sshd_config" <<CONFIG
Port $ssh
ListenAddress 127.0.0.1
HostKey $home/hostkey
AuthorizedKeysFile $home/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
CONFIG
  # sshd of root drops its rights into this folder.
  [ "$me" != root ] || { mkdir -p /run/sshd && chmod 755 /run/sshd; }
  detached "$home/sshd.log" "$home/sshd.pid" /usr/sbin/sshd -D -e -f "$home/sshd_config"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$home/key.pem" -out "$home/crt.pem" 2>/dev/null
  printf 'lab:%s\n' "$(openssl passwd -apr1 secret)" >"$home/htpasswd"
  detached "$home/fcgi.log" "$home/fcgi.pid" fcgiwrap -c 2 -s "unix:$home/fcgi.sock"
  nginx_config "$me" "$http" "$https" >"$home/nginx.conf"
  detached "$home/nginx.log" "$home/nginx.pid" nginx -p "$home" -c "$home/nginx.conf" -e "$home/nginx.log" -g 'daemon off;'
  until_ready "$home/sshd.log" "$home/sshd.pid" "$home" answers_on "$ssh"
  until_ready "$home/fcgi.log" "$home/fcgi.pid" "$home" test -S "$home/fcgi.sock"
  until_ready "$home/nginx.log" "$home/nginx.pid" "$home" answers_on "$https"
  printf 'user=%s\nssh=%s\nhttp=%s\nhttps=%s\n' "$me" "$ssh" "$http" "$https" >"$home/env.new"
  mv "$home/env.new" "$home/env"
  say "ready: ssh $ssh, http $http, https $https"
}

nginx_config() {
  [ "$1" != root ] || echo 'user root;'
  local backend
  backend="include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
    fastcgi_param GIT_PROJECT_ROOT $home/repos; fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param PATH_INFO \$1;
    fastcgi_param REMOTE_USER \$remote_user; fastcgi_param GIT_PROTOCOL \$http_git_protocol if_not_empty; fastcgi_pass unix:$home/fcgi.sock;"
  cat <<CONFIG
worker_processes 1; pid $home/nginx.server.pid; events {}
http {
  access_log $home/access.log; client_max_body_size 0;
  client_body_temp_path $home/t1; proxy_temp_path $home/t2; fastcgi_temp_path $home/t3; uwsgi_temp_path $home/t4; scgi_temp_path $home/t5;
  server {
    listen 127.0.0.1:$2; listen 127.0.0.1:$3 ssl; ssl_certificate $home/crt.pem; ssl_certificate_key $home/key.pem;
    location ~ ^/git(/.*)\$ { auth_basic git; auth_basic_user_file $home/htpasswd; $backend }
    location ~ ^/open(/.*)\$ { $backend }
    location /busy/ { return 429; }
  }
}
CONFIG
}

down() {
  stop "$home/nginx.pid" "$home"
  # fcgiwrap leaves the workers it forked behind.
  local workers=
  [ ! -s "$home/fcgi.pid" ] || workers=$(pgrep -P "$(cat "$home/fcgi.pid")" || true)
  stop "$home/fcgi.pid" "$home"
  [ -z "$workers" ] || kill $workers 2>/dev/null || true
  stop "$home/sshd.pid" "$home"
  rm -rf "$home"
}

run_verb
