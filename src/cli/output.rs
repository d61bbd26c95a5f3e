//! Where records are written: standard output, a file, or what else a path may name.
//!
//! A file appears under its name only when it is complete, and for its owner alone. Until then it has another name beside
//! it, which is removed however the command ends, unless it is killed. What is no regular file (a device, a named pipe) is
//! written directly, and a symbolic link leads to where it points.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use tempfile::TempPath;

use super::out::{OutputError, STANDARD_OUTPUT};
use super::{Ended, Exit};
use crate::lifecycle::Lifecycle;

/// How many symbolic links may lead from one to the next, as in Linux.
const LINKS: usize = 40;

/// An open output.
#[derive(Debug)]
pub(super) struct Output {
    /// What errors call it.
    name: String,
    file: Arc<File>,
    /// What the file is called until it is complete, and then.
    partial: Option<(TempPath, PathBuf)>,
    /// There must be no file of that name.
    is_new: bool,
}

impl Output {
    /// Standard output.
    pub(super) fn standard() -> anyhow::Result<Self> {
        let file = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self { name: STANDARD_OUTPUT.to_owned(), file: Arc::new(file.into()), partial: None, is_new: false })
    }

    /// The file at `path`, or what it leads to; `-` and nothing are standard output. With it comes what asks for an early
    /// end.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<(Self, Interruption)> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok((Self::standard()?, Interruption(None)));
        };
        let name = format!("`{}`", path.display());
        let failed = |error| OutputError::new(&*name, error);
        let target = resolve(path).map_err(failed)?;
        match fs::metadata(&target) {
            Ok(there) if there.is_dir() => {
                let message = format!("{name} is a directory: name a file in it");
                Err(Ended { exit: Exit::Usage, message }.into())
            }
            Ok(there) if !there.is_file() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(failed)?;
                Ok((Self { name, file: Arc::new(file), partial: None, is_new: false }, Interruption(None)))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error).into()),
            _ => {
                let (Some(folder), Some(last)) = (target.parent(), target.file_name()) else {
                    let message = format!("{name} does not name a file");
                    return Err(Ended { exit: Exit::Usage, message }.into());
                };
                let mut prefix = last.to_owned();
                prefix.push(".");
                // Before there is something to remove.
                let interruption = Interruption(Some(Lifecycle::start()?));
                let made = tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempfile_in(folder);
                let (file, partial) = made.map_err(failed)?.into_parts();
                Ok((Self { name, file: Arc::new(file), partial: Some((partial, target)), is_new: false }, interruption))
            }
        }
    }

    /// A file at `path`, which must be none yet: what is there stays as it is. `-` is standard output.
    pub(super) fn create(path: &Path) -> anyhow::Result<(Self, Interruption)> {
        if path != Path::new("-") && fs::symlink_metadata(path).is_ok() {
            return Err(exists(path).into());
        }
        let (output, interruption) = Self::open(Some(path))?;
        Ok((Self { is_new: true, ..output }, interruption))
    }

    /// Whether it is a file on a disk.
    pub(super) fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Writes on a thread of its own: a reader that does not read holds up that thread and nothing else. Who stops to wait
    /// for it must not write again.
    pub(super) async fn write(&self, piece: Bytes) -> anyhow::Result<()> {
        self.blocking(move |mut file| file.write_all(&piece)).await
    }

    /// Gives a file its name, when everything is written.
    pub(super) async fn commit(mut self) -> anyhow::Result<()> {
        let Some((partial, target)) = self.partial.take() else { return Ok(()) };
        self.blocking(File::sync_all).await?;
        let given = if self.is_new { partial.persist_noclobber(&target) } else { partial.persist(&target) };
        match given {
            Err(error) if self.is_new && error.error.kind() == ErrorKind::AlreadyExists => Err(exists(&target).into()),
            given => Ok(given.map_err(|error| OutputError::new(&*self.name, error.error))?),
        }
    }

    async fn blocking(&self, work: impl FnOnce(&File) -> io::Result<()> + Send + 'static) -> anyhow::Result<()> {
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || work(&file)).await.context("writing panicked")?;
        Ok(done.map_err(|error| OutputError::new(&*self.name, error))?)
    }
}

