//! `[network]`: how other hosts are reached, and whose certificates are believed.
//!
//! Each key that the configuration does not set is what the environment says (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`),
//! as curl and others read it; what a key overrules is told. `HTTP_PROXY` has no meaning here: plain HTTP is for clouds on
//! this very host.
//!
//! **Invariant:** the address of a [`Proxy`] has no credentials in it, so that it can be shown.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::credentials::{Name, read, secret_file};
use super::merged::{At, Merged, Table};
use super::problem::{Findings, Place};
use crate::secret::Secret;
use crate::tls::Authorities;

/// This very host, whatever it is called, and where a virtual machine asks who it is.
const NEVER: &str = "localhost,127.0.0.0/8,::1,169.254.169.254";

/// The words of `proxy` that are no address.
pub(super) const ENVIRONMENT: &str = "environment";
pub(super) const OFF: &str = "off";

/// `[network]`, with what the environment says where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// How other hosts are reached; directly if `None`.
    pub proxy: Option<Proxy>,
    /// That there is none was written, whatever the environment says.
    pub off: bool,
    /// Whom to believe beside those whom this host believes.
    pub roots: Option<Roots>,
    /// What the environment says in vain, each variable with the key that overrules it.
    pub overruled: Vec<(String, &'static str)>,
}

/// A proxy, and for whom it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is; nothing in it is secret.
    pub address: Url,
    /// What it is shown.
    pub credentials: Option<ProxyCredentials>,
    /// What names it.
    pub from: Setting,
    /// The hosts that are reached directly, as they are written.
    pub direct: Vec<String>,
    /// What names those.
    pub direct_from: Setting,
}

/// Who we are to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// The name.
    pub user: Secret,
    /// The password.
    pub password: Secret,
    /// The file that they stand in, if they do.
    pub file: Option<PathBuf>,
}

/// Certificates of CAs that are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// They.
    pub authorities: Authorities,
    /// The file that they stand in.
    pub file: PathBuf,
}

/// What a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// This key of `[network]`.
    Key(&'static str),
    /// This variable of the environment.
    Variable(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "`{key}` under `[network]`"),
            Self::Variable(variable) => write!(f, "the environment variable {variable}"),
        }
    }
}

/// How a host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'n> {
    /// Directly, and not for a proxy's sake.
    Direct,
    /// Directly: it is this very host, or asked by plain HTTP, which is for this host only.
    Here,
    /// Directly, past this proxy, as its list wants it.
    Past(&'n Proxy),
    /// Through this proxy.
    Through(&'n Proxy),
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("directly"),
            Self::Here => f.write_str("directly, since it is this very host"),
            Self::Past(proxy) => write!(f, "directly, by {}", proxy.direct_from),
            Self::Through(proxy) => write!(f, "through {}, by {}", proxy.shown(), proxy.from),
        }
    }
}

impl Network {
    /// How `url` is reached.
    #[must_use]
    pub fn route(&self, url: &Url) -> Route<'_> {
        let Some(proxy) = &self.proxy else { return Route::Direct };
        // One that cannot be asked about is no address that is ever asked.
        let uri = url.as_str().parse().unwrap_or_default();
        let goes = |direct: &str| {
            Matcher::builder().https(proxy.address.as_str()).no(direct).build().intercept(&uri).is_some()
        };
        if !goes(NEVER) {
            Route::Here
        } else if !goes(&proxy.past()) {
            Route::Past(proxy)
        } else {
            Route::Through(proxy)
        }
    }
}

impl Proxy {
    /// As people write it.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.address.as_str().trim_end_matches('/')
    }

    /// The hosts that are not reached through it, separated by commas.
    #[must_use]
    pub fn past(&self) -> String {
        self.direct.iter().map(String::as_str).chain([NEVER]).collect::<Vec<_>>().join(",")
    }
}

/// What `[network]` and the environment say.
pub(super) fn network(merged: &Merged, environment: &Variables, findings: &mut Findings) -> Network {
    let table = merged.section("network");
    let mut overruled = Vec::new();
    let named = proxy(&table, environment, &mut overruled, findings);
    let direct = direct(&table, environment, &mut overruled, findings);
    let credentials = credentials(&table, findings);
    let proxy = named.map(|(address, known, from)| {
        let (direct, direct_from) = direct.unwrap_or((Vec::new(), Setting::Key("no_proxy")));
        Proxy { address, credentials: credentials.or(known), from, direct, direct_from }
    });
    Network { proxy, off: table.is_word("proxy", OFF), roots: roots(&table, findings), overruled }
}

/// The variables that have a say.
#[derive(Debug, Default)]
pub(super) struct Variables {
    proxy: Option<(String, OsString)>,
    direct: Option<(String, OsString)>,
}

impl Variables {
    /// Of two names for the same, the first that is set counts, even if it is empty.
    pub(super) fn of(environment: &[(OsString, OsString)]) -> Self {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| {
                let (_, value) = environment.iter().find(|(found, _)| found == name)?;
                Some(((*name).to_owned(), value.clone()))
            })
        };
        let said = |found: Option<(String, OsString)>| {
            found.filter(|(_, value)| !value.as_encoded_bytes().trim_ascii().is_empty())
        };
        Self {
            proxy: said(first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])),
            direct: said(first(&["NO_PROXY", "no_proxy"])),
        }
    }
}

type Named = (Url, Option<ProxyCredentials>, Setting);

