//! A file system of its own in a file, on a loop device. Needs root, and a kernel with loop devices and ext4.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Where the ballast lies, that takes the space away.
const BALLAST: &str = "ballast";

pub(crate) struct Volume {
    image: PathBuf,
    pub(crate) mounted: PathBuf,
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let command = Command::new(program).env("LC_ALL", "C").args(arguments).output();
    let output = command.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Volume {
    /// Of so many bytes, mounted as `store` in `dir`.
    pub(crate) fn new(dir: &Path, bytes: u64) -> Result<Self, String> {
        let volume = Self { image: dir.join("disk.img"), mounted: dir.join("store") };
        let image = volume.image.to_str().unwrap();
        File::create(&volume.image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        fs::create_dir_all(&volume.mounted).unwrap();
        run("mkfs.ext4", &["-q", "-F", image])?;
        volume.mount()?;
        Ok(volume)
    }

    pub(crate) fn mount(&self) -> Result<(), String> {
        // Frequent commits of the journal would hide what was not synced; five seconds is the default.
        run("mount", &["-o", "loop,commit=5", self.image.to_str().unwrap(), self.path()])
    }

    pub(crate) fn unmount(&self) -> Result<(), String> {
        run("umount", &[self.path()])
    }

    pub(crate) fn path(&self) -> &str {
        self.mounted.to_str().unwrap()
    }

    /// Bytes that may still be written.
    pub(crate) fn free(&self) -> u64 {
        let disk = statvfs(&self.mounted).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Takes all the space there is at once, but for some `left` bytes. Root could have what is kept for it too.
    pub(crate) fn fill(&self, left: u64) {
        let ballast = File::create(self.mounted.join(BALLAST)).unwrap();
        let disk = statvfs(&self.mounted).unwrap();
        let all = disk.f_bfree * disk.f_frsize;
        fallocate(&ballast, FallocateFlags::empty(), 0, (all.saturating_sub(left)).max(1)).unwrap();
    }

    /// Gives it back.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.mounted.join(BALLAST)).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // After a failed test; in a good one it is unmounted.
        let _ = run("umount", &["-l", self.path()]);
    }
}
