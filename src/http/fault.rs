//! How the way to a service failed: the same words for whoever asked, of the token endpoint or of the API.

use std::error::Error;
use std::io;

use super::trust::Unaccepted;

/// How the way to a service failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The host's name was not resolved.
    Dns,
    /// No connection: refused, unreachable, or not in time.
    Connect,
    /// The proxy would not let us through.
    Proxy,
    /// No TLS: a certificate or protocol that is not accepted.
    Tls,
    /// No answer within the stall or total limit.
    NoAnswer,
    /// The answer began and then stood still for the stall limit, or took longer than the total limit.
    Stalled,
    /// The connection was reset or ended before the answer was complete.
    BrokenOff,
    /// What came was not HTTP as we understand it.
    Protocol,
}

impl Fault {
    /// The stable label.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::NoAnswer => "no_answer",
            Self::Stalled => "stalled",
            Self::BrokenOff => "broken_off",
            Self::Protocol => "protocol",
        }
    }

    /// What happened on the way to `host`.
    #[must_use]
    pub fn told(self, host: &str) -> String {
        match self {
            Self::Dns => format!("{host}'s name could not be resolved"),
            Self::Connect => format!("no connection to {host}"),
            Self::Proxy => format!("the proxy did not connect us to {host}"),
            Self::Tls => format!("no TLS connection to {host}"),
            Self::NoAnswer => "no answer in time".to_owned(),
            Self::Stalled => "the answer stood still".to_owned(),
            Self::BrokenOff => "the connection broke off before the answer was complete".to_owned(),
            Self::Protocol => "the answer is not HTTP".to_owned(),
        }
    }

    /// What to do if it does not pass.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Dns => "check this host's name resolution, and the name of the host",
            Self::Connect => "check that this host may connect there (firewall, route, proxy)",
            Self::Proxy => {
                "check the proxy that `tenantry check` names: its address, the credentials for it, and that it lets \
                 this host through"
            }
            Self::Tls => {
                "if something on the way opens TLS, name its CA in `root_certificates_file` under `[network]`; else \
                 check this host's root certificates and its clock"
            }
            Self::NoAnswer | Self::Stalled | Self::BrokenOff | Self::Protocol => "",
        }
    }

    /// What `error` means. Where in the exchange it came decides what a timeout or an end means.
    #[must_use]
    pub fn of(error: &reqwest::Error, in_body: bool) -> Self {
        if error.is_timeout() {
            return match (error.is_connect(), in_body) {
                (true, _) => Self::Connect,
                (false, false) => Self::NoAnswer,
                (false, true) => Self::Stalled,
            };
        }
        let mut source = error.source();
        let mut fault = None;
        while let Some(cause) = source {
            let text = cause.to_string().to_ascii_lowercase();
            if text.starts_with("dns error") || text.contains("failed to lookup address") {
                return Self::Dns;
            }
            if text.contains("certificate") || text.contains("tls") || text.contains("handshake") {
                return Self::Tls;
            }
            if text.contains("proxy") || text.contains("tunnel") {
                return Self::Proxy;
            }
            let mut io = cause.downcast_ref::<io::Error>();
            while let Some(error_below) = io {
                fault = match error_below.kind() {
                    io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    | io::ErrorKind::AddrNotAvailable => Some(Self::Connect),
                    io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof => Some(Self::BrokenOff),
                    io::ErrorKind::TimedOut => Some(if in_body { Self::Stalled } else { Self::NoAnswer }),
                    // While connecting, only TLS has data that can be wrong.
                    io::ErrorKind::InvalidData if error.is_connect() => Some(Self::Tls),
                    _ => fault,
                };
                // An I/O error's source leaves out what it wraps.
                io = error_below.get_ref().and_then(|inner| inner.downcast_ref());
            }
            if text.contains("connection closed before message completed") || text.contains("end of file before") {
                fault = Some(Self::BrokenOff);
            }
            source = cause.source();
        }
        match fault {
            Some(fault) => fault,
            None if error.is_connect() => Self::Connect,
            None if in_body => Self::BrokenOff,
            None => Self::Protocol,
        }
    }
}

/// What the lowest layer says: "connection refused" says more than "error sending request".
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> Option<String> {
    let chain = || std::iter::successors(error.source(), |error| (*error).source());
    for cause in chain() {
        if let Some(unaccepted) = unaccepted(cause) {
            return Some(unaccepted.to_string());
        }
    }
    let last = chain().last()?.to_string();
    let tunnel = chain().find_map(|cause| cause.to_string().strip_prefix("tunnel error: ").map(str::to_owned));
    // The words of the tunnel's code are for those who wrote it.
    Some(match tunnel.as_deref() {
        Some("proxy authorization required") => "it wants credentials, or others than it was shown (407)".to_owned(),
        Some("unsuccessful") => "it refuses".to_owned(),
        Some("unexpected end of file") => "it hung up".to_owned(),
        Some("failed to create underlying connection") => format!("it cannot be reached: {last}"),
        _ => last,
    })
}

fn unaccepted<'e>(cause: &'e (dyn Error + 'static)) -> Option<&'e Unaccepted> {
    if let Some(found) = Unaccepted::within(cause) {
        return Some(found);
    }
    // An I/O error's source leaves out what it wraps.
    unaccepted(cause.downcast_ref::<io::Error>()?.get_ref()?)
}