fn proxy(
    table: &Table<'_>,
    environment: &Variables,
    overruled: &mut Vec<(String, &'static str)>,
    findings: &mut Findings,
) -> Option<Named> {
    let written = table.text("proxy", findings);
    if table.has("proxy") && !table.is_word("proxy", ENVIRONMENT) {
        overruled.extend(environment.proxy.iter().map(|(variable, _)| (variable.clone(), "proxy")));
        let At { value, place } = written?;
        if value == OFF {
            return None;
        }
        let told = match address(&value) {
            Ok((address, None)) => return Some((address, None, Setting::Key("proxy"))),
            Ok((_, Some(_))) => {
                "there is a name or a password in it; write `user:password` to a file, name that as \
                 `proxy_credentials_file`, and leave it out here"
            }
            Err(told) => told,
        };
        findings.problem(&place, &table.key("proxy"), told);
        return None;
    }
    let (variable, value) = environment.proxy.as_ref()?;
    match value.to_str().ok_or(NO_ADDRESS).and_then(address) {
        Ok((address, credentials)) => Some((address, credentials, Setting::Variable(variable.clone()))),
        Err(told) => {
            findings.problem(&Place::Environment { variable: variable.clone() }, "", told);
            None
        }
    }
}

const NO_ADDRESS: &str = "it is not the address of a proxy; write it as `http://host:port`";

/// A proxy's address, and what it is shown. The text is not repeated in an error: there may be a password in it.
fn address(text: &str) -> Result<(Url, Option<ProxyCredentials>), &'static str> {
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|_| NO_ADDRESS)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("only HTTP proxies are known; write it as `http://host:port`");
    }
    if !url.has_host() || !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(NO_ADDRESS);
    }
    let decoded = |text: &str| Secret::from(decoded(text));
    let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| ProxyCredentials {
        user: decoded(url.username()),
        password: decoded(url.password().unwrap_or_default()),
        file: None,
    });
    // It has a host, so that both can be removed.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok((url, credentials))
}

/// The text without its `%xx`.
fn decoded(text: &str) -> String {
    // A form's value is the same but for `+`.
    let pair = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn credentials(table: &Table<'_>, findings: &mut Findings) -> Option<ProxyCredentials> {
    let At { value: file, place } = table.path("proxy_credentials_file", findings)?;
    let key = table.key("proxy_credentials_file");
    let text = secret_file(&file, &place, &key, findings)?;
    let Some((user, password)) = text.expose().split_once(':').filter(|(user, _)| !user.is_empty()) else {
        findings.problem(&place, &key, format!("`{}` must hold one line, `user:password`", file.display()));
        return None;
    };
    if text.expose().contains(char::is_control) {
        findings.problem(&place, &key, format!("`{}` holds more than one line; leave `user:password`", file.display()));
        return None;
    }
    let (user, password) = (Secret::from(user.to_owned()), Secret::from(password.to_owned()));
    Some(ProxyCredentials { user, password, file: Some(file) })
}

fn direct(
    table: &Table<'_>,
    environment: &Variables,
    overruled: &mut Vec<(String, &'static str)>,
    findings: &mut Findings,
) -> Option<(Vec<String>, Setting)> {
    if !table.has("no_proxy") {
        let (variable, value) = environment.direct.as_ref()?;
        let hosts = value.to_string_lossy();
        let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned);
        return Some((hosts.collect(), Setting::Variable(variable.clone())));
    }
    overruled.extend(environment.direct.iter().map(|(variable, _)| (variable.clone(), "no_proxy")));
    let key = table.key("no_proxy");
    let hosts = table.texts("no_proxy", findings)?;
    let mut taken = Vec::new();
    // A variable's text is a list as it is in `NO_PROXY`.
    let apart = |At { value, place }: At<String>| {
        value.split(',').map(|part| (part.trim().to_owned(), place.clone())).collect::<Vec<_>>()
    };
    for (host, place) in hosts.value.into_iter().flat_map(apart) {
        if let Some(instead) = not_a_host(&host) {
            findings.problem(&place, &key, format!("`{host}` is no host; {instead}"));
        }
        taken.push(host);
    }
    Some((taken, Setting::Key("no_proxy")))
}

/// What to write instead of something that would never match.
fn not_a_host(text: &str) -> Option<String> {
    let wanted = || {
        "write a host or a domain such as `internal.example`, an address, or a network such as `10.0.0.0/8`".to_owned()
    };
    if text == "*" || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    if let Some((address, length)) = text.split_once('/') {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return Some(wanted()),
        };
        return (!length.parse::<u8>().is_ok_and(|length| length <= most)).then(wanted);
    }
    if let Some(domain) = text.strip_prefix("*.") {
        return Some(format!("write `{domain}`, which also means all hosts under it"));
    }
    let domain = text.strip_prefix('.').unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_domain = domain.chars().all(plain) && matches!(Host::parse(domain), Ok(Host::Domain(_)));
    (!is_domain).then(wanted)
}

fn roots(table: &Table<'_>, findings: &mut Findings) -> Option<Roots> {
    let At { value: file, place } = table.path("root_certificates_file", findings)?;
    let key = table.key("root_certificates_file");
    let bytes = read(&file, Name::Path, false, &place, &key, findings)?;
    match Authorities::from_pem(&bytes) {
        Ok(authorities) => Some(Roots { authorities, file }),
        Err(error) => {
            findings.problem(&place, &key, format!("`{}`: {error}", file.display()));
            None
        }
    }
}

impl Network {
    /// The keys that name files, with their files.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let credentials = self.proxy.as_ref().and_then(|proxy| proxy.credentials.as_ref()?.file.as_deref());
        [
            ("proxy_credentials_file", credentials),
            ("root_certificates_file", self.roots.as_ref().map(|roots| roots.file.as_path())),
        ]
        .into_iter()
        .filter_map(|(key, file)| Some((key, file?)))
    }
}
