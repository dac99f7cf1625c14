//! A daemon, three ingests, two workers, a Kafka and a MariaDB of their own, and an nginx that writes down what it is asked.

use crate::flow::daemon::World;
use crate::support::kafka::Cluster;
use crate::support::mariadb::MariaDb;
use crate::support::muster::{Daemon, processes, signal};
use crate::support::nginx::Nginx;
use crate::support::wait_for;
use serde_json::Value;
use std::time::{Duration, Instant};

const PLANS: &str = r#"
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
  topics: [{name: frames, partitions: 12, replicationFactor: 3, config: {min.insync.replicas: "2"}}]
---
apiVersion: muster.dev/v1alpha1
kind: DatabaseCluster
metadata: {name: results}
spec: {engine: mariadb, external: {secretRef: {name: results}}}
---
apiVersion: muster.dev/v1alpha1
kind: IngestCluster
metadata: {name: streaming}
spec: {environment: lab, replicas: 3, kafkaCluster: metrics, topic: frames, databaseCluster: results}
---
apiVersion: muster.dev/v1alpha1
kind: WorkerPool
metadata: {name: crew}
spec:
  environment: lab
  capacity: {vus: 100, rate: 200}
  workers: {min: 0, max: 2}
  # As long as results may take to arrive after an outage on a busy machine.
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
  phases: [{name: steady, executor: constant-arrival-rate, rate: 300, duration: DURATION, maxVUs: 100}]
  thresholds: {http_req_failed: [rate<1%]}
  validity: {maxBadShare: 100%}
  results: {databaseCluster: results}
"#;

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Ingest,
    Daemon,
    LeadingBroker,
    AllBrokers,
    Database,
    IngestsAndDaemon,
    Worker,
}

/// Everything a run over Kafka needs.
pub struct Scene {
    daemon: Daemon,
    kafka: Cluster,
    mariadb: MariaDb,
    nginx: Nginx,
    world: World,
    /// Requests logged before the run.
    before: usize,
}

impl Scene {
    /// Starts it all, for runs of `duration`.
    pub fn start(duration: Duration) -> Self {
        let (kafka, mariadb) = (Cluster::start(), MariaDb::start());
        let servers = kafka.servers();
        let servers: Vec<String> = servers.split(',').map(|server| format!("{server:?}")).collect();
        let plans = PLANS
            .replace("SERVERS", &servers.join(", "))
            .replace("DURATION", &format!("{}s", duration.as_secs()));
        let world = World::of(&[]);
        let nginx = Nginx::start(&world.dir.path().join("nginx"), "location / { return 200 \"ok\"; }");
        world
            .repo
            .write("plans/all.yaml", &plans.replace("TARGET", &nginx.url()));
        world.repo.commit("all");
        std::fs::write(world.dir.path().join("results-url"), mariadb.database("muster_chaos")).unwrap();
        let settings = format!(
            "{}targets: {{allow: [\"127.0.0.1\"]}}\nsecrets: [{{name: results, file: {}}}]\n",
            world.settings(),
            world.dir.path().join("results-url").display(),
        );
        let daemon = Daemon::start(world.dir.path(), &settings);
        Self {
            daemon,
            kafka,
            mariadb,
            nginx,
            world,
            before: 0,
        }
    }

    /// Starts a run once everything is there, and waits until its load is on its way into the database.
    pub fn begin(&mut self) -> String {
        wait_for("three ingests", || {
            (self.processes("muster ingest").len() == 3).then_some(())
        });
        wait_for("the plan", || {
            let (_, plan) = self.daemon.get("/api/v1/resources/default/TestPlan/steady");
            (plan["sync"] == "Synced").then_some(())
        });
        self.before = self.nginx.requests();
        // Blocked for as long as what the outage before left degraded has not been looked at again.
        let started = wait_for("a run", || {
            let done = self.daemon.muster(&["start", "plan/steady", "-o", "json"]);
            (done.code == 0).then(|| done.json())
        });
        let id = started["id"].as_str().unwrap().to_owned();
        wait_for("numbers of the run", || {
            let (_, live) = self.daemon.get(&format!("/api/v1/runs/{id}/live"));
            (live["live"]["numbers"]["requests"].as_u64().unwrap_or(0) > 300).then_some(())
        });
        id
    }

    /// kill -9, and back again after `away`.
    pub fn kill(&mut self, victim: Victim, away: Duration) {
        match victim {
            Victim::Ingest => self.kill_first("muster ingest", 1),
            Victim::Worker => self.kill_first("muster worker", 1),
            Victim::Daemon => self.daemon.kill(),
            Victim::IngestsAndDaemon => {
                self.kill_first("muster ingest", 3);
                self.daemon.kill();
            }
            Victim::LeadingBroker => self.kafka.kill(Some(1)),
            Victim::AllBrokers => self.kafka.kill(None),
            Victim::Database => self.mariadb.kill(),
        }
        // An outage has a length; nothing is waited for in it.
        let back = Instant::now() + away;
        while Instant::now() < back {
            std::thread::park_timeout(back - Instant::now());
        }
        match victim {
            Victim::Ingest | Victim::Worker => {}
            Victim::Daemon | Victim::IngestsAndDaemon => {
                self.daemon = Daemon::again(self.world.dir.path(), self.daemon.port());
            }
            Victim::LeadingBroker => self.kafka.again(Some(1)),
            Victim::AllBrokers => self.kafka.again(None),
            Victim::Database => self.mariadb.up(),
        }
    }

    /// The report, once the run has ended.
    pub fn finish(&self, id: &str) -> Value {
        wait_for_long("the run to end", || {
            (self.daemon.get(&format!("/api/v1/runs/{id}")).1["stage"] == "Finished").then_some(())
        });
        self.daemon.ok(&["report", id, "-o", "json"]).json()
    }

    /// What nginx was asked since the run began.
    pub fn requests(&self) -> u64 {
        (self.nginx.requests() - self.before) as u64
    }

    /// Waits until no worker is left.
    pub fn rest(&self) {
        wait_for("the workers to leave", || {
            self.processes("muster worker").is_empty().then_some(())
        });
    }

    fn kill_first(&self, words: &str, count: usize) {
        let pids = self.processes(words);
        assert!(pids.len() >= count, "{} of {words}", pids.len());
        for pid in &pids[..count] {
            signal(*pid, "KILL");
        }
    }

    fn processes(&self, words: &str) -> Vec<u32> {
        processes(self.world.dir.path(), words)
    }
}

/// Like `wait_for`, for what takes an outage and what follows it.
pub fn wait_for_long(what: &str, mut look: impl FnMut() -> Option<()>) {
    for _ in 0..4 {
        let begun = Instant::now();
        while begun.elapsed() < crate::support::PATIENCE {
            if look().is_some() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    panic!("waited too long for {what}");
}
