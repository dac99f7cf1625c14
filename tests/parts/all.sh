#!/usr/bin/env bash
# Everything that `cargo test` needs beside itself: all.sh install|up|down [STATE FOLDER].
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Packages one after the other (they share dpkg's lock), in the order of the longest wait.
for part in mysql8 mariadb kafka nginx git; do
  "$here/$part.sh" "$@"
done
