#!/usr/bin/env bash
# Prints what the tests read, as the parts of this folder are started: eval "$(tests/parts/env.sh)". These are also the tests' own
# defaults, so it is needed only to point them elsewhere.
echo "export MUSTER_TEST_MARIADB_URL='${MUSTER_TEST_MARIADB_URL:-mysql://muster:muster@127.0.0.1:13306}'"
echo "export MUSTER_TEST_MYSQL_URL='${MUSTER_TEST_MYSQL_URL:-mysql://muster:muster@127.0.0.1:13380?ssl-mode=DISABLED}'"
echo "export MUSTER_TEST_KAFKA='${MUSTER_TEST_KAFKA:-127.0.0.1:19092}'"
