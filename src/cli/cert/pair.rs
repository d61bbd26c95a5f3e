//! A certificate and its key, put into a folder: both or none, and never over another file.
//!
//! Each is written under a name of its own and made durable before it gets the one it is meant for; the key comes first. If
//! the certificate then cannot, the key is taken away again. Only if the host dies between the two is there a key without
//! a certificate, which is said when the same name is asked for again.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::unwritten;
use crate::cli::{Ended, Exit};

/// Everyone may read a certificate,
const PUBLIC: u32 = 0o644;
/// and nobody but its owner the key.
const PRIVATE: u32 = 0o600;

/// Where the two belong.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// `NAME.crt` and `NAME.key` in `folder`, neither of which is there yet.
    pub(super) fn free(folder: &Path, name: &str) -> anyhow::Result<Self> {
        // Without a working directory a relative path stays as it is.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        if !folder.is_dir() {
            let message =
                format!("there is no folder `{}`; make it, or name another with `--output`", folder.display());
            return Err(Ended { exit: Exit::Failed, message }.into());
        }
        let [certificate, key] = ["crt", "key"].map(|extension| folder.join(format!("{name}.{extension}")));
        let place = Self { certificate, key, folder };
        place.is_free()?;
        Ok(place)
    }

    fn is_free(&self) -> Result<(), Ended> {
        // A link that leads nowhere is also something of somebody's.
        let there = |path: &Path| path.symlink_metadata().is_ok();
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let found = match (there(&self.certificate), there(&self.key)) {
            (false, false) => return Ok(()),
            (true, true) => format!("`{certificate}` and `{key}` are there already"),
            (true, false) => format!("`{certificate}` is there already, without `{key}`"),
            (false, true) => format!("`{key}` is there already, without `{certificate}`"),
        };
        let message = format!("{found}; nothing was written: choose another `--name`, or move what is there");
        Err(Ended { exit: Exit::Failed, message })
    }

    /// Writes both.
    pub(super) fn fill(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let made =
            |text: &str, path: &Path, mode| made(&self.folder, text, mode).map_err(|error| unwritten(path, error));
        let key = made(key, &self.key, PRIVATE)?;
        let certificate = made(certificate, &self.certificate, PUBLIC)?;
        key.persist_noclobber(&self.key).map_err(|error| self.unnamed(&self.key, error.error))?;
        if let Err(error) = certificate.persist_noclobber(&self.certificate) {
            fs::remove_file(&self.key).map_err(|error| unwritten(&self.key, error))?;
            return Err(self.unnamed(&self.certificate, error.error));
        }
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| unwritten(&self.folder, error))?;
        Ok(())
    }

    /// A file did not get the name it is meant for: somebody has taken it meanwhile, perhaps.
    fn unnamed(&self, path: &Path, error: io::Error) -> anyhow::Error {
        match self.is_free() {
            Err(taken) if error.kind() == io::ErrorKind::AlreadyExists => taken.into(),
            _ => unwritten(path, error).into(),
        }
    }
}

/// A file with this text and mode, durable, that goes away unless it gets another name.
fn made(folder: &Path, text: &str, mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".tenantry-").suffix(".partial").tempfile_in(folder)?;
    // It is made with 0600, so that the key is nobody else's at any moment.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn both_files_are_there_with_their_modes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::free(folder.path(), "app").unwrap();
        place.fill("certificate", "key").unwrap();
        assert_eq!(names(folder.path()), ["app.crt", "app.key"]);
        for (path, text, mode) in [(&place.certificate, "certificate", 0o644), (&place.key, "key", 0o600)] {
            assert_eq!(fs::read_to_string(path).unwrap(), text);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn what_is_there_stays_and_no_half_is_added() {
        for (present, words) in
            [(&["app.crt"][..], "without"), (&["app.key"], "without"), (&["app.crt", "app.key"], "are there already")]
        {
            let folder = tempfile::tempdir().unwrap();
            let early = Place::free(folder.path(), "app").unwrap();
            for name in present {
                fs::write(folder.path().join(name), "mine").unwrap();
            }
            let error = Place::free(folder.path(), "app").unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("nothing was written"), "{error}");
            // The same if they came after the first look.
            let error = early.fill("certificate", "key").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(names(folder.path()), present);
            for name in present {
                assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "mine");
            }
        }
    }

    #[test]
    fn a_folder_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = Place::free(&folder.path().join("none"), "app").unwrap_err().to_string();
        assert!(error.contains("there is no folder"), "{error}");
    }
}
