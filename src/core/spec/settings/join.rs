//! `join`: who may bring workers to which environment.

use super::{Lower, at};
use crate::model::id::Name;
use crate::model::key::{Key, Kind};
use crate::model::settings::{JoinRule, ProjectSettings, SecretSource};
use crate::spec::code::Code;
use crate::spec::tree::shown;
use crate::spec::wire::scalar::ReferenceText;
use crate::spec::wire::settings::Join;
use std::collections::BTreeMap;

impl Lower<'_> {
    pub(super) fn join(
        &mut self,
        wire: &[Join],
        projects: &[ProjectSettings],
        secrets: &BTreeMap<String, SecretSource>,
    ) -> Vec<JoinRule> {
        let mut rules: Vec<JoinRule> = Vec::new();
        for (index, join) in wire.iter().enumerate() {
            let pointer = at("/join", index);
            let secret = self.secret(&at(&pointer, "secretRef"), &join.secret_ref, secrets);
            let place = at(&pointer, "environment");
            let Some(environment) = self.joined_environment(&place, &join.environment, projects) else {
                continue;
            };
            // The token shown decides the environment, so one token cannot stand for two.
            if rules.iter().any(|rule| rule.secret == secret) {
                let text = format!("the secret `{}` is the token of another rule", shown(&secret.name));
                self.error(&at(&pointer, "secretRef"), Code::NotUnique, text);
            }
            rules.push(JoinRule {
                environment,
                max_workers: join.max_workers,
                secret,
            });
        }
        rules
    }

    fn joined_environment(&mut self, place: &str, text: &ReferenceText, projects: &[ProjectSettings]) -> Option<Key> {
        let parts = ReferenceText::split(&text.0)?;
        if parts
            .kind
            .as_deref()
            .is_some_and(|kind| kind != Kind::Environment.as_str())
        {
            let text = format!("`{}` is not an Environment", shown(&text.0));
            self.error(place, Code::WrongReference, text);
            return None;
        }
        let project = parts
            .project
            .or_else(|| projects.is_empty().then(Name::default_project));
        let Some(project) = project else {
            let text = format!("`{}` does not say its project", shown(&text.0));
            self.error(place, Code::WrongReference, text).hint = Some(format!("write `PROJECT/{}`", parts.name));
            return None;
        };
        let known = match projects.is_empty() {
            true => project == Name::default_project(),
            false => projects.iter().any(|known| known.name == project),
        };
        if !known {
            self.error(
                place,
                Code::UndefinedReference,
                format!("there is no project `{project}`"),
            );
            return None;
        }
        Some(Key::new(project, Kind::Environment, parts.name))
    }
}
