//! Whose file it is: folders to projects, the longest match wins.

use super::glob::matches;
use crate::model::id::Name;
use crate::model::policy::Policy;

impl Policy {
    /// The project that a path belongs to; `None` where projects are configured and none has it.
    ///
    /// The longest of the globs that match decides, so that a folder inside a folder may be another project's; of equally long
    /// ones the first by name. A project without globs has everything else.
    pub fn project_of(&self, path: &str) -> Option<&Name> {
        let globs = self
            .projects
            .iter()
            .flat_map(|(name, project)| project.paths.iter().map(move |glob| (glob, name)));
        let longest = globs
            .filter(|(glob, _)| matches(glob, path))
            .max_by(|(left, one), (right, other)| left.len().cmp(&right.len()).then_with(|| other.cmp(one)));
        let rest = || {
            self.projects
                .iter()
                .find(|(_, project)| project.paths.is_empty())
                .map(|(name, _)| name)
        };
        longest.map(|(_, name)| name).or_else(rest)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::id::Name;
    use crate::model::policy::Policy;

    #[test]
    fn the_longest_glob_wins() {
        let mut policy = Policy::closed();
        assert_eq!(policy.project_of("any/a.yaml").map(Name::as_str), Some("default"));
        let usual = policy.projects.pop_first().expect("one project").1;
        for (name, glob) in [("teams", "teams/**"), ("pay", "teams/pay/**"), ("docs", "docs/*.yaml")] {
            let mut project = usual.clone();
            project.paths = vec![glob.to_owned()];
            policy.projects.insert(Name::new(name).expect("a name"), project);
        }
        for (path, expected) in [
            ("teams/a.yaml", Some("teams")),
            ("teams/pay/a.yaml", Some("pay")),
            ("teams/pay/x/a.yaml", Some("pay")),
            ("docs/a.yaml", Some("docs")),
            ("docs/x/a.yaml", None),
        ] {
            assert_eq!(policy.project_of(path).map(Name::as_str), expected, "{path}");
        }
    }
}
