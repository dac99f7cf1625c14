#!/usr/bin/env bash
# What building and the tour need: tools.sh install [STATE FOLDER].
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install() {
  command -v cargo >/dev/null || { say "cargo is missing; install Rust 1.95 or newer from https://rustup.rs"; exit 1; }
  alone tools
  need_packages gcc make pkg-config libssl-dev zlib1g-dev git nginx
}
up() { install; }
down() { :; }
run_verb
