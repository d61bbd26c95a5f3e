//! Containers whose first process is systemd, booted from minimal Debian trees.
//!
//! The trees are made by `just trees`, and named by `TENANTRY_TEST_TREES`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::skip::skip;
use crate::world::PATIENCE;

/// A container whose first process is systemd.
pub(crate) struct Machine {
    name: String,
    nspawn: Child,
    /// Systemd's process id on this host.
    leader: u32,
    cgroups: Vec<PathBuf>,
    pub(crate) tree: tempfile::TempDir,
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Machine {
    /// Boots a copy of the tree, into which `install` puts what it likes. An error is why this host lets nobody do so.
    pub(crate) fn boot(tree: &Path, name: &str, install: impl FnOnce(&Path)) -> Result<Self, String> {
        let copy = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg("-a").arg(tree.join(".")).arg(copy.path()).status().unwrap();
        assert!(status.success());
        install(copy.path());
        // Groups of its own, or systemd-nspawn makes some in the root of the hierarchy.
        let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        let cgroups: Vec<_> = hierarchies
            .iter()
            .filter(|hierarchy| Path::new(hierarchy).join("cgroup.procs").exists())
            .map(|hierarchy| Path::new(hierarchy).join(name))
            .filter(|cgroup| fs::create_dir_all(cgroup).is_ok())
            .collect();
        let enter = cgroups.iter().map(|cgroup| format!("echo $$ > {}/cgroup.procs; ", cgroup.display()));
        let script = enter.collect::<String>() + "exec setsid systemd-nspawn \"$@\"";
        let console = fs::File::create(copy.path().join("console.log")).unwrap();
        // The host's network, because the simulated cloud is there. Its devices are never bound: systemd would change
        // their modes.
        let nspawn = Command::new("sh")
            .args(["-c", &script, "sh", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .args(["--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--system-call-filter=bpf"])
            .arg(format!("--machine={name}"))
            .arg("--directory")
            .arg(copy.path())
            .arg("systemd.log_color=0")
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let mut machine = Self { name: name.to_owned(), nspawn, leader: 0, cgroups, tree: copy };
        let start = Instant::now();
        while machine.leader == 0 {
            machine.leader = children(machine.nspawn.id()).into_iter().find(|id| is_first(*id)).unwrap_or(0);
            if machine.nspawn.try_wait().unwrap().is_some() {
                let said = machine.console();
                let refused = ["Operation not permitted", "Permission denied", "Read-only file system"];
                assert!(refused.iter().any(|refusal| said.contains(refusal)), "no container: {said}");
                return Err(said);
            }
            assert!(start.elapsed() < PATIENCE, "no systemd in the container: {}", machine.console());
            look_again();
        }
        machine.wait("it has booted", |machine| {
            matches!(machine.run(&["systemctl", "is-system-running"]).trim(), "running" | "degraded")
        });
        Ok(machine)
    }

    /// A command inside.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["-t", &self.leader.to_string(), "-a", "--", "env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8"])
            .args(["SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command inside says, whatever becomes of it.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        text(&self.command(arguments))
    }

    /// What a command inside says, which must succeed.
    #[track_caller]
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output), self.journal());
        text(&output)
    }

    pub(crate) fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "-P", name, "tenantry"]).trim().to_owned()
    }

    pub(crate) fn journal(&self) -> String {
        self.run(&["journalctl", "-u", "tenantry", "--no-pager", "-n", "60", "-o", "cat"])
    }

    /// The entries of the service with this field.
    pub(crate) fn entries(&self, field: &str) -> Vec<Value> {
        let lines = self.run(&["journalctl", "-u", "tenantry", "--no-pager", "-o", "json", field]);
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(self.nspawn.try_wait().unwrap().is_none(), "the container has ended: {}", self.console());
            assert!(start.elapsed() < PATIENCE, "not so: {what}\n{}\n{}", self.console(), self.journal());
            look_again();
        }
    }

    #[track_caller]
    pub(crate) fn wait_state(&mut self, state: &str) {
        self.wait(state, |machine| machine.property("ActiveState") == state);
    }

    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.tree.path().join("console.log")).unwrap_or_default()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.tree.path().join("etc/tenantry/tenantry.toml")
    }

    /// The service's process, by its id on this host.
    pub(crate) fn service(&self) -> u32 {
        let inside = self.property("MainPID");
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|id| namespace_of(*id) == namespace_of(self.leader))
            .find(|id| ids(*id).last() == Some(&inside))
            .expect("the service's process")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.leader == 0 {
            _ = self.nspawn.kill();
        } else {
            // The first real-time signal is 34 with glibc; the fourth after it powers a systemd off.
            _ = Command::new("kill").args(["-38", &self.leader.to_string()]).status();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) && !matches!(self.nspawn.try_wait(), Ok(Some(_)) | Err(_)) {
            look_again();
        }
        _ = self.nspawn.kill();
        _ = self.nspawn.wait();
        for cgroup in &self.cgroups {
            _ = Command::new("find").arg(cgroup).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
        }
        _ = fs::remove_dir_all(Path::new("/run/systemd/nspawn/propagate").join(&self.name));
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "no runtime is here whose time could be used")]
fn look_again() {
    std::thread::sleep(Duration::from_millis(50));
}

fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A process's ids, from the outermost namespace to its own.
fn ids(of: u32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn is_first(id: u32) -> bool {
    let ids = ids(id);
    ids.len() > 1
        && ids.last().is_some_and(|id| id == "1")
        && fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == "systemd")
}

fn namespace_of(id: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{id}/ns/pid")).ok()
}

pub(crate) fn put(path: PathBuf, mode: u32, content: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The trees that CI has made.
pub(crate) fn trees() -> Option<PathBuf> {
    let trees = std::env::var_os("TENANTRY_TEST_TREES").map(PathBuf::from);
    if trees.is_none() {
        skip("TENANTRY_TEST_TREES names no trees to boot; `just trees` makes them, as root");
    }
    trees
}
