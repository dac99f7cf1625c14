//! From a unit's spec to its sheet and its directory.

use super::layout::{self, SecretEnv, Variables};
use super::record::{Folder, Sheet};
use super::{ProcessConfig, RunAs, ingest, remove_all};
use crate::provider::{Materials, ProviderError};
use muster_core::model::unit::{UnitSpec, UnitWork};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Decides everything about a unit: ports, substituted command and environment, user; secrets apart.
///
/// # Errors
/// [`ProviderError::Refused`] for what settings or plan do not allow.
pub(super) fn sheet(
    config: &ProcessConfig,
    unit: &UnitSpec,
    materials: &Materials,
    taken: &BTreeSet<u16>,
) -> Result<(Sheet, SecretEnv), ProviderError> {
    let refused = |reason: &str| ProviderError::Refused {
        unit: unit.name.clone(),
        reason: reason.to_owned(),
    };
    let mut sheet = Sheet {
        spec: unit.clone(),
        host_id: config.host_id.clone(),
        tag: uuid::Uuid::now_v7().to_string(),
        command: Vec::new(),
        env: Vec::new(),
        run_as: None,
        ports: Vec::new(),
    };
    match &unit.work {
        UnitWork::Worker { .. } => {
            let launch = config.worker_launch.as_ref();
            let launch = launch.ok_or_else(|| refused("this environment starts no workers"))?;
            sheet.command = layout::worker_command(&config.muster_exe, launch, unit, config.commands);
            Ok((sheet, SecretEnv::new()))
        }
        UnitWork::Ingest {
            kafka,
            topic,
            group,
            database,
        } => {
            sheet.ports = layout::choose_ports(&config.root, &unit.name, &ingest::ports(), taken)?;
            sheet.command = ingest::command(&config.muster_exe, kafka, topic, group, &sheet.ports);
            let secrets = ingest::secrets(&unit.name, kafka, database, materials)?;
            Ok((sheet, secrets))
        }
        UnitWork::Replica { .. } if !config.commands => Err(refused(
            "the settings do not let plans run commands on this host (`process: {enabled: true}`)",
        )),
        UnitWork::Replica {
            command, env, ports, ..
        } => {
            sheet.ports = layout::choose_ports(&config.root, &unit.name, ports, taken)?;
            let variables = Variables::of(unit, &sheet.ports);
            sheet.command = command.iter().map(|word| variables.apply(word)).collect();
            let (plain, secrets) = layout::split_env(&unit.name, env, &variables, materials)?;
            sheet.env = plain;
            if let RunAs::User { uid, gid } = config.run_as {
                sheet.run_as = Some((uid, gid));
            }
            Ok((sheet, secrets))
        }
    }
}

/// Writes a unit's directory, anew.
///
/// # Errors
/// [`ProviderError::Refused`] for files that may not be there, [`ProviderError::Transient`] for what the disk did not do.
pub(super) fn lay_out(folder: &Folder, sheet: &Sheet, materials: &Materials) -> Result<(), ProviderError> {
    let unit = &sheet.spec;
    let fault =
        |error: io::Error| ProviderError::Transient(format!("cannot make the directory of {}: {error}", unit.name));
    remove_all(folder.path()).map_err(fault)?;
    fs::create_dir_all(folder.files()).map_err(fault)?;
    if let UnitWork::Replica { files, .. } = &unit.work {
        let variables = Variables::of(unit, &sheet.ports);
        layout::write_files(unit, files, &variables, materials, &folder.files())?;
    }
    let finish = || -> io::Result<()> {
        if let Some((uid, gid)) = sheet.run_as {
            give(&folder.files(), uid, gid)?;
        }
        // Others may pass through to the unit's own files; the rest is the daemon's.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(folder.files(), fs::Permissions::from_mode(0o700))?;
        folder.write_sheet(sheet)
    };
    finish().map_err(fault)
}

/// Makes a folder and what we laid into it another user's.
fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
