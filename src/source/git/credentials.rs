//! Credentials of a git remote: what is offered, how often, and to whom.

use super::known_hosts;
use git2::{Cred, CredentialType, ErrorClass, ErrorCode};
use secrecy::{ExposeSecret as _, SecretString};

/// How a remote is told who is asking. Values never appear in a log, an error or a `Debug` text.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Nothing for http(s); the agent of the daemon's user for ssh.
    #[default]
    None,
    /// For http(s).
    Password {
        /// Its name; servers that take a token ignore it.
        username: String,
        /// Password or token.
        password: SecretString,
    },
    /// For ssh.
    SshKey {
        /// Text of an unencrypted private key in OpenSSH or PEM form.
        key: SecretString,
        /// Lines of a known_hosts file; `None`: `~/.ssh/known_hosts` of the daemon's user.
        known_hosts: Option<String>,
    },
}

impl Credentials {
    /// Reads the one value of a secret: the text of a private key, `user:password`, or a token.
    pub fn from_secret(secret: &SecretString) -> Self {
        let text = secret.expose_secret();
        if text.trim_start().starts_with("-----BEGIN") {
            // OpenSSH's parser wants the last line ended.
            let key = format!("{}\n", text.trim()).into();
            return Self::SshKey { key, known_hosts: None };
        }
        let text = text.trim();
        // A token has no colon; GitHub, GitLab and Gitea take any user name with it.
        let (username, password) = text.split_once(':').unwrap_or(("git", text));
        Self::Password {
            username: username.to_owned(),
            password: password.to_owned().into(),
        }
    }

    /// Adds the hosts a key may be shown to; without effect on other credentials.
    #[must_use]
    pub fn with_known_hosts(self, lines: impl Into<String>) -> Self {
        match self {
            Self::SshKey { key, .. } => Self::SshKey {
                key,
                known_hosts: Some(lines.into()),
            },
            other => other,
        }
    }

    /// Takes every secret value out of a text that another party wrote.
    pub(super) fn redact(&self, text: &str) -> String {
        match self {
            Self::Password { password, .. } if !password.expose_secret().is_empty() => {
                text.replace(password.expose_secret(), "***")
            }
            _ => text.to_owned(),
        }
    }
}

/// One connection's dealings with the server: each kind of credential is offered once, since libgit2 asks again for ever.
pub(super) struct Offer<'a> {
    credentials: &'a Credentials,
    host: Option<String>,
    offered: CredentialType,
}

impl<'a> Offer<'a> {
    pub(super) fn new(credentials: &'a Credentials, url: &str) -> Self {
        Self {
            credentials,
            host: host_of(url),
            offered: CredentialType::empty(),
        }
    }

    /// libgit2's question for credentials.
    ///
    /// # Errors
    /// When there is nothing (more) to offer, or a redirect led to another host.
    pub(super) fn answer(
        &mut self,
        url: &str,
        user: Option<&str>,
        allowed: CredentialType,
    ) -> Result<Cred, git2::Error> {
        if host_of(url) != self.host {
            return Err(refusal(
                "the server redirected to another host, which gets no credentials",
            ));
        }
        let user = user.unwrap_or("git");
        let wanted = allowed - self.offered;
        if wanted.contains(CredentialType::USERNAME) {
            self.offered |= CredentialType::USERNAME;
            return Cred::username(user);
        }
        match self.credentials {
            Credentials::Password { username, password } if wanted.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                self.offered |= CredentialType::USER_PASS_PLAINTEXT;
                Cred::userpass_plaintext(username, password.expose_secret())
            }
            Credentials::SshKey { key, .. } if wanted.contains(CredentialType::SSH_MEMORY) => {
                self.offered |= CredentialType::SSH_MEMORY | CredentialType::SSH_KEY;
                Cred::ssh_key_from_memory(user, None, key.expose_secret(), None)
            }
            Credentials::None if wanted.contains(CredentialType::SSH_KEY) => {
                self.offered |= CredentialType::SSH_MEMORY | CredentialType::SSH_KEY;
                Cred::ssh_key_from_agent(user)
            }
            Credentials::None => Err(refusal("the server asks for credentials and none are configured")),
            _ => Err(refusal("the server refused the configured credentials")),
        }
    }

    /// Whether a server's ssh key is one of the configured; `None` leaves the check to libgit2 and its known_hosts file.
    pub(super) fn configured_hosts(credentials: &Credentials) -> Option<&str> {
        match credentials {
            Credentials::SshKey {
                known_hosts: Some(lines),
                ..
            } => Some(lines),
            _ => None,
        }
    }
}

