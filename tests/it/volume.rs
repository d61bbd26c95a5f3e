//! A file system of its own: ext4 in a file, on a loop device, to be filled, to be made read-only and to lose its power.
//! Needs root, and a kernel with loop devices and ext4.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::skip::no_file_system;

/// Where the ballast lies, that takes the space away.
const BALLAST: &str = "ballast";
/// The unit in which ext4 gives space.
const BLOCK: u64 = 4096;

pub(crate) struct Volume {
    image: PathBuf,
    mounted: PathBuf,
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
    /// Of so many bytes, mounted at this directory; none where that cannot be done, which is said.
    pub(crate) fn at(mounted: &Path, bytes: u64) -> Option<Self> {
        Self::make(mounted, bytes)
            .map_err(|reason| no_file_system(&format!("no loop device with ext4 can be made here: {reason}")))
            .ok()
    }

    fn make(mounted: &Path, bytes: u64) -> Result<Self, String> {
        let volume = Self { image: mounted.with_extension("img"), mounted: mounted.to_owned() };
        let image = volume.image.to_str().unwrap();
        File::create(&volume.image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        fs::create_dir_all(&volume.mounted).unwrap();
        // Cuts the power, later.
        run("python3", &["--version"])?;
        // Nothing is kept for root, so that what is free is free for all.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
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

    /// Takes all the space there is, but for some `left` bytes. Others may write meanwhile.
    pub(crate) fn fill(&self, left: u64) {
        let ballast = File::create(self.mounted.join(BALLAST)).unwrap();
        let (mut at, mut most) = (0, u64::MAX);
        loop {
            let piece = self.free().saturating_sub(left).min(most) / BLOCK * BLOCK;
            if piece == 0 {
                return;
            }
            match fallocate(&ballast, FallocateFlags::empty(), at, piece) {
                Ok(()) => at += piece,
                // Somebody was faster, or a part of it is needed to note down where the rest is.
                Err(Errno::NOSPC) => most = piece / 2,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    /// Gives it back.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.mounted.join(BALLAST)).unwrap();
    }

    /// Gets ready to cut the power: what takes time is done before.
    pub(crate) fn arm(&self) -> Switch {
        let script = "import fcntl, os, struct, sys\n\
                      fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                      print(flush=True)\n\
                      sys.stdin.readline()\n\
                      fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))\n";
        let mut process = Command::new("python3")
            .args(["-c", script, self.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        process.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        Switch(process)
    }
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: the file system stops as if the power were cut, and refuses
/// whatever is asked of it from then on.
pub(crate) struct Switch(Child);

impl Switch {
    pub(crate) fn cut(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success(), "the power was not cut");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // After a failed test; in a good one it is unmounted.
        let _ = run("umount", &["-l", self.path()]);
    }
}
