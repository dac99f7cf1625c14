//! Reads the settings file: file < `MUSTER_…` environment < flags.

use super::diagnostics;
use super::output;
use anyhow::{Context as _, Result};
use muster_core::model::settings::Settings;
use muster_core::spec::settings;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings are a page or two of text; more is another file by mistake.
const SETTINGS_MAX: u64 = 1 << 20;

/// The settings are not valid; what is wrong was shown.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not valid")]
pub struct InvalidSettings(pub String);

/// Reads and checks a settings file; every error is shown with its place.
///
/// # Errors
/// [`InvalidSettings`], or when the file cannot be read.
pub fn load(path: &Path) -> Result<Settings> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    anyhow::ensure!(
        size <= SETTINGS_MAX,
        "{} has {size} bytes; settings have at most {SETTINGS_MAX}",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.display().to_string();
    settings::parse_with_overrides(&text, &name, &overrides()).map_err(|found| {
        for diagnostic in &found {
            output::diagnostic(&diagnostics::render(diagnostic, Some(&text), output::stderr_color()));
        }
        InvalidSettings(name).into()
    })
}

/// Values of the environment that replace the file's: `source.url` is `MUSTER_SOURCE_URL`, `deletionGuard.maxPercent` is
/// `MUSTER_DELETION_GUARD_MAX_PERCENT`. Other variables are nobody's business here: secrets, too, come from variables of any name.
fn overrides() -> BTreeMap<String, String> {
    let set = |(key, _): (String, bool)| std::env::var(variable(&key)).ok().map(|value| (key, value));
    settings::override_keys().into_iter().filter_map(set).collect()
}

fn variable(key: &str) -> String {
    let mut name = "MUSTER_".to_owned();
    for letter in key.chars() {
        match letter {
            '.' => name.push('_'),
            letter if letter.is_ascii_uppercase() => name.extend(['_', letter]),
            letter => name.push(letter.to_ascii_uppercase()),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn a_setting_has_a_variable_of_its_own() {
        for (key, name) in [
            ("source.url", "MUSTER_SOURCE_URL"),
            ("listen", "MUSTER_LISTEN"),
            ("deletionGuard.maxPercent", "MUSTER_DELETION_GUARD_MAX_PERCENT"),
        ] {
            assert_eq!(variable(key), name);
        }
    }
}
