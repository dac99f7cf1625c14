//! Files that plans name: found inside the repository, pinned by digest, and read as CSV where they are data.

use super::code::Code;
use super::hint::did_you_mean;
use super::tree::shown;
use super::{Files, SourceFile};
use crate::base::csv::Records;
use crate::model::id::Digest;
use crate::model::load::RepoFile;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Columns of a data file; more is a typing error or another format.
const COLUMNS_MAX: usize = 1_000;

/// What is known about a blob, whoever names it.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    digest: Digest,
    /// Read when first named as data.
    csv: Option<Arc<Result<Csv, String>>>,
}

/// The shape of a data file.
#[derive(Debug, Clone)]
pub(super) struct Csv {
    pub columns: Vec<String>,
    pub rows: u64,
}

/// Blobs by id.
pub(super) type Blobs = BTreeMap<String, Blob>;

/// Why a file cannot be used. Texts hold paths, never content (promise 6).
pub(super) struct Problem {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

/// The repository's files as documents see them.
pub(super) struct Contents<'a> {
    files: &'a Files,
    /// From the last load.
    before: &'a Blobs,
    /// Used by this one.
    pub used: Blobs,
    /// Digest to path, of all files that resources name.
    pub pinned: BTreeMap<Digest, String>,
}

impl<'a> Contents<'a> {
    pub fn new(files: &'a Files, before: &'a Blobs) -> Self {
        Self {
            files,
            before,
            used: Blobs::new(),
            pinned: BTreeMap::new(),
        }
    }

    /// Finds the file that a document names relative to itself.
    pub fn find(&mut self, document: &str, path: &str) -> Result<RepoFile, Problem> {
        let problem = |code, message: String| Problem {
            code,
            message,
            hint: None,
        };
        let Some(whole) = resolve(document, path) else {
            return Err(problem(
                Code::FileOutside,
                format!("`{}` is not a path inside the repository", shown(path)),
            ));
        };
        if let Some((refused, reason)) = self.refused(&whole) {
            return Err(problem(
                Code::FileRefused,
                format!("`{}` is not read: {}", shown(refused), shown(reason)),
            ));
        }
        let Some(file) = self.files.files.get(&whole) else {
            let near = self.files.files.keys().map(String::as_str);
            let hint = did_you_mean(&whole, near).or_else(|| Some(format!("looked for `{}`", shown(&whole))));
            return Err(Problem {
                code: Code::FileNotFound,
                message: format!("there is no file `{}`", shown(path)),
                hint,
            });
        };
        let digest = self.blob(file).digest.clone();
        self.pinned.entry(digest.clone()).or_insert_with(|| whole.clone());
        Ok(RepoFile { path: whole, digest })
    }

    /// The shape of a data file that was found before.
    pub fn csv(&mut self, file: &RepoFile) -> Result<Csv, Problem> {
        let Some(source) = self.files.files.get(&file.path) else {
            return Err(Problem {
                code: Code::FileNotFound,
                message: format!("there is no file `{}`", shown(&file.path)),
                hint: None,
            });
        };
        let blob = self.blob(source);
        let csv = blob.csv.get_or_insert_with(|| Arc::new(shape(&source.bytes))).clone();
        csv.as_ref().clone().map_err(|cause| Problem {
            code: Code::BadCsv,
            message: format!("`{}` is not CSV with a header and rows: {cause}", shown(&file.path)),
            hint: None,
        })
    }

    fn blob(&mut self, file: &SourceFile) -> &mut Blob {
        let known = |blobs: &Blobs| blobs.get(&file.blob).cloned();
        let before = self.before;
        self.used.entry(file.blob.clone()).or_insert_with(|| {
            known(before).unwrap_or_else(|| Blob {
                digest: Digest::of(&file.bytes),
                csv: None,
            })
        })
    }

    /// The entry itself, or a folder on the way to it, that was refused.
    fn refused(&self, path: &str) -> Option<(&str, &str)> {
        let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]);
        ends.map(|end| &path[..end])
            .find_map(|part| self.files.refused.get_key_value(part))
            .map(|(part, reason)| (part.as_str(), reason.as_str()))
    }
}

