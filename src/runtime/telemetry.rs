//! Log lines on stderr and counters for `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Sends log lines to stderr: warnings and up, with each `-v` one level more. `MUSTER_LOG` takes tracing's filter syntax.
pub fn log_to_stderr(verbose: u8, default: &str, color: bool) {
    let level = match verbose {
        0 => default.to_owned(),
        1 => "info,muster=debug".to_owned(),
        _ => "debug,muster=trace".to_owned(),
    };
    let filter = EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A second call happens only in tests, where the first one's choice stands.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        // Telling of a line that could not be written would panic where stderr is a pipe that nobody reads any more.
        .log_internal_errors(false)
        .try_init();
}

/// Installs the recorder that `/metrics` prints.
///
/// # Errors
/// When another recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, String> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_S)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| error.to_string())?;
    describe();
    Ok(handle)
}

/// A pass over a few units takes milliseconds, one that waits for an unreachable environment seconds.
const BUCKETS_S: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What each series says, as `/metrics` shows it.
fn describe() {
    describe_counter!(
        "muster_source_failures_total",
        "Looks at the source that failed, by reason"
    );
    describe_histogram!(
        "muster_reconcile_pass_seconds",
        "One look at everything and what was decided on it"
    );
    describe_counter!(
        "muster_reconcile_blind_total",
        "Looks after which nothing was decided, because the ledger did not answer"
    );
    describe_counter!("muster_reconcile_failures_total", "Changes that failed");
    describe_counter!("muster_reconcile_panics_total", "Changes whose code panicked");
    describe_gauge!(
        "muster_plan_suspended_seconds",
        "How long a plan has been suspended; 0: it is not"
    );
    describe_gauge!("muster_runs_active", "Runs that this daemon drives");
    describe_counter!(
        "muster_runs_finished_total",
        "Runs that ended, by ending and its reason"
    );
    describe_counter!(
        "muster_retention_runs_total",
        "Runs whose details were removed because their time was over"
    );
    describe_counter!(
        "muster_retention_contents_total",
        "Contents of files that were removed because no run refers to them"
    );
    describe_counter!(
        "muster_retention_failures_total",
        "Removals and compactions that did not work and are tried again"
    );
    describe_counter!(
        "muster_ingest_frames_total",
        "Frames of workers, by what became of them"
    );
    describe_gauge!("muster_ingest_held_bytes", "Frames that came and are not stored yet");
    describe_gauge!(
        "muster_ingest_lag_records",
        "Records in the partitions of this member that are not committed yet"
    );
    describe_gauge!("muster_ingest_partitions", "Partitions that this member reads");
    describe_counter!(
        "muster_worker_rejected_total",
        "Workers that were turned away, by reason"
    );
    // Shown from the start, so that a rate over it has a beginning.
    metrics::gauge!("muster_runs_active").set(0.0);
    metrics::counter!("muster_reconcile_failures_total").absolute(0);
}
