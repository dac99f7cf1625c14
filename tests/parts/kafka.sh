#!/usr/bin/env bash
# Apache Kafka 4.1.2 from its jars on Maven Central: three brokers that are controllers too. Plain text on 127.0.0.1:19092 to 19094;
# SASL over TLS on localhost:19098 to 19100 (user muster, password muster, by PLAIN or SCRAM; its CA is STATE/kafka/ca.pem).
# KAFKA_PORT moves these nine ports, KAFKA_BROKERS makes it fewer brokers, KAFKA_HOST is another address of this machine for plain text.
#
#   kafka.sh kill STATE [N]    kill -9 of broker N, or of all
#   kafka.sh start STATE [N]   starts broker N again, or all that are down, and waits until it answers
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
alone kafka
home=$state/kafka
port=${KAFKA_PORT:-19092}
host=${KAFKA_HOST:-127.0.0.1}
brokers=${KAFKA_BROKERS:-3}
chosen=${3:-}
version=4.1.2
# Shared by all clusters of the checkout.
dist=$root/.cache/parts/kafka-$version

# For brokers that start quickly and stay small.
jvm=(-Xms32m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$dist/log4j2.properties" -cp "$dist/libs/*")
# A run of a broker wrote down which classes it loads: half of the time of a start. Another Java than that one's does without.
archive=(-Xshare:auto -Xlog:disable "-XX:SharedArchiveFile=$dist/classes.jsa")

client_port() { echo $((port + $1 - 1)); }
controller_port() { echo $((port + 2 + $1)); }
secure_port() { echo $((port + 5 + $1)); }

install() {
  command -v java >/dev/null || need_packages default-jre-headless
  need_packages kcat openssl
  mkdir -p "$root/.cache/parts"
  # Several clusters may want it at once.
  exec 8>"$dist.lock"
  flock -w 900 8
  [ -e "$dist/classes.jsa" ] || fetch
  exec 8>&-
}

fetch() {
  command -v mvn >/dev/null || need_packages maven
  say "fetching kafka $version"
  rm -rf "$dist"
  mkdir -p "$dist"
  # log4j-slf4j-impl: without it there is no log at all.
  cat >"$dist/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>muster.parts</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.3</version></dependency>
</dependencies></project>
POM
  mvn -B -q -f "$dist/pom.xml" -Dmaven.repo.local="$root/.cache/parts/m2" dependency:copy-dependencies \
    -DoutputDirectory="$dist/libs" -DincludeScope=runtime >&2 </dev/null 8>&- 9>&-
  cat >"$dist/log4j2.properties" <<'LOG'
status = error
appenders = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRefs = console
rootLogger.appenderRef.console.ref = console
LOG
  # In a shell of its own, where it is another cluster: one broker on ports of its own.
  (
    home=$dist/training port=$((port + 900)) brokers=1
    archive=("-XX:ArchiveClassesAtExit=$dist/classes.new")
    make
    run 1
    ready 1
    stop "$home/1/pid" "$home/1"
  )
  rm -rf "$dist/training"
  # Last, so that one that was cut off is not taken for whole.
  mv "$dist/classes.new" "$dist/classes.jsa"
}

# A CA that is its own only certificate: enough to see that clients check it.
certificate() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$home/key.pem" -out "$home/ca.pem" 2>/dev/null
  cat "$home/key.pem" "$home/ca.pem" >"$home/keystore.pem"
}

configure() {
  local i=$1 j spare=$((brokers > 2 ? 2 : 1)) voters=()
  for j in $(seq "$brokers"); do voters+=("$j@127.0.0.1:$(controller_port "$j")"); done
  mkdir -p "$home/$i"
  cat >"$home/$i/server.properties" <<CONF
process.roles=broker,controller
node.id=$i
controller.quorum.voters=$(IFS=,; echo "${voters[*]}")
listeners=PLAIN://$host:$(client_port "$i"),CONTROLLER://127.0.0.1:$(controller_port "$i"),SECURE://127.0.0.1:$(secure_port "$i")
advertised.listeners=PLAIN://$host:$(client_port "$i"),SECURE://localhost:$(secure_port "$i")
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$home/keystore.pem
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_muster="muster";
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=$home/$i/data
auto.create.topics.enable=false
default.replication.factor=$brokers
min.insync.replicas=$spare
offsets.topic.replication.factor=$brokers
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=$brokers
transaction.state.log.min.isr=$spare
share.coordinator.state.topic.replication.factor=$brokers
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=16777216
log.segment.bytes=67108864
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
CONF
}

# The cluster's files. One after the other: each may be the one that was cut off.
make() {
  local i
  mkdir -p "$home"
  [ -s "$home/keystore.pem" ] || certificate
  for i in $(seq "$brokers"); do
    [ -e "$home/$i/data/meta.properties" ] && continue
    rm -rf "${home:?}/$i"
    configure "$i"
    java "${jvm[@]}" -XX:SharedArchiveFile="$dist/classes.jsa" -Xshare:auto -Xlog:disable kafka.tools.StorageTool format \
      -t bXVzdGVyLXRlc3RzLWthZg -c "$home/$i/server.properties" --add-scram 'SCRAM-SHA-256=[name=muster,password=muster]' \
      --add-scram 'SCRAM-SHA-512=[name=muster,password=muster]' >"$home/$i/format.log" 2>&1 8>&- 9>&- ||
      { cat "$home/$i/format.log" >&2; exit 1; }
  done
}

run() {
  alive "$home/$1/pid" "$home/$1/" || detached "$home/$1/log" "$home/$1/pid" \
    java "${archive[@]}" "${jvm[@]}" kafka.Kafka "$home/$1/server.properties" 8>&-
}

# Whether a broker answers and sees all that are to be there.
answering() { kcat -L -b "$host:$(client_port "$1")" -m 2 2>/dev/null | grep -q "^ $brokers brokers:"; }
ready() { until_ready "$home/$1/log" "$home/$1/pid" "$home/$1/" answering "$1"; }

up() {
  install
  # Ours, or that of another checkout.
  answering 1 && answering "$brokers" && return
  [ -e "$home" ] || ! kcat -L -b "$host:$port" -m 1 >/dev/null 2>&1 ||
    { say "another kafka answers on $host:$port, with fewer brokers"; exit 1; }
  make
  start
  say "$brokers brokers ready from $host:$port"
}

start() {
  local i
  for i in ${chosen:-$(seq "$brokers")}; do run "$i"; done
  for i in ${chosen:-$(seq "$brokers")}; do
    if [ "$chosen" ]; then until_ready "$home/$i/log" "$home/$i/pid" "$home/$i/" kcat -L -b "$host:$(client_port "$i")" -m 2; else ready "$i"; fi
  done
}

kill_brokers() {
  local i
  for i in ${chosen:-$(seq "$brokers")}; do
    alive "$home/$i/pid" "$home/$i/" && kill -9 "$(cat "$home/$i/pid")"
    rm -f "$home/$i/pid"
  done
}

down() {
  local i
  # All at once: each waits for the others when it leaves in good order.
  for i in $(seq "$brokers"); do stop "$home/$i/pid" "$home/$i/" & done
  wait
  rm -rf "$home"
}

case "$verb" in
  kill) kill_brokers ;;
  start) start ;;
  *) run_verb ;;
esac
