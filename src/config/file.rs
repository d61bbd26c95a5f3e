//! The files that a configuration consists of and names: read whole, within a limit, and never waited for.
//!
//! What is not a regular file could block for ever (a FIFO without a writer) or never end (a device), in a daemon that
//! reads it again at a reload. A descriptor that was handed over, as a shell's `<(…)` does, is read all the same.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// There is nothing at the path, or it cannot be the path of a file.
    Missing,
    /// There is a link, and nothing where it leads to.
    Dangling,
    /// The operating system refuses access.
    Denied,
    /// It is something else than a file: this.
    Special(&'static str),
    /// It has more bytes than the limit.
    TooLarge,
    /// Reading failed.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
        match error.kind() {
            NotFound | NotADirectory | InvalidFilename | InvalidInput => Self::Missing,
            PermissionDenied => Self::Denied,
            _ => Self::Failed(error),
        }
    }
}

/// All bytes of the file, of which there may be `limit`. They may be secret.
pub(super) fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let is_handed_over =
        path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") || path == Path::new("/dev/stdin");
    let metadata = std::fs::metadata(path).map_err(|error| match Unread::from(error) {
        Unread::Missing if path.is_symlink() => Unread::Dangling,
        unread => unread,
    })?;
    if metadata.is_dir() || !(metadata.is_file() || is_handed_over) {
        return Err(Unread::Special(kind(metadata.file_type())));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Unread::TooLarge) } else { Ok(bytes) }
}

fn kind(found: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Whether an editor wrote it as UTF-16.
pub(super) fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF")
}

/// What a text cannot be that should be a path. It is not shown: a key or a secret may have been pasted in its place.
pub(super) fn not_a_path(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") {
        Some("this is the content of a PEM file, not its path: write it to a file and name that")
    } else if text.chars().any(char::is_control) {
        Some("there is a line end or another control character in it; write the path of a file")
    } else if text.split('/').any(|part| part.len() > LONGEST_NAME) {
        Some("it is too long to be the path of a file; if it is the file's content, write it to a file and name that")
    } else {
        None
    }
}

/// `NAME_MAX` of Linux's file systems.
const LONGEST_NAME: usize = 255;

/// A folder that `path` says more than a name about: one that is there and is not `home`. A missing file that is not in
/// such a folder may be no path at all, but a secret that was written where its file's name belongs.
pub(super) fn is_plainly_a_path(path: &Path, home: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.is_dir() && folder != home)
}

/// The folder that relative paths start from, if they start from `base`.
pub(super) fn home(base: PathBuf) -> PathBuf {
    let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    // Without a working directory there is nothing to compare with.
    std::path::absolute(&base).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn only_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "12345").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("none"), at("dangling")).unwrap();
        std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(*read(&at("link"), 5).unwrap(), b"12345");
        assert!(matches!(read(&at("file"), 4), Err(Unread::TooLarge)));
        assert!(matches!(read(&at("none"), 5), Err(Unread::Missing)));
        assert!(matches!(read(&at("file/none"), 5), Err(Unread::Missing)));
        assert!(matches!(read(&at("dangling"), 5), Err(Unread::Dangling)));
        assert!(matches!(read(&at("fifo"), 5), Err(Unread::Special("a FIFO"))));
        assert!(matches!(read(&at("socket"), 5), Err(Unread::Special("a socket"))));
        assert!(matches!(read(folder.path(), 5), Err(Unread::Special("a folder"))));
        assert!(matches!(read(Path::new("/dev/zero"), 5), Err(Unread::Special("a device"))));

        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        assert_eq!(*read(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())), 5).unwrap(), b"piped");
    }

    #[test]
    fn what_is_pasted_in_place_of_a_path_is_noticed() {
        for text in ["-----BEGIN PRIVATE KEY-----", "a\nb", "MII\u{0}", &"M".repeat(256)] {
            assert!(not_a_path(text).is_some_and(|message| !message.contains(text)), "{text:?}");
        }
        for text in ["a", "/etc/tenantry/ü ü.pem", &format!("{0}/{0}/{0}", "m".repeat(255))] {
            assert_eq!(not_a_path(text), None, "{text}");
        }
    }
}