fn exists(path: &Path) -> Ended {
    Ended { exit: Exit::Usage, message: format!("`{}` exists already: name another file", path.display()) }
}

/// Ctrl-C and the like, where something must be removed before the end; elsewhere a signal ends the process as it always
/// does.
#[derive(Debug)]
pub(super) struct Interruption(Option<Lifecycle>);

impl Interruption {
    /// Resolves when there is one, with what to say.
    pub(super) async fn comes(&mut self) -> Ended {
        let Some(lifecycle) = &mut self.0 else { return std::future::pending().await };
        lifecycle.next().await;
        let message = "interrupted before all of it had come: nothing was written".to_owned();
        Ended { exit: Exit::Failed, message }
    }
}

/// Where a path leads through symbolic links, also if there is nothing yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            // It is no link, or nothing.
            Err(_) => return Ok(path),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

    use super::*;

    async fn write(path: &Path, text: &'static str) -> anyhow::Result<()> {
        let (output, _) = Output::open(Some(path))?;
        output.write(Bytes::from_static(text.as_bytes())).await?;
        output.commit().await
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_there_when_it_is_complete_and_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let [one, other] = [(); 2].map(|()| Output::open(Some(&path)).unwrap().0);
        assert!(one.is_file());
        one.write(Bytes::from_static(b"one")).await.unwrap();
        other.write(Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(names(dir.path()).len(), 3, "two that write at once do not meet");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(other);
        one.commit().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[tokio::test]
    async fn what_is_there_stays_where_a_new_file_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let (output, _) = Output::create(&path).unwrap();
        output.write(Bytes::from_static(b"new")).await.unwrap();
        fs::write(&path, "somebody else's").unwrap();
        let error = output.commit().await.unwrap_err();
        assert_eq!((Exit::of(&error), format!("{error:#}").contains("exists already")), (Exit::Usage, true));
        assert_eq!(Exit::of(&Output::create(&path).unwrap_err()), Exit::Usage);
        symlink("nowhere", dir.path().join("link")).unwrap();
        assert_eq!(Exit::of(&Output::create(&dir.path().join("link")).unwrap_err()), Exit::Usage);
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"somebody else's".to_vec(), vec!["link".to_owned(), "out".to_owned()])
        );
    }

    #[tokio::test]
    async fn links_lead_to_files_and_devices_stay_devices() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("far")).unwrap();
        fs::write(dir.path().join("far/there"), "old").unwrap();
        for (link, target) in [("a", "far/there"), ("b", "a"), ("c", "far/nothing"), ("null", "/dev/null")] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        for (link, target) in [("b", "far/there"), ("c", "far/nothing")] {
            write(&dir.path().join(link), "new").await.unwrap();
            assert_eq!(fs::read(dir.path().join(target)).unwrap(), b"new");
            assert!(fs::symlink_metadata(dir.path().join(link)).unwrap().is_symlink());
        }
        write(&dir.path().join("null"), "new").await.unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(dir.path().join("null")).unwrap().is_symlink());
        let error = write(&dir.path().join("loop"), "new").await.unwrap_err();
        assert!(format!("{error:#}").contains("symbolic links"), "{error:#}");
        assert_eq!(names(dir.path()), ["a", "b", "c", "far", "loop", "null"]);
        assert_eq!(names(&dir.path().join("far")), ["nothing", "there"]);
    }

    #[tokio::test]
    async fn a_directory_and_a_full_device_are_told_apart() {
        let [dir, full] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        symlink("/dev/full", full.path().join("full")).unwrap();
        for (path, exit, told) in [
            (dir.path(), Exit::Usage, "is a directory"),
            (&full.path().join("full"), Exit::TryAgain, "cannot write to `"),
            (&dir.path().join("nowhere/out"), Exit::Failed, "nowhere/out"),
        ] {
            let error = write(path, "text").await.unwrap_err();
            assert_eq!(Exit::of(&error), exit, "{error:#}");
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
        assert_eq!(names(dir.path()), <[&str; 0]>::default());
    }
}
