//! Log lines on stderr and counters for `/metrics`.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
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
        .try_init();
}

/// Installs the recorder that `/metrics` prints.
///
/// # Errors
/// When another recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, String> {
    PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| error.to_string())
}
