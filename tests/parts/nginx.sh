#!/usr/bin/env bash
# nginx, installed only: each test starts its own with its own configuration.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
alone nginx

install() { need_packages nginx; }
up() { install; }
down() { :; }

run_verb
