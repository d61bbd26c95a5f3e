//! What the daemon tells systemd, heard on a notify socket of the test's own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::ptrace;
use nix::unistd::Pid;
use tenantry_simulator::{Effect, Endpoint, ErrorBody, Fault, Scenario, When};

use crate::world::{Daemon, PATIENCE, World, tenant};

/// Systemd's end of the notify socket.
struct Notifications {
    socket: UnixDatagram,
}

impl Notifications {
    fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message for systemd");
        String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// Reads on until a line begins with `wanted`; answers the lines on the way, that one last.
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            for line in self.next() {
                let done = line.starts_with(wanted);
                heard.push(line);
                if done {
                    return heard;
                }
            }
        }
    }

    /// All that has come so far.
    fn drain(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            heard.extend(String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned));
        }
        self.socket.set_nonblocking(false).unwrap();
        heard
    }
}

fn watched(world: &World, watchdog: Duration) -> (Daemon, Notifications) {
    let path = world.dir.path().join("notify");
    let notifications = Notifications::bind(&path);
    let daemon = world.run_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    });
    (daemon, notifications)
}

fn told(lines: &[String], what: &str) -> bool {
    lines.iter().any(|line| line.starts_with(what))
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_that_a_tenant_has_a_token_and_was_listed() {
    let world = World::new(Scenario::new(31).tenant(tenant(1, 3, 1.0)), "");
    let refuse = |on| {
        let effect = Effect::Status { status: 503, body: ErrorBody::Empty, retry_after_s: None };
        world.cloud.control().add_fault(Fault {
            tenant: None,
            on: vec![on],
            content_type: None,
            when: When::Always,
            effect,
        });
    };
    refuse(Endpoint::List);
    let (mut daemon, systemd) = watched(&world, Duration::from_secs(20));
    daemon.wait("it has a token", |status| !status["tenants"][0]["token_until"].is_null()).await;
    daemon.wait("listing fails", |status| !status["tenants"][0]["trouble"].is_null()).await;
    let so_far = systemd.drain();
    assert!(!told(&so_far, "READY=1"), "{so_far:?}");
    assert!(told(&so_far, "EXTEND_TIMEOUT_USEC="), "an opening of a large store may take its time: {so_far:?}");

    world.cloud.control().clear_faults();
    let heard = systemd.until("READY=1");
    assert!(heard.iter().any(|line| line.starts_with("STATUS=collecting from 1 tenant")), "{heard:?}");

    // A reload is told from beginning to end, a refused one with its reason.
    let good = fs::read_to_string(&world.config).unwrap();
    fs::write(&world.config, good.replace("poll_interval", "poll_intervall")).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let heard = systemd.until("RELOADING=1");
    assert!(!told(&heard, "READY=1"), "{heard:?}");
    let heard = systemd.until("READY=1");
    let status = heard.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    assert!(status.contains("refused") && status.contains("poll_intervall"), "{status}");
    fs::write(&world.config, good).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    systemd.until("RELOADING=1");
    let heard = systemd.until("READY=1");
    let status = heard.iter().find(|line| line.starts_with("STATUS=")).unwrap();
    assert!(!status.contains("refused"), "{status}");

    assert!(daemon.stop().await.success());
    systemd.until("STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_the_store_ends_when_it_is_told_to() {
    let world = World::new(Scenario::new(33).tenant(tenant(1, 1, 1.0)), "");
    let mut first = world.run();
    first.wait_collected(&world).await;
    let (mut second, systemd) = watched(&world, Duration::from_secs(20));
    systemd.until("EXTEND_TIMEOUT_USEC=");
    second.signal(nix::sys::signal::Signal::SIGTERM);
    let asked = std::time::Instant::now();
    assert!(second.ended().await.success(), "{}", second.log());
    assert!(asked.elapsed() < Duration::from_secs(25), "it waited for the lock, which the first one keeps");
    systemd.until("STOPPING=1");
    assert!(second.log().contains("stopping before the start is complete"), "{}", second.log());
    assert!(second.log().contains(" INFO stopped"), "{}", second.log());
    assert!(first.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_comes_during_the_start_follows_it() {
    let world = World::new(Scenario::new(34).tenant(tenant(1, 1, 1.0)).tenant(tenant(2, 1, 1.0)), "");
    let named = |numbers: &[u32]| -> Vec<_> {
        numbers.iter().map(|n| (crate::world::tenant_id(*n), format!("tenant-{n}"))).collect()
    };
    world.configure(&named(&[1]), "");
    let first = world.run();
    first.wait_log(" INFO started ").await;
    let (mut second, systemd) = watched(&world, Duration::from_secs(20));
    systemd.until("EXTEND_TIMEOUT_USEC=");
    world.configure(&named(&[1, 2]), "");
    second.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(first.stop().await.success());
    second
        .wait("the new tenant is there", |status| status["tenants"].as_array().is_some_and(|all| all.len() == 2))
        .await;
    assert!(second.log().contains("configuration read again"), "{}", second.log());
    assert!(second.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_only_while_the_writers_turn() {
    let world = World::new(Scenario::new(32).tenant(tenant(1, 3, 1.0)), "");
    let (mut daemon, systemd) = watched(&world, Duration::from_secs(2));
    daemon.wait_collected(&world).await;
    for thread in ["store-content", "store-state"] {
        systemd.drain();
        systemd.until("WATCHDOG=1");
        // A thread that a debugger holds is one that hangs: nothing in the daemon was told of it.
        let id = thread_of(daemon.pid(), thread);
        ptrace::seize(id, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(id).unwrap();
        nix::sys::wait::waitpid(id, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        let before = daemon.log().matches("makes no progress").count();
        let since = tokio::time::Instant::now();
        while daemon.log().matches("makes no progress").count() == before {
            assert!(since.elapsed() < PATIENCE, "{thread}: {}", daemon.log());
            systemd.drain();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // From the complaint on nothing feeds the watchdog, for longer than it waits.
        let quiet = tokio::time::Instant::now() + Duration::from_secs(3);
        let mut heard = systemd.drain();
        while tokio::time::Instant::now() < quiet {
            heard.extend(systemd.drain());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!told(&heard, "WATCHDOG=1"), "{thread}: {heard:?}");
        assert!(daemon.status().await.is_some(), "the rest of the daemon does not notice");
        ptrace::detach(id, None).unwrap();
        systemd.until("WATCHDOG=1");
    }
    assert!(daemon.log().contains("makes progress again"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
}

pub(crate) fn thread_of(process: u32, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let found = tasks
        .map(|task| task.unwrap().path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
    let id = found.unwrap_or_else(|| panic!("no thread `{name}`"));
    Pid::from_raw(id.file_name().unwrap().to_str().unwrap().parse().unwrap())
}