/// A path relative to a document's file as a path of the repository; `None` where it would leave it.
pub(super) fn resolve(document: &str, path: &str) -> Option<String> {
    if path.is_empty() || path.starts_with('/') || path.ends_with('/') || path.contains(['\0', '\\']) {
        return None;
    }
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The reverse of [`resolve`]: a repository's path as a document writes it.
pub(super) fn relative(document: &str, path: &str) -> String {
    let folder: Vec<&str> = document
        .rsplit_once('/')
        .map_or(Vec::new(), |(folder, _)| folder.split('/').collect());
    let target: Vec<&str> = path.split('/').collect();
    let common = folder
        .iter()
        .zip(&target[..target.len() - 1])
        .take_while(|(left, right)| left == right)
        .count();
    let up = vec![".."; folder.len() - common];
    up.into_iter()
        .chain(target[common..].iter().copied())
        .collect::<Vec<_>>()
        .join("/")
}

fn shape(bytes: &[u8]) -> Result<Csv, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut records = Records::new(text);
    let header = records
        .next()
        .ok_or("it is empty")?
        .map_err(|error| error.to_string())?;
    let columns: Vec<String> = header.into_iter().map(|column| column.trim().to_owned()).collect();
    if columns.len() > COLUMNS_MAX {
        return Err(format!("it has more than {COLUMNS_MAX} columns"));
    }
    if columns
        .iter()
        .any(|column| column.is_empty() || column.contains(['{', '}']))
    {
        return Err("its header has a column without a usable name".to_owned());
    }
    if (1..columns.len()).any(|index| columns[..index].contains(&columns[index])) {
        return Err("its header has a column twice".to_owned());
    }
    let mut rows = 0;
    loop {
        let line = records.line();
        match records.next() {
            None if rows == 0 => return Err("it has a header and no rows".to_owned()),
            None => return Ok(Csv { columns, rows }),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(row)) if row.len() != columns.len() => {
                return Err(format!(
                    "near line {line}: {} fields, the header has {}",
                    row.len(),
                    columns.len()
                ));
            }
            Some(Ok(_)) => rows += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{relative, resolve, shape};
    use proptest::prelude::*;

    #[test]
    fn s06_paths_stay_inside_the_repository() {
        for (document, path, expected) in [
            ("a.yaml", "data/x.csv", Some("data/x.csv")),
            ("plans/a.yaml", "./x.csv", Some("plans/x.csv")),
            ("plans/a.yaml", "../x.csv", Some("x.csv")),
            ("plans/a.yaml", "../../x.csv", None),
            ("a.yaml", "../a.yaml", None),
            ("a.yaml", "/etc/passwd", None),
            ("a.yaml", "", None),
            ("a.yaml", ".", None),
            ("a.yaml", "x/../../etc/passwd", None),
            ("a.yaml", "x\\y", None),
        ] {
            assert_eq!(resolve(document, path).as_deref(), expected, "{document} {path}");
        }
    }

    #[test]
    fn data_needs_a_header_and_rows() {
        let fine = shape(b"name, query\na,1\nb,2\n").expect("CSV");
        assert_eq!(
            (fine.columns, fine.rows),
            (vec!["name".to_owned(), "query".to_owned()], 2)
        );
        for text in [
            "",
            "name\n",
            "a,a\n1,2\n",
            "a,\n1,2\n",
            "a,b\n1\n",
            "a\n\"x\n",
            "a\n\u{0}",
        ] {
            assert_eq!(shape(text.as_bytes()).is_err(), text != "a\n\u{0}", "{text:?}");
        }
        assert!(shape(b"a\n\xff\n").is_err());
    }

    proptest! {
        #[test]
        fn a_written_path_resolves_back(document in "([a-c]/){0,3}d", path in "([a-c]/){0,3}e") {
            prop_assert_eq!(resolve(&document, &relative(&document, &path)), Some(path));
        }
    }
}
