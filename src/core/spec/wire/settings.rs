//! The settings file as written.

use super::scalar::{Instant, NameText, ReferenceText, Span, Unsupported};
use super::service::SecretRef;
use super::union::word_enum;
use super::wire;

wire! {
    /// The daemon's own settings: what a plan author must not be able to change.
    pub struct SettingsFile {
        /// Where plans come from.
        pub source: Source,
        /// The database.
        pub store: Option<Store>,
        /// API address. Anything but loopback needs tokens. Default 127.0.0.1:8420.
        pub listen: Option<String>,
        /// Where workers call.
        pub workers: Option<Workers>,
        /// Who may call the API. None: anyone on loopback may do everything.
        #[serde(default)]
        pub tokens: Vec<Token>,
        /// Who may bring workers to environments of type `joined`.
        #[serde(default)]
        #[schemars(length(max = 100))]
        pub join: Vec<Join>,
        /// Who may approve.
        pub people: Option<Unsupported>,
        /// Where requests may go. Default: nowhere but to what Muster itself runs.
        pub targets: Option<Targets>,
        /// Upper bounds of every plan.
        pub caps: Option<Caps>,
        /// Folders as projects. Absent: one project, `default`, that may do all this file allows.
        #[schemars(length(min = 1, max = 1_000))]
        pub projects: Option<Vec<Project>>,
        /// Whether plans may run commands on the daemon's own host.
        pub process: Option<Process>,
        /// Which Docker hosts plans may name.
        pub docker: Option<Unsupported>,
        /// Which Kubernetes clusters plans may name.
        pub kubernetes: Option<Unsupported>,
        /// Where the values of secrets stand.
        #[serde(default)]
        pub secrets: Vec<Secret>,
        /// Prometheus servers.
        pub prometheus: Option<Unsupported>,
        /// Where merge requests live.
        pub forge: Option<Unsupported>,
        /// Doorbell for pushes.
        pub webhook: Option<Unsupported>,
        /// How much may be deleted without leave.
        pub deletion_guard: Option<DeletionGuard>,
        /// How long things are kept.
        pub retention: Option<Retention>,
        /// The time zone of plans that name none: an IANA name such as `Asia/Shanghai`.
        #[schemars(length(min = 1, max = 100))]
        pub time_zone: Option<String>,
    }

    /// Where plans come from: `url` or `directory`.
    pub struct Source {
        /// A git repository: file, http, https or ssh; or an absolute path.
        #[schemars(length(min = 1, max = 2_000))]
        pub url: Option<String>,
        /// A folder on the daemon's host.
        #[schemars(length(min = 1, max = 2_000))]
        pub directory: Option<String>,
        /// The branch followed. Default main.
        #[schemars(length(min = 1, max = 250))]
        pub branch: Option<String>,
        /// The folder inside that holds plans. Default `.`.
        #[schemars(length(min = 1, max = 1_000))]
        pub path: Option<String>,
        /// Time between two looks, at least 1s. Default 30s.
        pub interval: Option<Span>,
        /// Only signed commits.
        pub require_signature: Option<Unsupported>,
        /// How to log in.
        pub credentials: Option<Credentials>,
    }

    /// How to log in.
    pub struct Credentials {
        /// A secret of this file.
        pub secret_ref: SecretRef,
    }

    /// The database.
    pub struct Store {
        /// `sqlite:///path` or `mysql://…`. Default sqlite:///var/lib/muster/muster.db.
        #[schemars(regex(pattern = "^(sqlite|mysql)://"))]
        pub url: String,
    }

    /// Where workers call.
    pub struct Workers {
        /// Anything but loopback needs `tls`. Default 127.0.0.1:8421.
        pub listen: Option<String>,
        /// What workers are shown, so that they know the daemon and nobody listens.
        pub tls: Option<Tls>,
    }

    /// A certificate and its key, in PEM files on the daemon's host.
    pub struct Tls {
        /// The certificate chain, the daemon's own first.
        #[schemars(length(min = 1, max = 2_000))]
        pub cert_file: String,
        /// Its private key.
        #[schemars(length(min = 1, max = 2_000))]
        pub key_file: String,
    }

    /// Whoever shows the secret's value may bring workers to one environment.
    pub struct Join {
        /// The Environment: `name`, or `project/name` where `projects` are configured.
        pub environment: ReferenceText,
        /// At most so many workers at the same time.
        #[schemars(range(min = 1, max = 100_000))]
        pub max_workers: u32,
        /// Where the token stands.
        pub secret_ref: SecretRef,
    }

    /// One who may call the API.
    pub struct Token {
        /// Shown as "who" in events and runs.
        #[schemars(length(min = 1, max = 200))]
        pub name: String,
        /// viewer, operator or admin.
        pub role: Role,
        /// In which projects. Absent: in all.
        pub projects: Option<Vec<NameText>>,
        /// Refused from then on.
        pub expires: Option<Instant>,
        /// Where its value stands.
        pub secret_ref: SecretRef,
    }

    /// Where requests may go.
    pub struct Targets {
        /// Host names, `*.suffix`, addresses, CIDR blocks. Loopback, link-local and metadata addresses need to be named as addresses.
        pub allow: Vec<String>,
    }

    /// Upper bounds of every plan.
    pub struct Caps {
        /// Iterations per second. Default 10000.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub rate: Option<u64>,
        /// Requests per second. Default 50000.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub requests_per_second: Option<u64>,
        /// Virtual users. Default 10000.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        pub vus: Option<u64>,
        /// Workers. Default 20.
        #[schemars(range(min = 1, max = 100_000))]
        pub workers: Option<u32>,
        /// Of load. Default 6h.
        pub duration: Option<Span>,
        /// Money.
        pub cost: Option<Unsupported>,
    }

    /// One project: folders with their own kinds, targets, secrets and caps.
    pub struct Project {
        /// Its name.
        pub name: NameText,
        /// Globs of the folders that belong to it.
        #[schemars(length(min = 1, max = 1_000))]
        pub paths: Vec<String>,
        /// Kinds its files may hold. Default: Service and TestPlan.
        pub kinds: Option<Vec<KindWord>>,
        /// What other projects may refer to: `Kind/name`.
        #[serde(default)]
        pub shares: Vec<String>,
        /// Its own list of targets, inside the settings'. Absent: the settings'.
        pub targets: Option<Vec<String>>,
        /// Secrets its files may refer to. Default: none.
        #[serde(default)]
        pub secrets: Vec<String>,
        /// Upper bounds of its plans; the smaller of these and the settings' hold.
        pub caps: Option<Caps>,
        /// What it may spend.
        pub budget: Option<Unsupported>,
        /// By whose leave.
        pub approvals: Option<Unsupported>,
    }

    /// Whether plans may run commands on the daemon's own host.
    pub struct Process {
        /// Default false.
        pub enabled: bool,
    }

    /// Where the value of a secret stands: `env` or `file`.
    pub struct Secret {
        /// The name plans use.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
        /// An environment variable of the daemon.
        #[schemars(length(min = 1, max = 253))]
        pub env: Option<String>,
        /// A file with one value, or a folder with a file for each key.
        #[schemars(length(min = 1, max = 2_000))]
        pub file: Option<String>,
        /// A Kubernetes secret.
        pub kubernetes: Option<Unsupported>,
    }

    /// How much may be deleted without leave.
    pub struct DeletionGuard {
        /// In percent of a project's high-water mark over 24 h. Default 30.
        #[schemars(range(max = 100))]
        pub max_percent: u32,
    }

    /// How long things are kept.
    pub struct Retention {
        /// Details of runs. Default 400d.
        pub runs: Span,
    }
}

word_enum! {
    /// What a token may do.
    pub enum Role {
        "viewer" => Viewer,
        "operator" => Operator,
        "admin" => Admin,
    }
    refused: [];
}

word_enum! {
    /// Kinds of documents.
    pub enum KindWord {
        "Environment" => Environment,
        "WorkerPool" => WorkerPool,
        "KafkaCluster" => KafkaCluster,
        "IngestCluster" => IngestCluster,
        "DatabaseCluster" => DatabaseCluster,
        "LoadBalancer" => LoadBalancer,
        "Service" => Service,
        "TestPlan" => TestPlan,
        "Campaign" => Campaign,
        "Approval" => Approval,
        "NotificationChannel" => NotificationChannel,
    }
    refused: [];
}
