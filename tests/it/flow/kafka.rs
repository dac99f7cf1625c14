//! Results through Kafka: real brokers, a real database, ingests as processes of their own; counts equal the target's own log exactly,
//! whatever is killed in between.

use super::daemon::World;
use crate::support::kafka::{self, Cluster};
use crate::support::mariadb::MariaDb;
use crate::support::muster::{Daemon, command, signal};
use crate::support::nginx::Nginx;
use crate::support::{free_port, wait_for};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};

/// One `muster ingest`; killed when dropped.
struct Ingest {
    child: Child,
    port: u16,
}

impl Ingest {
    fn start(dir: &Path, servers: &str, topic: &str, store: &str) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("ingest.log"))
            .unwrap();
        let args = ["ingest", "--bootstrap", servers, "--topic", topic, "--listen", &listen];
        let child = command(dir, &args)
            .env("MUSTER_STORE", store)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port }
    }

    fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let exchange = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// Waits until it has its share of the topic.
    fn ready(self) -> Self {
        wait_for("the ingest to be ready", || {
            (self.get("/readyz").0 == 200).then_some(())
        });
        self
    }

    /// How many frames it has stored.
    fn stored(&self) -> u64 {
        let (_, text) = self.get("/metrics");
        let line = text
            .lines()
            .find(|line| line.starts_with("muster_ingest_frames_total{fate=\"stored\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    fn terminate(mut self) -> i32 {
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon whose workers send to a topic.
struct Lab {
    daemon: Daemon,
    nginx: Nginx,
    log: std::path::PathBuf,
    ingests: Vec<Ingest>,
    _database: MariaDb,
    world: World,
}

impl Lab {
    fn new(servers: &str, ingests: usize, duration: &str) -> Self {
        let world = World::of(&[]);
        let folder = world.dir.path().join("nginx");
        let nginx = Nginx::start(&folder, "location / { return 200 \"ok\"; }");
        let topic = kafka::unique("muster-flow");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { kafka::make(&kafka::brokers(servers), &topic, 6).await });
        let list: Vec<String> = servers.split(',').map(|server| format!("\"{server}\"")).collect();
        world.repo.write(
            "plans/plan.yaml",
            &PLAN
                .replace("SERVERS", &list.join(", "))
                .replace("TOPIC", &topic)
                .replace("TARGET", &nginx.url())
                .replace("DURATION", duration),
        );
        world.repo.commit("a plan whose results go through kafka");
        let database = MariaDb::start();
        let store = database.database("muster_kafka");
        let secret = world.dir.path().join("results-db");
        std::fs::write(&secret, &store).unwrap();
        let settings = format!(
            "{}targets: {{allow: [\"127.0.0.1\"]}}\nsecrets: [{{name: results-db, file: {}}}]\n",
            world.settings(),
            secret.display()
        );
        let daemon = Daemon::start(world.dir.path(), &settings);
        let ingest = |_| Ingest::start(world.dir.path(), servers, &topic, &store);
        let ingests = (0..ingests).map(ingest).collect::<Vec<_>>();
        let ingests = ingests.into_iter().map(Ingest::ready).collect();
        wait_for("the plan to be synced", || {
            (daemon.get("/api/v1/resources/default/TestPlan/steady").1["sync"] == "Synced").then_some(())
        });
        Self {
            daemon,
            nginx,
            log: folder.join("access.log"),
            ingests,
            _database: database,
            world,
        }
    }

    fn start(&self) -> String {
        let started = wait_for("the run to start", || {
            let done = self.daemon.muster(&["start", "steady", "-o", "json"]);
            (done.code == 0).then(|| done.json())
        });
        let id = started["id"].as_str().unwrap().to_owned();
        self.wait_for_requests(25);
        id
    }

    fn requests(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().count()
    }

    fn wait_for_requests(&self, count: usize) {
        wait_for(&format!("{count} requests"), || {
            (self.requests() >= count).then_some(())
        });
    }

    /// Waits for the end, and compares what was counted with what nginx logged.
    fn ends_exact(self, id: &str, iterations: u64) {
        let run = wait_for("the run to end", || {
            let (_, run) = self.daemon.get(&format!("/api/v1/runs/{id}"));
            (run["stage"] == "Finished").then_some(run)
        });
        let report: Value = self.daemon.muster(&["report", id, "-o", "json"]).json();
        let logs = || {
            let ingest = std::fs::read_to_string(self.world.dir.path().join("ingest.log")).unwrap_or_default();
            format!("{}\n{ingest}", self.daemon.log())
        };
        assert_eq!(run["ending"], "Passed", "{report:#}\n{}", logs());
        assert_eq!(report["completeness"]["kind"], "Complete", "{report:#}\n{}", logs());
        assert_eq!(report["metrics"]["iterations"]["count"], iterations, "{report:#}");
        let stored: u64 = self.ingests.iter().map(Ingest::stored).sum();
        assert!(stored > 0, "the frames went another way");
        for ingest in self.ingests {
            let mut ingest = ingest;
            if ingest.child.try_wait().unwrap().is_none() {
                assert_eq!(ingest.terminate(), 0);
            }
        }
        assert_eq!(report["metrics"]["http_reqs"]["count"], self.nginx.stop().len());
    }
}

const PLAN: &str = r#"
apiVersion: muster.dev/v1alpha1
kind: Environment
metadata: {name: lab}
spec: {provider: {type: process}}
---
apiVersion: muster.dev/v1alpha1
kind: KafkaCluster
metadata: {name: metrics}
spec:
  external: {bootstrapServers: [SERVERS]}
  topics: [{name: TOPIC, partitions: 6, replicationFactor: 3}]
---
apiVersion: muster.dev/v1alpha1
kind: DatabaseCluster
metadata: {name: results}
spec: {engine: mariadb, external: {secretRef: {name: results-db}}}
---
apiVersion: muster.dev/v1alpha1
kind: WorkerPool
metadata: {name: pool}
spec: {environment: lab, workers: {max: 2}, capacity: {vus: 100, rate: 25}, bus: {kafkaCluster: metrics, topic: TOPIC}}
---
apiVersion: muster.dev/v1alpha1
kind: TestPlan
metadata: {name: steady}
spec:
  pool: pool
  results: {databaseCluster: results}
  target: {baseURL: "TARGET"}
  engine: {type: http, timeout: 5s, requests: [{name: home, get: /}]}
  phases: [{name: p, executor: constant-arrival-rate, rate: 50, duration: DURATION}]
  thresholds: {http_req_failed: [rate<1%]}
  validity: {maxBadShare: 100%}
"#;

#[test]
fn s48_s49_results_through_kafka_are_those_of_the_target() {
    let lab = Lab::new(&kafka::servers(), 2, "5s");
    let id = lab.start();
    lab.ends_exact(&id, 250);
}

#[test]
fn s49_an_ingest_killed_in_mid_run_loses_and_doubles_nothing() {
    let mut lab = Lab::new(&kafka::servers(), 3, "15s");
    let id = lab.start();
    // One that has work: it is killed between two flushes.
    let busy = wait_for("an ingest to store something", || {
        lab.ingests.iter().position(|ingest| ingest.stored() > 1)
    });
    lab.ingests[busy].kill();
    lab.ends_exact(&id, 750);
}

#[test]
fn s49_a_broker_killed_in_mid_run_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    let lab = Lab::new(&cluster.servers(), 2, "15s");
    let id = lab.start();
    // Each in turn, so that the leading one is among them.
    for broker in 1..=3 {
        lab.wait_for_requests(100 * usize::try_from(broker).unwrap());
        cluster.kill(Some(broker));
        cluster.again(Some(broker));
    }
    lab.ends_exact(&id, 750);
}
