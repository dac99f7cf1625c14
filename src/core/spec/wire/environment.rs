//! `Environment` and `WorkerPool` as written.

use super::scalar::{Decimal, ReferenceText, Span, TopicText, Unsupported};
use super::union::tagged_union;
use super::wire;

wire! {
    /// Where units run.
    pub struct EnvironmentSpec {
        /// What starts the units: exactly one type.
        pub provider: Provider,
        /// What all runs on it together may reach. Absent fields: no bound of its own.
        pub limits: Option<EnvironmentLimits>,
        /// What an hour of one worker costs.
        pub cost: Option<Cost>,
    }

    /// Child processes on the daemon's own host.
    pub struct ProcessProvider {
        /// Absolute folder for the units' own directories. Default: below the daemon's state folder.
        #[schemars(regex(pattern = "^/"))]
        pub work_dir: Option<String>,
    }

    /// The test double that behaves: units exist only in the daemon's memory and state file.
    pub struct SimulatedProvider {
        /// How long a unit takes to become Ready. Default 0s.
        pub ready_after: Option<Span>,
        /// Each n-th create fails; 0, the default: none.
        #[schemars(range(max = 1_000_000))]
        pub fail_every: Option<u32>,
    }

    /// Workers that come by themselves: `muster worker --join HOST:PORT --token-file F` with a token of the settings' `join`. Only
    /// WorkerPools live here.
    pub struct JoinedProvider {}

    /// Upper bounds of an environment.
    pub struct EnvironmentLimits {
        /// Workers at the same time.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
        /// Virtual users at the same time.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub vus: Option<u64>,
        /// Iterations per second.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub rate: Option<u64>,
        /// Requests per second.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub requests_per_second: Option<u64>,
        /// Runs at the same time.
        #[schemars(range(min = 1, max = 100_000))]
        pub concurrent_runs: Option<u32>,
    }

    /// What an hour of one worker costs.
    pub struct Cost {
        /// ISO 4217 code, such as CNY.
        #[schemars(regex(pattern = "^[A-Z]{3}$"))]
        pub currency: String,
        /// Price of one worker for one hour, in quotes: "0.90".
        pub worker_hour: Decimal,
    }

    /// Load generators of one kind.
    pub struct WorkerPoolSpec {
        /// The Environment its workers run in.
        pub environment: ReferenceText,
        /// The engine's image.
        pub image: Option<Unsupported>,
        /// What one worker carries; the number of workers of a run follows from it. Default: 10,000 users and 20,000 iterations/s.
        pub capacity: Option<Capacity>,
        /// What a worker's container gets.
        pub resources: Option<Unsupported>,
        /// How many workers there may be.
        pub workers: Option<Workers>,
        /// How long workers may take and stay.
        pub provisioning: Option<Provisioning>,
        /// A worker that has not heard from its owner for so long ramps down and exits: 5s to 15m. Default 60s.
        pub orphan_timeout: Option<Span>,
        /// The Kafka topic that carries results to `muster ingest`. Absent: workers send them straight to the daemon.
        pub bus: Option<Bus>,
    }

    /// The Kafka topic that carries results.
    pub struct Bus {
        /// The KafkaCluster.
        pub kafka_cluster: ReferenceText,
        /// One of its `topics`.
        pub topic: TopicText,
    }

    /// What one worker carries.
    pub struct Capacity {
        /// Virtual users.
        #[schemars(range(min = 1, max = 1_000_000))]
        pub vus: u64,
        /// Iterations per second.
        #[schemars(range(min = 1, max = 10_000_000))]
        pub rate: u64,
    }

    /// How many workers there may be.
    pub struct Workers {
        /// Workers kept warm without any run. Default 0.
        #[schemars(range(max = 100_000))]
        pub min: Option<u32>,
        /// Most workers at the same time. Default 1, or `min` where that is more.
        #[schemars(range(min = 1, max = 100_000))]
        pub max: Option<u32>,
    }

    /// How long workers may take and stay.
    pub struct Provisioning {
        /// How far ahead of a slot workers are started, so that load begins at its instant: `readyTimeout` and the plans' PreRun hooks fit
        /// into it. Default 0s.
        pub lead_time: Option<Span>,
        /// How long workers may take to be ready before the run ends as Error(infrastructure). Default 5m.
        pub ready_timeout: Option<Span>,
        /// How long workers stay after the last run that used them. Default 0s.
        pub keep_warm: Option<Span>,
    }
}

tagged_union! {
    /// What starts the units.
    pub enum Provider by "type" {
        "process" => Process(ProcessProvider),
        "joined" => Joined(JoinedProvider),
        "simulated" => Simulated(SimulatedProvider),
    }
    refused: ["docker", "kubernetes"];
}
