//! The Kafka that tests share, and clusters of a test's own, whose brokers may be killed and started again.

use muster::bus::kafka::{Brokers, Mechanism, Sasl, TopicSpec, ensure_topic};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

/// Address of the first broker of the shared cluster.
pub fn servers() -> String {
    std::env::var("MUSTER_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:19092".to_owned())
}

/// Brokers in plain text, for nobody in particular.
pub fn brokers(servers: &str) -> Brokers {
    Brokers {
        bootstrap_servers: vec![servers.to_owned()],
        sasl: None,
        ca: None,
    }
}

/// A name nobody else uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::now_v7().simple())
}

/// Makes a topic of the test's own; it goes with the cluster.
pub async fn topic(brokers: &Brokers, partitions: u32) -> String {
    let name = unique("muster-test");
    make(brokers, &name, partitions).await;
    name
}

/// Makes a topic of this name.
pub async fn make(brokers: &Brokers, name: &str, partitions: u32) {
    let spec = TopicSpec {
        name: name.to_owned(),
        partitions,
        replication_factor: 3,
        config: BTreeMap::new(),
    };
    if let Err(error) = ensure_topic(brokers, &spec).await {
        panic!("{error}; start kafka with: tests/parts/kafka.sh up");
    }
}

/// A cluster of three brokers; stopped and removed when dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    host: &'static str,
    port: u16,
}

impl Cluster {
    /// Makes one and starts it.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    /// Makes one that answers on another address of this machine.
    pub fn start_on(host: &'static str) -> Self {
        let cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            host,
            port: free_block(),
        };
        cluster.script(&["up"], &[]);
        cluster
    }

    /// All brokers' addresses.
    pub fn servers(&self) -> String {
        let address = |index: u16| format!("{}:{}", self.host, self.port + index);
        [0, 1, 2].map(address).join(",")
    }

    /// kill -9 of one broker (from 1), or of all.
    pub fn kill(&self, broker: Option<i32>) {
        let broker = broker.map(|broker| broker.to_string());
        self.script(&["kill"], &broker.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Starts one that was killed, or all.
    pub fn again(&self, broker: Option<i32>) {
        let broker = broker.map(|broker| broker.to_string());
        self.script(&["start"], &broker.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Brokers that ask for a password, over TLS.
    pub fn secure(&self, mechanism: Mechanism, password: &str) -> Brokers {
        let ca = self.folder.path().join("kafka/ca.pem");
        Brokers {
            bootstrap_servers: vec![format!("localhost:{}", self.port + 6)],
            sasl: Some(Sasl {
                mechanism,
                username: "muster".to_owned(),
                password: password.to_owned().into(),
            }),
            ca: Some(std::fs::read_to_string(ca).unwrap()),
        }
    }

    #[track_caller]
    fn script(&self, verb: &[&str], rest: &[&str]) {
        let output = Command::new(script())
            .args(verb)
            .arg(self.folder.path())
            .args(rest)
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_HOST", self.host)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/parts/kafka.sh {verb:?}: {text}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Killed first: nobody waits for brokers that say goodbye to each other.
        self.kill(None);
        self.script(&["down"], &[]);
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/kafka.sh")
}

/// The first of nine ports in a row that were free a moment ago, below those that systems give to clients.
fn free_block() -> u16 {
    let spread = Uuid::now_v7().as_u128() % 800;
    let mut blocks = (0..800_u16).map(|block| 20_000 + (block + u16::try_from(spread).unwrap()) % 800 * 10);
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    blocks.find(|first| (*first..first + 9).all(is_free)).unwrap()
}
