//! The bare mirror: made when it is missing, packed anew when fetches have cut it into many packs.

use super::remote::TIP;
use crate::source::{SourceError, SourceReason};
use git2::Repository;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Every fetch leaves a pack, and what a force-push cut off stays in one. An object is looked for in all of them, and each is
/// an open file: some dozens do no harm, and hundreds of commits a day mean a few of these a day.
const PACKS_MAX: usize = if cfg!(test) { 2 } else { 50 };

/// Opens the mirror, or makes it. What is there and is no repository was left by a crash in the middle of making it.
///
/// # Errors
/// When it can be neither opened nor made.
pub(super) fn open(place: &Path) -> Result<Repository, SourceError> {
    let made = Repository::open_bare(place).or_else(|_| Repository::init_bare(place));
    made.map_err(|error| {
        let message = format!("cannot make the mirror {}: {}", place.display(), error.message());
        SourceError::transient(SourceReason::Internal, message)
    })
}

/// Writes what the branch needs into one pack, beside the mirror, and puts that in its place; a crash in between costs a fetch.
/// A mirror that cannot be packed is still a mirror: it is tried again after the next fetch.
pub(super) fn pack_when_many(place: &Path) {
    if packs(place) <= PACKS_MAX {
        return;
    }
    match pack(place) {
        Ok(()) => tracing::info!(mirror = %place.display(), "mirror was packed anew"),
        Err(error) => tracing::warn!(mirror = %place.display(), error, "mirror cannot be packed"),
    }
}

fn packs(place: &Path) -> usize {
    let entries = fs::read_dir(place.join("objects/pack")).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "pack"))
        .count()
}

fn pack(place: &Path) -> Result<(), String> {
    let (fresh, old) = (beside(place, "new"), beside(place, "old"));
    let io = |error: io::Error| error.to_string();
    remove(&fresh).and_then(|()| remove(&old)).map_err(io)?;
    write_packed(place, &fresh).map_err(|error| error.message().to_owned())?;
    fs::rename(place, &old).map_err(io)?;
    if let Err(error) = fs::rename(&fresh, place) {
        fs::rename(&old, place).map_err(io)?;
        return Err(error.to_string());
    }
    remove(&old).map_err(io)
}

fn write_packed(place: &Path, fresh: &Path) -> Result<(), git2::Error> {
    let mirror = Repository::open_bare(place)?;
    let tip = mirror.refname_to_id(TIP)?;
    let mut reachable = mirror.revwalk()?;
    reachable.push(tip)?;
    let mut builder = mirror.packbuilder()?;
    builder.insert_walk(&mut reachable)?;
    let packed = Repository::init_bare(fresh)?;
    let objects = packed.odb()?;
    let mut writer = objects.packwriter()?;
    let mut fault = None;
    let written = builder.foreach(|bytes| {
        fault = writer.write_all(bytes).err();
        fault.is_none()
    });
    match fault {
        Some(error) => return Err(git2::Error::from_str(&error.to_string())),
        None => written?,
    }
    writer.commit()?;
    packed.reference(TIP, tip, true, "packed anew").map(drop)
}

fn beside(place: &Path, end: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
