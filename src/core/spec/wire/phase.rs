//! Phases as written: k6's executors with k6's field names, and pauses.

use super::scalar::{NameText, Span};
use super::union::{tagged_union, word_enum};
use super::wire;

tagged_union! {
    /// One phase. Phases run one after another; the next one starts at the border, while iterations of the old one finish beside
    /// it within `gracefulStop`.
    pub enum Phase by "executor" {
        "constant-vus" => ConstantVus(ConstantVus),
        "ramping-vus" => RampingVus(RampingVus),
        "constant-arrival-rate" => ConstantArrivalRate(ConstantArrivalRate),
        "ramping-arrival-rate" => RampingArrivalRate(RampingArrivalRate),
        "per-vu-iterations" => PerVuIterations(Iterations),
        "shared-iterations" => SharedIterations(Iterations),
    }
    refused: [];
    otherwise: "pause" => Pause(PausePhase);
}

word_enum! {
    /// What a pause phase does when nobody came.
    pub enum OnTimeout {
        "Abort" => Abort,
        "Continue" => Continue,
    }
    refused: [];
}

wire! {
    /// Waits for a person's `resume`.
    pub struct PausePhase {
        /// Unique in the plan.
        pub name: NameText,
        /// How long, and what then.
        pub pause: Pause,
    }

    /// How long a pause lasts, and what then.
    pub struct Pause {
        /// How long at most.
        pub timeout: Span,
        /// Abort (default): the run ends as Aborted(pauseTimeout). Continue: the next phase starts.
        pub on_timeout: Option<OnTimeout>,
    }

    /// A fixed number of users, each as fast as it can.
    pub struct ConstantVus {
        /// Unique in the plan; the `phase` tag of everything measured in it.
        pub name: NameText,
        /// Users. Default 1.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub vus: Option<u64>,
        /// How long.
        pub duration: Span,
        /// How long iterations may go on after the phase's end. Default 30s.
        pub graceful_stop: Option<Span>,
        /// How many of the run's workers share the phase: the first so many; the others wait. Absent: from the pool's `capacity`.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
    }

    /// A number of users that follows stages.
    pub struct RampingVus {
        /// Unique in the plan; the `phase` tag of everything measured in it.
        pub name: NameText,
        /// Users at the start. Default 1.
        #[serde(rename = "startVUs")]
        #[schemars(range(max = 1_000_000_000))]
        pub start_vus: Option<u64>,
        /// Linear ramps, one after another.
        #[schemars(length(min = 1, max = 1_000))]
        pub stages: Vec<Stage>,
        /// How long iterations may go on after the phase's end. Default 30s.
        pub graceful_stop: Option<Span>,
        /// How long a user taken away may go on with its iteration. Default 30s.
        pub graceful_ramp_down: Option<Span>,
        /// How many of the run's workers share the phase: the first so many; the others wait. Absent: from the pool's `capacity`.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
    }

    /// A ramp.
    pub struct Stage {
        /// Users, or iterations per `timeUnit`, at its end.
        #[schemars(range(max = 1_000_000_000))]
        pub target: u64,
        /// How long it takes; 0s jumps.
        pub duration: Span,
    }

    /// A fixed number of iterations per time unit, whatever the target does.
    pub struct ConstantArrivalRate {
        /// Unique in the plan; the `phase` tag of everything measured in it.
        pub name: NameText,
        /// Iterations per `timeUnit`.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub rate: u64,
        /// Default 1s.
        pub time_unit: Option<Span>,
        /// How long.
        pub duration: Span,
        /// Users made before the phase starts. Default: peak rate × 100 ms, at least 10.
        #[serde(rename = "preAllocatedVUs")]
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub pre_allocated_vus: Option<u64>,
        /// Never more users. Default: the smaller of the pool's capacity and `limits.vus`.
        #[serde(rename = "maxVUs")]
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub max_vus: Option<u64>,
        /// How long iterations may go on after the phase's end. Default 30s.
        pub graceful_stop: Option<Span>,
        /// How many of the run's workers share the phase: the first so many; the others wait. Absent: from the pool's `capacity`.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
    }

    /// A number of iterations per time unit that follows `stages`, or `steps`.
    pub struct RampingArrivalRate {
        /// Unique in the plan; the `phase` tag of everything measured in it.
        pub name: NameText,
        /// Iterations per `timeUnit` at the start. Default 0; of `steps`: their `from`.
        #[schemars(range(max = 1_000_000_000))]
        pub start_rate: Option<u64>,
        /// Default 1s.
        pub time_unit: Option<Span>,
        /// Linear ramps, one after another.
        #[schemars(length(min = 1, max = 1_000))]
        pub stages: Option<Vec<Stage>>,
        /// Equal steps up or down, each a ramp and a hold; `render` shows the stages they stand for.
        pub steps: Option<Steps>,
        /// Users made before the phase starts. Default: peak rate × 100 ms, at least 10.
        #[serde(rename = "preAllocatedVUs")]
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub pre_allocated_vus: Option<u64>,
        /// Never more users. Default: the smaller of the pool's capacity and `limits.vus`.
        #[serde(rename = "maxVUs")]
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub max_vus: Option<u64>,
        /// How long iterations may go on after the phase's end. Default 30s.
        pub graceful_stop: Option<Span>,
        /// How many of the run's workers share the phase: the first so many; the others wait. Absent: from the pool's `capacity`.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
    }

    /// Equal steps: `{from: 500, to: 2000, count: 3, ramp: 1m, hold: 5m}` holds 1000, 1500 and 2000.
    pub struct Steps {
        /// Rate before the first step.
        #[schemars(range(max = 1_000_000_000))]
        pub from: u64,
        /// Rate of the last step.
        #[schemars(range(max = 1_000_000_000))]
        pub to: u64,
        /// How many steps.
        #[schemars(range(min = 1, max = 500))]
        pub count: u32,
        /// How long each ramp takes; 0s, the default, jumps.
        pub ramp: Option<Span>,
        /// How long each step is held.
        pub hold: Span,
    }

    /// A number of iterations: of each user (`per-vu-iterations`) or of all together (`shared-iterations`).
    pub struct Iterations {
        /// Unique in the plan; the `phase` tag of everything measured in it.
        pub name: NameText,
        /// Users. Default 1.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub vus: Option<u64>,
        /// Iterations. Default 1.
        #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
        pub iterations: Option<u64>,
        /// The phase ends here, done or not. Default 10m.
        pub max_duration: Option<Span>,
        /// How long iterations may go on after the phase's end. Default 30s.
        pub graceful_stop: Option<Span>,
        /// How many of the run's workers share the phase: the first so many; the others wait. Absent: from the pool's `capacity`.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
    }
}
