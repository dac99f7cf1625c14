//! Who may do what: bearer tokens compared in constant time; without tokens only loopback, as the daemon's own user.

use super::error::ApiError;
use axum::http::{HeaderMap, Method, header};
use jiff::Timestamp;
use muster_core::model::id::Name;
use muster_core::model::settings::Role;
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeSet;
use subtle::ConstantTimeEq as _;

/// A token of the settings with its value.
#[derive(Debug)]
pub struct Token {
    /// What events and rows call its bearer.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; `None`: everywhere.
    pub projects: Option<BTreeSet<Name>>,
    /// No longer valid from then on.
    pub expires: Option<Timestamp>,
    /// Its value.
    pub value: SecretString,
}

/// The daemon's rules for requests.
#[derive(Debug, Default)]
pub struct Auth {
    tokens: Vec<Token>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For events and rows.
    pub name: String,
    role: Role,
    projects: Option<BTreeSet<Name>>,
}

impl Caller {
    /// Whether the caller may do something in a project (`None`: in all).
    ///
    /// # Errors
    /// Forbidden, with the role that would do.
    pub fn require(&self, role: Role, project: Option<&Name>) -> Result<(), ApiError> {
        if self.role < role {
            let (own, needed) = (role_word(self.role), role_word(role));
            let message = format!("token {} is {own}; this needs {needed}", self.name);
            return Err(ApiError::forbidden(message).hint(format!("use a token whose role is {needed}")));
        }
        let inside = match (&self.projects, project) {
            (None, _) => true,
            (Some(own), Some(project)) => own.contains(project),
            (Some(_), None) => false,
        };
        if inside {
            Ok(())
        } else {
            let wanted = project.map_or("all projects".to_owned(), |project| format!("project {project}"));
            let own: Vec<&str> = self.projects.iter().flatten().map(Name::as_str).collect();
            let message = format!("token {} is for {}; this concerns {wanted}", self.name, own.join(", "));
            Err(ApiError::forbidden(message).hint(format!("use a token for {wanted}")))
        }
    }

    /// The projects the caller may see, or the one of them that is asked for; `None`: all.
    pub fn within(&self, project: Option<Name>) -> Option<BTreeSet<Name>> {
        match project {
            Some(project) => Some(
                BTreeSet::from([project])
                    .into_iter()
                    .filter(|project| self.sees(project))
                    .collect(),
            ),
            None => self.projects.clone(),
        }
    }

    /// Whether the caller may see a project.
    pub fn sees(&self, project: &Name) -> bool {
        self.projects.as_ref().is_none_or(|own| own.contains(project))
    }
}

impl Auth {
    /// With the settings' tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self { tokens }
    }

    /// Without tokens the API is on loopback; a page in a browser on the same machine, whose name was made to resolve to
    /// loopback (DNS rebinding), is kept out by its `Host`.
    ///
    /// # Errors
    /// Forbidden, for another host's name.
    pub fn own_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        if !self.tokens.is_empty() || is_loopback(host) {
            return Ok(());
        }
        Err(
            ApiError::forbidden("without tokens the API answers only to this host's own names")
                .hint("ask for 127.0.0.1 or localhost, or configure `tokens`"),
        )
    }

    /// Finds out who asks. Without tokens, a form of a page in a browser on the same machine is kept out by JSON bodies, which
    /// a form cannot send.
    ///
    /// # Errors
    /// Unauthorized or forbidden.
    pub fn caller(&self, method: &Method, headers: &HeaderMap, now: Timestamp) -> Result<Caller, ApiError> {
        if self.tokens.is_empty() {
            self.own_host(headers)?;
            let json = headers
                .get(header::CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok())
                .is_some_and(|kind| kind.starts_with("application/json"));
            if method == Method::POST && !json {
                return Err(ApiError::forbidden("without tokens the API takes only JSON")
                    .hint("send `Content-Type: application/json`"));
            }
            return Ok(Caller {
                name: "local".to_owned(),
                role: Role::Admin,
                projects: None,
            });
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(ApiError::unauthorized)?;
        // All tokens are compared, so that time does not tell which one was near.
        let mut found = None;
        for token in &self.tokens {
            if bool::from(token.value.expose_secret().as_bytes().ct_eq(given.as_bytes())) {
                found = Some(token);
            }
        }
        let token = found.ok_or_else(ApiError::unauthorized)?;
        if token.expires.is_some_and(|expires| expires <= now) {
            return Err(ApiError::unauthorized().hint(format!("token {} has expired", token.name)));
        }
        Ok(Caller {
            name: token.name.clone(),
            role: token.role,
            projects: token.projects.clone(),
        })
    }
}

/// As the settings write it.
fn role_word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{Auth, Token, is_loopback};
    use axum::http::{HeaderMap, HeaderValue, Method, header};
    use jiff::Timestamp;
    use muster_core::model::id::Name;
    use muster_core::model::settings::Role;

    fn token(expires: Option<Timestamp>) -> Auth {
        Auth::new(vec![Token {
            name: "ci".to_owned(),
            role: Role::Operator,
            projects: Some([Name::new("payments").unwrap()].into()),
            expires,
            value: "s3cret".to_owned().into(),
        }])
    }

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_token_is_for_its_role_and_its_projects_until_it_expires() {
        let now = Timestamp::UNIX_EPOCH;
        let right = headers(header::AUTHORIZATION, "Bearer s3cret");
        let caller = token(None).caller(&Method::GET, &right, now).unwrap();
        let payments = Name::new("payments").unwrap();
        assert!(caller.require(Role::Operator, Some(&payments)).is_ok());
        assert!(caller.require(Role::Admin, Some(&payments)).is_err());
        assert!(caller.require(Role::Viewer, Some(&Name::default_project())).is_err());
        assert!(caller.require(Role::Viewer, None).is_err());
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "s3cret", "Basic s3cret"] {
            assert!(
                token(None)
                    .caller(&Method::GET, &headers(header::AUTHORIZATION, wrong), now)
                    .is_err(),
                "{wrong}"
            );
        }
        assert!(token(Some(now)).caller(&Method::GET, &right, now).is_err());
    }

    #[test]
    fn without_tokens_only_this_host_is_heard() {
        for (host, fine) in [
            ("127.0.0.1:8420", true),
            ("localhost", true),
            ("[::1]:8420", true),
            ("evil.example.com", false),
            ("127.0.0.1.evil.com:80", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), fine, "{host}");
        }
        let open = Auth::default();
        let now = Timestamp::UNIX_EPOCH;
        assert!(
            open.caller(&Method::GET, &headers(header::HOST, "localhost:1"), now)
                .is_ok()
        );
        assert!(
            open.caller(&Method::POST, &headers(header::HOST, "localhost:1"), now)
                .is_err(),
            "a form"
        );
        assert!(
            open.caller(&Method::GET, &headers(header::HOST, "evil.example.com"), now)
                .is_err(),
            "rebinding"
        );
    }
}