fn refusal(message: &str) -> git2::Error {
    git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, message)
}

/// Host and port of `scheme://user@host:port/…` or of scp's `user@host:path`; `None` for a local path.
pub(super) fn host_of(url: &str) -> Option<String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", url),
    };
    let authority = match scheme {
        "file" => return None,
        "" if rest.starts_with('/') => return None,
        "" => rest.split_once(':')?.0,
        _ => rest.split('/').next().unwrap_or(rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(host),
        "http" => host.strip_suffix(":80").unwrap_or(host),
        _ => host.strip_suffix(":22").unwrap_or(host),
    };
    Some(host.to_ascii_lowercase())
}

/// Whether a URL means ssh, in either form.
pub(super) fn is_ssh(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => scheme == "ssh",
        None => host_of(url).is_some(),
    }
}

/// A URL for people: without user, password or query.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// libgit2's certificate question for ssh, answered from configured known_hosts lines.
pub(super) fn check_host_key(lines: &str, url_host: &str, key: Option<&[u8]>) -> Result<(), git2::Error> {
    let known = key.is_some_and(|key| known_hosts::contains(lines, url_host, key));
    if known {
        Ok(())
    } else {
        Err(git2::Error::new(
            ErrorCode::Certificate,
            ErrorClass::Ssh,
            format!("the ssh key of {url_host} is not among the configured known hosts"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Offer, host_of, redact_url};
    use git2::CredentialType;

    #[test]
    fn s57_a_secret_is_recognised_by_its_form_and_never_printed() {
        let key = Credentials::from_secret(&"\n-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END".into());
        assert!(matches!(key, Credentials::SshKey { .. }));
        let pair = Credentials::from_secret(&"bot:canary:x\n".into());
        assert!(matches!(&pair, Credentials::Password { username, .. } if username == "bot"));
        let token = Credentials::from_secret(&"canary".into());
        assert!(matches!(&token, Credentials::Password { username, .. } if username == "git"));
        for credentials in [key, pair.clone(), token] {
            assert!(!format!("{credentials:?}").contains("canary"));
        }
        assert_eq!(pair.redact("server said canary:x"), "server said ***");
    }

    #[test]
    fn s57_urls_are_shown_without_what_is_private() {
        for (url, shown) in [
            (
                "https://bot:canary@git.example.com/a.git",
                "https://git.example.com/a.git",
            ),
            (
                "https://git.example.com/a.git?token=canary",
                "https://git.example.com/a.git",
            ),
            ("https://git.example.com/a@b.git", "https://git.example.com/a@b.git"),
            ("/srv/plans.git", "/srv/plans.git"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn hosts_are_found_in_every_form_of_url() {
        for (url, host) in [
            ("https://u:p@Git.example.com:443/a", Some("git.example.com")),
            ("http://git.example.com:8080/a", Some("git.example.com:8080")),
            ("ssh://git@git.example.com:22/a", Some("git.example.com")),
            ("git@git.example.com:team/a.git", Some("git.example.com")),
            ("/srv/a.git", None),
            ("file:///srv/a.git", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn s06_each_credential_is_offered_once_and_only_to_its_host() {
        let credentials = Credentials::from_secret(&"bot:canary".into());
        let url = "https://git.example.com/a.git";
        let plain = CredentialType::USER_PASS_PLAINTEXT;
        let mut offer = Offer::new(&credentials, url);
        assert!(offer.answer("https://evil.example.com/a.git", None, plain).is_err());
        assert!(offer.answer(url, None, plain).is_ok());
        let again = offer.answer(url, None, plain).err().expect("not twice");
        assert!(again.message().contains("refused"), "{again}");
    }
}
