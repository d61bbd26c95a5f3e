//! How a listener speaks TLS: `certificate_file`, `private_key_file` and `client_ca_file` of its section.
//!
//! Whoever serves the listener reads the files again when they have changed ([`ListenerTls::read_again`]), by the same
//! rules and with the same words.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::credentials::{Name, read};
use super::merged::{At, Table};
use super::problem::{ConfigErrors, Findings, Place, Problem};
use crate::tls::{Authorities, ListenerCertificate, Tls};

/// A listener's certificate and what it demands of callers, with the files that they come from.
///
/// Two are equal if they show and demand the same from the same files; where these are named does not count.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    files: Files,
    tls: Tls,
    stamps: Stamps,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: File,
    key: Option<File>,
    authorities: Option<File>,
}

/// A file, and what names it.
#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    place: Place,
    key: String,
}

/// What the file system says of files: they are as they were while it says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamps(Vec<Result<Stamp, io::ErrorKind>>);

/// Device, file, size, and the seconds and nanoseconds at which its content and anything about it last changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Reads what `table` says of TLS; `None` if it says nothing, or something wrong.
pub(super) fn tls(table: &Table<'_>, findings: &mut Findings) -> Option<ListenerTls> {
    let mut file = |key: &str| {
        let At { value, place } = table.path(key, findings)?;
        Some(File { path: value, place, key: table.key(key) })
    };
    let (certificate, key, authorities) = (file("certificate_file"), file("private_key_file"), file("client_ca_file"));
    if !table.has("certificate_file") {
        for (key, what) in [
            ("private_key_file", "there is a `private_key_file` without its certificate"),
            ("client_ca_file", "there is a `client_ca_file`, and callers show certificates only to who shows one"),
        ] {
            if table.has(key) {
                findings.missing(&table.place_of(key), &table.key(key), format!("{what}; set `certificate_file`"));
            }
        }
        return None;
    }
    // What is named and was not understood has been told.
    let is_told = |key: &str, file: &Option<File>| table.has(key) && file.is_none();
    if is_told("private_key_file", &key) || is_told("client_ca_file", &authorities) {
        return None;
    }
    ListenerTls::read(Files { certificate: certificate?, key, authorities }, findings)
}

impl ListenerTls {
    fn read(files: Files, findings: &mut Findings) -> Option<Self> {
        // First: what changes while the files are read is a change.
        let stamps = files.look();
        let tls = files.read(findings)?;
        Some(Self { files, tls, stamps })
    }

    /// Reads the files again, and says what should be looked at. Blocks on the file system.
    ///
    /// # Errors
    /// Every problem with them.
    pub fn read_again(&self) -> Result<(Self, Vec<Problem>), ConfigErrors> {
        let mut findings = Findings::default();
        match Self::read(self.files.clone(), &mut findings) {
            Some(read) => Ok((read, findings.warnings)),
            None => Err(ConfigErrors::new(findings.problems)),
        }
    }

    /// What the listener shows and demands.
    #[must_use]
    pub const fn tls(&self) -> &Tls {
        &self.tls
    }

    /// What the file system said of the files just before they were read.
    #[must_use]
    pub const fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// What it says now. Blocks on the file system.
    #[must_use]
    pub fn look(&self) -> Stamps {
        self.files.look()
    }

    /// Whether both come from the same files.
    #[must_use]
    pub fn has_files_of(&self, other: &Self) -> bool {
        self.files.paths().eq(other.files.paths())
    }

    /// The keys that name files, with their files.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.files.paths().filter_map(|(key, path)| Some((key, path?)))
    }

    /// Where the certificate is named, by its own path.
    pub(super) fn certificate_file(&self) -> (Place, &str) {
        (Place::file(&self.files.certificate.path, None), &self.files.certificate.key)
    }
}

impl PartialEq for ListenerTls {
    fn eq(&self, other: &Self) -> bool {
        self.has_files_of(other) && self.tls == other.tls
    }
}

impl Eq for ListenerTls {}

impl Files {
    fn paths(&self) -> impl Iterator<Item = (&'static str, Option<&Path>)> {
        [
            ("certificate_file", Some(&self.certificate)),
            ("private_key_file", self.key.as_ref()),
            ("client_ca_file", self.authorities.as_ref()),
        ]
        .into_iter()
        .map(|(key, file)| (key, file.map(|file| file.path.as_path())))
    }

    fn read(&self, findings: &mut Findings) -> Option<Tls> {
        let (own, apart) = (&self.certificate, self.key.as_ref());
        let has_key = if apart.is_none() { Name::PerhapsSecret } else { Name::Path };
        let certificate = read(&own.path, has_key, apart.is_none(), &own.place, &own.key, findings);
        // What is wrong has been told; nothing here ends at the first problem.
        let key =
            apart.map(|file| read(&file.path, Name::PerhapsSecret, true, &file.place, &file.key, findings).ok_or(()));
        let authorities = self.authorities.as_ref().map(|file| {
            let bytes = read(&file.path, Name::Path, false, &file.place, &file.key, findings).ok_or(())?;
            let told = |error| findings.problem(&file.place, &file.key, format!("`{}`: {error}", file.path.display()));
            Authorities::from_pem(&bytes).map_err(told)
        });
        let named = match apart {
            Some(key) => format!("`{}` with `{}`", own.path.display(), key.path.display()),
            None => format!("`{}`", own.path.display()),
        };
        let (certificate, key) = (certificate?, key.transpose().ok()?);
        let certificate = ListenerCertificate::from_pem(&certificate, key.as_deref().map(Vec::as_slice));
        let told = |error, findings: &mut Findings| {
            findings.problem(&own.place, &own.key, format!("{named}: {error}"));
        };
        let certificate = certificate.map_err(|error| told(error, findings)).ok()?;
        if certificate.names().is_empty() {
            let message = format!(
                "{named}: the certificate names no host as a subject alternative name, by which callers would know it; \
                 make one that does"
            );
            findings.warn(&own.place, &own.key, message);
        }
        Tls::new(certificate, authorities.transpose().ok()?).map_err(|error| told(error, findings)).ok()
    }

    fn look(&self) -> Stamps {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).map_err(|error| error.kind())?;
            let (changed, touched) =
                ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
            Ok((metadata.dev(), metadata.ino(), metadata.len(), changed, touched))
        };
        Stamps(self.paths().filter_map(|(_, path)| Some(stamp(path?))).collect())
    }
}

#[cfg(test)]
impl Stamps {
    /// Of files that differ in size only.
    pub(crate) fn of_sizes(sizes: &[u64]) -> Self {
        Self(sizes.iter().map(|size| Ok((0, 0, *size, (0, 0), (0, 0)))).collect())
    }
}
