//! What a process in the unit's sandbox can do: `tests/fixtures/sandbox-probe` runs in the service's place.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::machine::{Machine, put};

/// The only name that is known outside, and the same as a question of DNS carries it.
const HOST: (&str, &[u8]) = ("tenantry.example", b"\x08tenantry\x07example\0");

/// What no process of the service may do.
const DENIED: &[&str] = &[
    "read /home",
    "read /root",
    "read /tmp of others",
    "read a key that is not handed over",
    "write /usr",
    "write /etc",
    "write /srv",
    "run a program of its own: /dev/shm",
    "set a set-user-id bit: /dev/shm",
    "run a program of its own: /tmp",
    "set a set-user-id bit: /tmp",
    "run a program of its own: /var/tmp",
    "set a set-user-id bit: /var/tmp",
    "run a program of its own: runtime",
    "set a set-user-id bit: runtime",
    "run a program of its own: state",
    "set a set-user-id bit: state",
    "see the first process",
    "see processes of others",
    "read settings of the kernel",
    "trace a process",
    "have memory that is written and run",
    "load a module",
    "mount",
    "make a namespace: user",
    "make a namespace: mount",
    "make a namespace: net",
    "make a namespace: ipc",
    "make a namespace: uts",
    "make a namespace: cgroup",
    "make a device",
    "open the console",
    "find a device",
    "open a raw socket",
    "open a packet socket",
    "open a netlink socket",
];

/// What the service does.
const ALLOWED: &[&str] = &[
    "read the configuration",
    "read what is handed over",
    "read the store",
    "write the state",
    "write the runtime directory",
    "write /tmp",
    "listen in the runtime directory",
    "listen on loopback",
    "resolve a name",
    "open a TCP connection",
    "complete a TLS handshake",
];

/// A name server and a TLS server on this host's loopback, which the machine shares.
pub(crate) struct Outside {
    /// Where names are resolved; at port 53, since `resolv.conf` knows no other.
    names: Ipv4Addr,
    server: SocketAddr,
    certificate: String,
    /// Both end with it.
    _runtime: Runtime,
}

impl Outside {
    pub(crate) fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([HOST.0.to_owned()]).unwrap().self_signed(&key).unwrap();
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        let (names, server) = runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let server = listener.local_addr().unwrap();
            tokio::spawn(greet(listener, TlsAcceptor::from(Arc::new(config))));
            // Another test may have taken one of these addresses.
            let mut number = 1;
            let (names, socket) = loop {
                let address = Ipv4Addr::new(127, 53, 0, number);
                match UdpSocket::bind((address, 53)).await {
                    Ok(socket) => break (address, socket),
                    Err(error) => assert!(number < 200, "no port for a name server: {error}"),
                }
                number += 1;
            };
            tokio::spawn(resolve(socket));
            (names, server)
        });
        Self { names, server, certificate: certificate.pem(), _runtime: runtime }
    }

    /// Puts into a tree what the probe needs: itself, and what it must not reach though everybody else could.
    pub(crate) fn install(&self, tree: &Path) {
        let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sandbox-probe");
        put(tree.join("opt/probe"), 0o644, fs::read(probe).unwrap());
        put(tree.join("etc/tenantry/outside.pem"), 0o644, &self.certificate);
        put(tree.join("etc/resolv.conf"), 0o644, format!("nameserver {}\n", self.names));
        for home in ["home/somebody", "root"] {
            put(tree.join(home).join("notes"), 0o644, "not for the service\n");
            fs::set_permissions(tree.join(home), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for folder in ["usr/open", "etc/open", "srv/open"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
            fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(0o1777)).unwrap();
        }
        for standing_in in ["content/something", "credentials_app.key"] {
            put(tree.join("opt/unconfined").join(standing_in), 0o644, "here\n");
        }
    }

    /// The service has stopped, and has left a store: the probe takes its place in the unit, and then the place of root,
    /// to whom all of it is allowed that a container allows.
    pub(crate) fn assert_probed(&self, machine: &Machine) {
        let probe = format!("/usr/bin/perl /opt/probe {} {} /etc/tenantry/outside.pem", HOST.0, self.server.port());
        machine.must(&["sh", "-c", "echo 'not for the service' >/tmp/notes; chmod 644 /tmp/notes"]);

        let said = machine.tree.path().join("opt/probe.said");
        let dropped_in = machine.tree.path().join("etc/systemd/system/tenantry.service.d/zz-probe.conf");
        // A shell and the probe's tools may be run, and nothing else is different.
        let instead = format!(
            "[Service]\nType=oneshot\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart={probe}\nExecReload=\n\
             ExecPaths=/usr/bin\nStandardOutput=truncate:/opt/probe.said\n"
        );
        put(dropped_in.clone(), 0o644, instead);
        machine.must(&["systemctl", "daemon-reload"]);
        machine.must(&["systemctl", "start", "tenantry"]);
        fs::remove_file(dropped_in).unwrap();
        machine.must(&["systemctl", "daemon-reload"]);
        let inside = fs::read_to_string(said).unwrap();
        assert_eq!(acts(&inside, "denied: "), DENIED.iter().copied().collect(), "{inside}\n{}", machine.journal());
        assert_eq!(acts(&inside, "allowed: "), ALLOWED.iter().copied().collect(), "{inside}\n{}", machine.journal());

        let folders = ["STATE", "RUNTIME", "CREDENTIALS"].map(|name| format!("{name}_DIRECTORY=/opt/unconfined"));
        let outside = machine.must(&["sh", "-c", &format!("{} exec {probe}", folders.join(" "))]);
        let denied: Vec<_> =
            acts(&outside, "denied: ").into_iter().filter(|act| !MAY_BE_DENIED.contains(act)).collect();
        assert!(denied.is_empty(), "the unit is not why these are denied: {denied:?}\n{outside}");
    }
}

/// The acts of which the probe says this.
fn acts<'a>(said: &'a str, outcome: &str) -> BTreeSet<&'a str> {
    let acts = said.lines().filter_map(|line| line.strip_prefix(outcome));
    acts.map(|act| act.split_once(" (").map_or(act, |(act, _)| act)).collect()
}

/// What a container may deny even to root.
const MAY_BE_DENIED: &[&str] = &["load a module", "make a device"];

/// Says a word to everybody who completes a handshake.
async fn greet(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((connection, _)) = listener.accept().await {
        let handshake = acceptor.accept(connection);
        tokio::spawn(async move {
            // Who only wants to know whether it can connect goes away.
            let Ok(mut stream) = handshake.await else { return };
            _ = stream.write_all(b"well met\n").await;
            _ = stream.shutdown().await;
        });
    }
}

/// Answers questions of DNS: the one name that is known is this host.
async fn resolve(socket: UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question).await {
        // Twelve bytes of header, the name, its type and class.
        let end = 12 + HOST.1.len() + 4;
        let known = length >= end && question[12..end - 4].eq_ignore_ascii_case(HOST.1);
        let end = if known { end } else { length };
        let address = known && question[end - 4..end] == [0, 1, 0, 1];
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(address), 0, 0, 0, 0]);
        if address {
            // The name of the question, an address, for a minute.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        _ = socket.send_to(&answer, from).await;
    }
}
