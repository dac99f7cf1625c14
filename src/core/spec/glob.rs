//! Globs over paths with `/`: `*` and `?` within a part, `**` over parts; and `.musterignore`.

/// Whether a path matches a glob as a whole.
pub fn matches(glob: &str, path: &str) -> bool {
    let glob: Vec<&str> = glob.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    parts(&glob, &path)
}

/// Table over (glob parts, path parts): linear work in their product, so that no glob is slow.
fn parts(glob: &[&str], path: &[&str]) -> bool {
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for part in glob {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            if *part == "**" {
                next[at] = reach[at] || (at > 0 && next[at - 1]);
            } else if at > 0 && reach[at - 1] {
                next[at] = one_part(part, path[at - 1]);
            }
        }
        reach = next;
    }
    reach[path.len()]
}

fn one_part(glob: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for char in glob.chars() {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match char {
                '*' => reach[at] || (at > 0 && next[at - 1]),
                '?' => at > 0 && reach[at - 1],
                _ => at > 0 && reach[at - 1] && text[at - 1] == char,
            };
        }
        reach = next;
    }
    reach[text.len()]
}

/// `.musterignore`: gitignore's rules as far as files of one folder tree need them (`#`, `!`, leading and trailing `/`).
#[derive(Debug, Default)]
pub struct Ignore {
    rules: Vec<(bool, String)>,
}

impl Ignore {
    /// The file's name, at the top of the configured path.
    pub const FILE: &'static str = ".musterignore";

    /// Reads the rules; lines that are not UTF-8 match nothing.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let rules = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            rules: rules.map(Self::rule).collect(),
        }
    }

    fn rule(line: &str) -> (bool, String) {
        let (keep, line) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let folder = line.trim_end_matches('/');
        let anchored = folder.contains('/');
        let folder = folder.trim_start_matches('/');
        (
            keep,
            if anchored {
                folder.to_owned()
            } else {
                format!("**/{folder}")
            },
        )
    }

    /// Whether a file is left out; the last rule that matches decides.
    pub fn ignores(&self, path: &str) -> bool {
        let hit = |glob: &str| matches(glob, path) || matches(&format!("{glob}/**"), path);
        self.rules
            .iter()
            .rev()
            .find(|(_, glob)| hit(glob))
            .is_some_and(|(keep, _)| !keep)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ignore, matches};

    #[test]
    fn globs_match_whole_paths() {
        for (glob, path, expected) in [
            ("platform/**", "platform/a.yaml", true),
            ("platform/**", "platform/x/y/a.yaml", true),
            ("platform/**", "platform2/a.yaml", false),
            ("**", "a", true),
            ("**/a.yaml", "a.yaml", true),
            ("teams/*/plans/?.yaml", "teams/x/plans/a.yaml", true),
            ("teams/*/plans/?.yaml", "teams/x/y/plans/a.yaml", false),
            ("*.yaml", "x/a.yaml", false),
            ("a*b*c", "aXbYbc", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, path), expected, "{glob} {path}");
        }
    }

    #[test]
    fn no_glob_is_slow() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(300).replace('a', "b")));
        assert!(!matches(&format!("{}b", "**/".repeat(60)), &"a/".repeat(300)));
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let ignore = Ignore::parse(b"# charts\ncharts/\n*.tmpl.yaml\n/docs\n!charts/mine.yaml\n");
        for (path, expected) in [
            ("charts/a.yaml", true),
            ("x/charts/templates/a.yaml", true),
            ("charts/mine.yaml", false),
            ("a.tmpl.yaml", true),
            ("docs/a.yaml", true),
            ("x/docs/a.yaml", false),
            ("a.yaml", false),
        ] {
            assert_eq!(ignore.ignores(path), expected, "{path}");
        }
    }
}
