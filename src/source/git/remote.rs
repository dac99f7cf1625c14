//! Talks to a remote: one `ls-remote`, or one fetch into the bare mirror. Blocking; bounded by deadlines and sizes.

use super::credentials::{Credentials, Offer, check_host_key, host_of, redact_url};
use super::fault;
use crate::source::{SourceError, SourceReason};
use git2::{
    AutotagOption, CertificateCheckStatus, Direction, FetchOptions, FetchPrune, Oid, ProxyOptions, Remote,
    RemoteCallbacks, RemoteRedirect, Repository,
};
use std::time::Instant;

/// Most refs a remote may advertise. The kernel's largest public mirrors have about 10,000.
const REFS_MAX: usize = 100_000;
/// Most bytes one fetch may bring: the first one brings the branch's whole history.
const FETCH_BYTES_MAX: usize = 2 << 30;
/// Where the mirror keeps the branch, whatever its name is on the server.
pub(super) const TIP: &str = "refs/muster/tip";
/// What a fetch that was cut off may leave in the mirror; while it is there no other fetch succeeds.
pub(super) const TIP_LOCK: &str = "refs/muster/tip.lock";

/// A remote and how to talk to it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub url: String,
    pub branch: String,
    pub credentials: Credentials,
}

impl Address {
    /// Asks for the branch's commit: one connection, nothing is downloaded (promise 2).
    ///
    /// # Errors
    /// With the reason to show.
    pub(super) fn ls_remote(&self, deadline: Instant) -> Result<Oid, SourceError> {
        let faulty = |error: git2::Error| fault::of_remote(&error, &self.url, &self.credentials);
        let mut remote = Remote::create_detached(self.url.as_str()).map_err(faulty)?;
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        let connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks(deadline)), Some(proxy))
            .map_err(faulty)?;
        let heads = connection.list().map_err(faulty)?;
        let shown = redact_url(&self.url);
        if heads.is_empty() {
            let message = format!("{shown} has no commits yet");
            return Err(SourceError::transient(SourceReason::EmptyRepository, message));
        }
        if heads.len() > REFS_MAX {
            let message = format!("{shown} has {} refs, more than {REFS_MAX}", heads.len());
            return Err(SourceError::terminal(SourceReason::LimitExceeded, message));
        }
        let wanted = format!("refs/heads/{}", self.branch);
        let head = heads.iter().find(|head| head.name() == wanted);
        head.map(git2::RemoteHead::oid).ok_or_else(|| {
            let message = format!("{shown} has no branch `{}`", self.branch);
            SourceError::transient(SourceReason::BranchNotFound, message)
        })
    }

    /// Brings the branch into the mirror; a force-push is an ordinary update (promise 3).
    ///
    /// # Errors
    /// With the reason to show.
    pub(super) fn fetch(&self, mirror: &Repository, deadline: Instant) -> Result<(), SourceError> {
        let faulty = |error: git2::Error| fault::of_remote(&error, &self.url, &self.credentials);
        let mut remote = mirror.remote_anonymous(&self.url).map_err(faulty)?;
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks(deadline))
            .proxy_options(proxy)
            .download_tags(AutotagOption::None)
            .prune(FetchPrune::Off)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::Initial);
        let refspec = format!("+refs/heads/{}:{TIP}", self.branch);
        remote.fetch(&[refspec], Some(&mut options), None).map_err(faulty)
    }

    fn callbacks(&self, deadline: Instant) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut offer = Offer::new(&self.credentials, &self.url);
        callbacks.credentials(move |url, user, allowed| offer.answer(url, user, allowed));
        // libgit2's own timeouts are about silence; these end a server that keeps talking.
        callbacks.transfer_progress(move |progress| {
            Instant::now() < deadline && progress.received_bytes() <= FETCH_BYTES_MAX
        });
        callbacks.sideband_progress(move |_| Instant::now() < deadline);
        if let Some(lines) = Offer::configured_hosts(&self.credentials) {
            let listed = host_of(&self.url).unwrap_or_default();
            callbacks.certificate_check(move |certificate, _| match certificate.as_hostkey() {
                Some(key) => {
                    check_host_key(lines, &listed, key.hostkey()).map(|()| CertificateCheckStatus::CertificateOk)
                }
                None => Ok(CertificateCheckStatus::CertificatePassthrough),
            });
        }
        callbacks
    }
}
