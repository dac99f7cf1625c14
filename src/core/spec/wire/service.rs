//! `Service` as written, and what hooks share with it.

use super::scalar::{NameText, ReferenceText, Span, Unsupported};
use super::union::word_enum;
use super::wire;

wire! {
    /// Any replicated unit beside load: system under test, mock, side service.
    pub struct ServiceSpec {
        /// The Environment its replicas run in.
        pub environment: ReferenceText,
        /// A container image.
        pub image: Option<Unsupported>,
        /// Program and arguments. `${PORT}`, `${PORT_NAME}`, `${UNIT_INDEX}` and `${UNIT_NAME}` are substituted.
        #[schemars(length(min = 1, max = 1_000))]
        pub command: Vec<String>,
        /// How many replicas. Default 1.
        #[schemars(range(max = 1_000))]
        pub replicas: Option<u32>,
        /// Environment variables; nothing of the daemon's own is inherited.
        #[serde(default)]
        pub env: Vec<EnvVar>,
        /// Files laid into each unit's directory before it starts.
        #[serde(default)]
        pub files: Vec<UnitFile>,
        /// Named ports.
        #[serde(default)]
        pub ports: Vec<NamedPort>,
        /// When a replica is Ready. Absent: as long as it lives.
        pub health: Option<Health>,
        /// What a container gets.
        pub resources: Option<Unsupported>,
        /// What must be Ready before: `Kind/name`.
        #[serde(default)]
        pub depends_on: Vec<ReferenceText>,
        /// How replicas are replaced when the spec changes.
        pub update: Option<Update>,
    }

    /// One environment variable: `value` or `valueFrom`.
    pub struct EnvVar {
        /// Its name.
        #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
        pub name: String,
        /// A plain value; `${…}` is substituted.
        pub value: Option<String>,
        /// The place of a secret.
        pub value_from: Option<ValueFrom>,
    }

    /// The place of a value.
    pub struct ValueFrom {
        /// A secret of the settings.
        pub secret_key_ref: SecretRef,
    }

    /// A secret of the settings: one value, or named values of which `key` picks one.
    pub struct SecretRef {
        /// The secret's name in the settings.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
        /// Which of its values.
        #[schemars(length(min = 1, max = 253))]
        pub key: Option<String>,
    }

    /// A file of the repository that a unit gets.
    pub struct UnitFile {
        /// Relative path in the unit's directory.
        #[schemars(length(min = 1, max = 1_000))]
        pub path: String,
        /// Path in the repository, relative to this document's file.
        pub source: String,
    }

    /// A named port.
    pub struct NamedPort {
        /// `${PORT_NAME}` in arguments and files, upper case; `${PORT}` is the first.
        pub name: NameText,
        /// A fixed port, for one replica only. Absent: a free one for each replica.
        #[schemars(range(min = 1))]
        pub port: Option<u16>,
    }

    /// How a unit's health is found out: `http` or `tcp`.
    pub struct Health {
        /// GET answers 2xx or 3xx.
        pub http: Option<HttpProbe>,
        /// The port accepts a connection.
        pub tcp: Option<TcpProbe>,
        /// A command succeeds.
        pub exec: Option<Unsupported>,
        /// Time between two questions. Default 2s.
        pub interval: Option<Span>,
        /// How long one answer may take. Default 1s.
        pub timeout: Option<Span>,
        /// Failures in a row until Unhealthy. Default 5.
        #[schemars(range(min = 1, max = 1_000))]
        pub failures: Option<u32>,
    }

    /// GET answers 2xx or 3xx.
    pub struct HttpProbe {
        /// Path with query.
        #[schemars(regex(pattern = "^/"))]
        pub path: String,
        /// A named port. Default: the first.
        pub port: Option<NameText>,
    }

    /// The port accepts a connection.
    pub struct TcpProbe {
        /// A named port. Default: the first.
        pub port: Option<NameText>,
    }

    /// How replicas are replaced when the spec changes.
    pub struct Update {
        /// Rolling (default): some at a time, each gated by health. Recreate: all at once.
        pub strategy: Option<Strategy>,
        /// Most replicas away at the same time. Default 1.
        #[schemars(range(min = 1, max = 1_000))]
        pub max_unavailable: Option<u32>,
    }
}

word_enum! {
    /// How replicas are replaced.
    pub enum Strategy {
        "Rolling" => Rolling,
        "Recreate" => Recreate,
    }
    refused: [];
}
