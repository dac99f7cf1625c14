//! A cut network between workers and Kafka: load goes on, results wait with the workers, and in the end all of them have arrived.

use super::network::{BUS, CONTROL, Host};
use super::scene::wait_for_long;
use crate::flow::daemon::World;
use crate::support::kafka::Cluster;
use crate::support::mariadb::MariaDb;
use crate::support::muster::{Daemon, processes};
use crate::support::nginx::Nginx;
use crate::support::{free_port, wait_for};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const RATE: usize = 200;

const PLANS: &str = r#"
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: lab}
spec: {provider: {type: process}}
---
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: far}
spec: {provider: {type: joined}}
---
apiVersion: muster.dev/v1alpha1
kind: KafkaCluster
metadata: {name: metrics}
spec:
  external: {bootstrapServers: [SERVERS]}
  topics: [{name: frames, partitions: 6, replicationFactor: 3}]
---
apiVersion: muster.dev/v1alpha1
kind: DatabaseCluster
metadata: {name: results}
spec: {engine: mariadb, external: {secretRef: {name: results}}}
---
apiVersion: muster.dev/v1alpha1
kind: IngestCluster
metadata: {name: streaming}
spec: {environment: lab, replicas: 2, kafkaCluster: metrics, topic: frames, databaseCluster: results}
---
apiVersion: muster.dev/v1alpha1
kind: WorkerPool
metadata: {name: crew}
spec:
  environment: far
  capacity: {vus: 100, rate: 100}
  workers: {max: 2}
  orphanTimeout: 5m
  bus: {kafkaCluster: metrics, topic: frames}
---
apiVersion: muster.dev/v1alpha1
kind: TestPlan
metadata: {name: steady}
spec:
  target: {baseURL: "TARGET"}
  pool: crew
  engine: {type: http, timeout: 10s, requests: [{name: home, get: /}]}
  phases: [{name: steady, executor: constant-arrival-rate, rate: RATE, duration: DURATION, maxVUs: 100}]
  thresholds: {http_req_failed: [rate<1%]}
  validity: {maxBadShare: 100%}
  results: {databaseCluster: results}
"#;

/// An authority, and a certificate of it for the daemon's address.
const CERTIFICATES: &str = r#"
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -days 30 -subj /CN=chaos -keyout ca.key -out ca.pem
openssl req $key -subj /CN=daemon -keyout daemon.key -out daemon.csr
printf 'subjectAltName=IP:ADDRESS\nbasicConstraints=CA:FALSE\n' >daemon.ext
openssl x509 -req -in daemon.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile daemon.ext -out daemon.pem
"#;

/// Workers on another host; killed when dropped.
struct Workers(Vec<Child>);

impl Workers {
    fn start(host: &Host, folder: &Path, join: &str) -> Self {
        let one = |number: i32| {
            let own = folder.join(format!("worker-{number}"));
            std::fs::create_dir_all(&own).unwrap();
            let log = std::fs::File::create(own.join("log")).unwrap();
            let args = [
                "worker",
                "--join",
                join,
                "--token-file",
                "../join-token",
                "--ca",
                "../ca.pem",
            ];
            host.muster(&own, &args, log)
        };
        Self([1, 2].map(one).into())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn daemon(world: &World, results: &str) -> (Daemon, String) {
    let folder = world.dir.path();
    let certificates = CERTIFICATES.replace("ADDRESS", CONTROL);
    let made = Command::new("sh")
        .args(["-ec", &certificates])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(folder.join("join-token"), "a-token-of-more-than-enough-letters").unwrap();
    std::fs::write(folder.join("results-url"), results).unwrap();
    let (port, join) = (free_port(), format!("{CONTROL}:{}", free_port()));
    let at = folder.display();
    let settings = format!(
        "{}listen: 127.0.0.1:{port}\nworkers: {{listen: \"{join}\", tls: {{certFile: {at}/daemon.pem, keyFile: {at}/daemon.key}}}}\n\
         join: [{{environment: far, maxWorkers: 2, secretRef: {{name: join}}}}]\ntargets: {{allow: [\"{CONTROL}\"]}}\n\
         secrets: [{{name: results, file: {at}/results-url}}, {{name: join, file: {at}/join-token}}]\n",
        world.settings(),
    );
    std::fs::write(folder.join("muster.yaml"), settings).unwrap();
    (Daemon::again(folder, port), join)
}

fn cut(away: Duration) {
    let host = Host::beside_this_thread();
    let (kafka, mariadb) = (Cluster::start_on(BUS), MariaDb::start());
    let world = World::of(&[]);
    let nginx = Nginx::start_on(
        CONTROL,
        &world.dir.path().join("nginx"),
        "location / { return 200 \"ok\"; }",
    );
    let servers = kafka.servers();
    let servers: Vec<String> = servers.split(',').map(|server| format!("{server:?}")).collect();
    let duration = away + Duration::from_secs(12);
    let plans = PLANS
        .replace("SERVERS", &servers.join(", "))
        .replace("TARGET", &nginx.url())
        .replace("RATE", &RATE.to_string())
        .replace("DURATION", &format!("{}s", duration.as_secs()));
    world.repo.write("plans/all.yaml", &plans);
    world.repo.commit("all");
    let (daemon, join) = daemon(&world, &mariadb.database("muster_cut"));
    let _workers = Workers::start(&host, world.dir.path(), &join);
    wait_for("two ingests and the plan", || {
        let (_, plan) = daemon.get("/api/v1/resources/default/TestPlan/steady");
        let ingests = processes(world.dir.path(), "muster ingest").len();
        (ingests == 2 && plan["sync"] == "Synced").then_some(())
    });
    let started = wait_for("a run", || {
        let done = daemon.muster(&["start", "plan/steady", "-o", "json"]);
        (done.code == 0).then(|| done.json())
    });
    let id = started["id"].as_str().unwrap();
    wait_for("numbers of the run", || {
        let (_, live) = daemon.get(&format!("/api/v1/runs/{id}/live"));
        (live["live"]["numbers"]["requests"].as_u64()? > 100).then_some(())
    });

    host.cable_to_kafka("down");
    let (begun, before) = (Instant::now(), nginx.requests());
    let spooled = || -> Vec<u64> {
        let workers = daemon.get("/api/v1/workers").1;
        let workers = workers["items"].as_array().cloned().unwrap_or_default();
        workers.iter().filter_map(|worker| worker["spooled"].as_u64()).collect()
    };
    // One frame may always be on its way.
    wait_for("results to wait with both workers", || {
        let spooled = spooled();
        (spooled.len() == 2 && spooled.iter().all(|frames| *frames > 2)).then_some(())
    });
    // An outage has a length; nothing is waited for in it.
    while begun.elapsed() < away {
        std::thread::park_timeout(away.saturating_sub(begun.elapsed()));
    }
    let (made, expected) = (
        nginx.requests() - before,
        RATE * usize::try_from(begun.elapsed().as_secs()).unwrap(),
    );
    assert!(made * 10 > expected * 9, "load went on: {made} of {expected}");
    host.cable_to_kafka("up");

    wait_for_long("the run to end", || {
        (daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
    });
    let report = daemon.ok(&["report", id, "-o", "json"]).json();
    assert_eq!(report["ending"]["kind"], "Passed", "{report:#}\n{}", daemon.log());
    assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}");
    let planned = RATE as u64 * duration.as_secs();
    assert_eq!(
        report["metrics"]["http_reqs"]["count"].as_u64(),
        Some(planned),
        "{report:#}"
    );
    assert_eq!(nginx.stop().len() as u64, planned);
}

/// In a thread of its own: it leaves the network that other tests are in.
fn run(away: Duration) {
    let done = std::thread::spawn(move || cut(away)).join();
    assert!(done.is_ok(), "it said why above");
}

#[test]
fn s48_s49_results_of_workers_that_are_cut_off_from_kafka_for_a_moment_all_arrive() {
    run(Duration::from_secs(4));
}

#[test]
#[ignore = "an outage of twenty seconds: make chaos"]
fn s48_s49_results_of_workers_that_are_cut_off_from_kafka_for_twenty_seconds_all_arrive() {
    run(Duration::from_secs(20));
}
