//! How an app proves who it is: a certificate, a PKCS#12 file, a secret, or tokens of somebody else; one of them.
//!
//! Files are read and checked here, so that what Entra or the signing library would refuse in the night is refused
//! when the configuration is. Whoever can read a secret is not our business, but that every user of the host can is
//! a warning.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::HeaderValue;
use url::Url;
use zeroize::Zeroizing;

use super::ambient::{self, Ambient};
use super::file::{self, Unread};
use super::merged::{At, Table};
use super::problem::{Findings, Place, Problem};
use super::settings::CredentialFile;
use crate::secret::Secret;
use crate::token::identity::METADATA;
use crate::token::{Certificate, CertificateError, Credential, Federated, Identity, ManagedIdentity, Service, Signing};

/// Secrets and chains of certificates are a few kilobytes.
const LARGEST: u64 = 1 << 20;

/// The folder beside the configuration that the packages' units hand over.
const FOLDER: &str = "credentials";

const WAYS: [(&str, &[&str]); 5] = [
    ("certificate", &["certificate_file", "private_key_file"]),
    ("PKCS#12 file", &["pkcs12_file", "pkcs12_password_file"]),
    ("client secret", &["client_secret_file", "client_secret"]),
    ("federated token file", &["federated_token_file"]),
    ("managed identity", &["managed_identity"]),
];

type Files = Vec<CredentialFile>;
type Variables = Vec<(&'static str, &'static str)>;

/// A credential, and where it was read.
pub(super) struct Loaded {
    pub(super) credential: Credential,
    pub(super) files: Files,
    /// The keys that variables of the platform's filled in, and those.
    pub(super) variables: Variables,
}

/// Loads the credential of the app that `table` describes; the platform's, if it names none.
pub(super) fn load(table: &Table<'_>, ambient: &Ambient, default: Signing, findings: &mut Findings) -> Option<Loaded> {
    let is_named = WAYS.iter().any(|(_, keys)| keys.iter().any(|key| table.has(key)));
    if !is_named && let Some(file) = ambient.get(ambient::TOKEN_FILE) {
        let path = std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file));
        let place = Ambient::place(ambient::TOKEN_FILE);
        let (credential, files) = token_file(path, &place, &table.key("federated_token_file"), findings)?;
        return Some(Loaded { credential, files, variables: vec![("federated_token_file", ambient::TOKEN_FILE)] });
    }
    let mut variables = Variables::new();
    let (credential, files) = named(table, ambient, default, &mut variables, findings)?;
    Some(Loaded { credential, files, variables })
}

fn named(
    table: &Table<'_>,
    ambient: &Ambient,
    default: Signing,
    variables: &mut Variables,
    findings: &mut Findings,
) -> Option<(Credential, Files)> {
    let signing = table.word("signing", &[("PS256", Signing::Ps256), ("RS256", Signing::Rs256)], findings);
    let ways: Vec<_> = WAYS.iter().filter(|(_, keys)| keys.iter().any(|key| table.has(key))).collect();
    match ways.as_slice() {
        [] => {
            findings.missing(
                &table.place,
                &table.path,
                "there is no credential; set `certificate_file` (and `private_key_file` if the key is apart), \
                 `pkcs12_file`, `client_secret_file`, `federated_token_file` or `managed_identity`",
            );
            None
        }
        [("certificate", _)] => certificates(table, signing.map_or(default, |found| found.value), findings),
        [("PKCS#12 file", _)] => pkcs12(table, signing.map_or(default, |found| found.value), findings),
        [(way, _)] => {
            if let Some(signing) = signing {
                let message = format!("a {way} signs nothing; remove this key, or set a certificate");
                findings.problem(&signing.place, &table.key("signing"), message);
            }
            match *way {
                "client secret" => secret(table, findings),
                "managed identity" => managed_identity(table, ambient, variables, findings),
                _ => {
                    let file = table.path("federated_token_file", findings)?;
                    token_file(file.value, &file.place, &table.key("federated_token_file"), findings)
                }
            }
        }
        several => {
            let found: Vec<_> = several
                .iter()
                .filter_map(|(way, keys)| {
                    let key = keys.iter().find(|key| table.has(key))?;
                    Some(format!("a {way} ({})", table.place_of(key)))
                })
                .collect();
            findings.problem(
                &table.place,
                &table.path,
                format!("there are {}; leave only one of them", found.join(" and ")),
            );
            None
        }
    }
}

fn certificates(table: &Table<'_>, signing: Signing, findings: &mut Findings) -> Option<(Credential, Files)> {
    let keys = table.paths("private_key_file", findings);
    if !table.has("certificate_file") {
        let message = "there is a `private_key_file` without its certificate; set `certificate_file`";
        findings.missing(&table.place_of("private_key_file"), &table.key("certificate_file"), message);
    }
    let certificates = table.paths("certificate_file", findings)?;
    if table.has("private_key_file") && keys.is_none() {
        return None;
    }
    let pairs = pair(table, ("certificate_file", "private_key_file"), keys.as_ref(), &certificates, false, findings)?;
    let key_name = table.key("certificate_file");
    let mut list = Vec::new();
    let mut files = Vec::new();
    for (file, key_file) in pairs {
        let read = |path: &Path, secret, findings: &mut Findings| {
            let key = if path == file { "certificate_file" } else { "private_key_file" };
            read(path, Name::Path, secret, &table.place_of(key), &table.key(key), findings)
        };
        let certificate = read(&file, key_file.is_none(), findings);
        let key = key_file.as_deref().map(|path| read(path, true, findings));
        let named = match &key_file {
            Some(key) => format!("`{}` with `{}`", file.display(), key.display()),
            None => format!("`{}`", file.display()),
        };
        let own = files.len();
        files.push(CredentialFile::new("certificate_file", file.clone()));
        files.extend(key_file.clone().map(|file| CredentialFile::new("private_key_file", file)));
        let key = match key {
            Some(None) => continue,
            Some(Some(key)) => Some(key),
            None => None,
        };
        let Some(certificate) = certificate else { continue };
        let loaded = Certificate::from_pem(&certificate, key.as_deref().map(Vec::as_slice));
        let loaded = loaded.map_err(|error| refuse(&error, &named, &certificates.place, &key_name, findings));
        files[own].certificate = loaded.as_ref().ok().map(|certificate| certificate.sha256_hex().to_owned());
        list.extend(loaded);
    }
    whole(list, certificates.value.len(), signing, files)
}

fn pkcs12(table: &Table<'_>, signing: Signing, findings: &mut Findings) -> Option<(Credential, Files)> {
    let passwords = table.paths("pkcs12_password_file", findings);
    if !table.has("pkcs12_file") {
        let message = "there is a `pkcs12_password_file` without what it opens; set `pkcs12_file`";
        findings.missing(&table.place_of("pkcs12_password_file"), &table.key("pkcs12_file"), message);
    }
    let archives = table.paths("pkcs12_file", findings)?;
    if table.has("pkcs12_password_file") && passwords.is_none() {
        return None;
    }
    let pairs = pair(table, ("pkcs12_file", "pkcs12_password_file"), passwords.as_ref(), &archives, true, findings)?;
    let mut list = Vec::new();
    let mut files = Vec::new();
    for (file, password_file) in pairs {
        let bytes = read(&file, Name::Path, true, &archives.place, &table.key("pkcs12_file"), findings);
        let password = match &password_file {
            Some(path) => {
                secret_file(path, &table.place_of("pkcs12_password_file"), &table.key("pkcs12_password_file"), findings)
            }
            None => Some(Secret::from(String::new())),
        };
        let named = format!("`{}`", file.display());
        let own = files.len();
        files.push(CredentialFile::new("pkcs12_file", file));
        files.extend(password_file.map(|file| CredentialFile::new("pkcs12_password_file", file)));
        let (Some(bytes), Some(password)) = (bytes, password) else { continue };
        let loaded = Certificate::from_pkcs12(&bytes, &password);
        let key = table.key("pkcs12_file");
        let loaded = loaded.map_err(|error| refuse(&error, &named, &archives.place, &key, findings));
        files[own].certificate = loaded.as_ref().ok().map(|certificate| certificate.sha256_hex().to_owned());
        list.extend(loaded);
    }
    whole(list, archives.value.len(), signing, files)
}

fn secret(table: &Table<'_>, findings: &mut Findings) -> Option<(Credential, Files)> {
    if table.has("client_secret") && table.has("client_secret_file") {
        let (file, inline) = (table.place_of("client_secret_file"), table.place_of("client_secret"));
        let message = format!("set either `client_secret` ({inline}) or `client_secret_file` ({file}), not both");
        findings.problem(&inline, &table.path, message);
        return None;
    }
    if let Some(path) = table.path("client_secret_file", findings) {
        let key = table.key("client_secret_file");
        let secret = secret_file(&path.value, &path.place, &key, findings)?;
        warn_of_id(&secret, &path.place, &key, findings);
        return Some((Credential::Secret(secret), vec![CredentialFile::new("client_secret_file", path.value)]));
    }
    let text = table.text("client_secret", findings)?;
    let secret = Secret::from(text.value);
    warn_of_id(&secret, &text.place, &table.key("client_secret"), findings);
    if let Place::File { path, .. } = &text.place
        && readable_by_all(path)
    {
        let message = format!(
            "it stands in `{}`, which every user of this host can read; `chmod o-r` the file, or use `client_secret_file`",
            path.display()
        );
        findings.warn(&text.place, &table.key("client_secret"), message);
    }
    Some((Credential::Secret(secret), Vec::new()))
}

/// A file that something else writes, and may not have written yet: what is wrong with its content is told when it is used.
fn token_file(path: PathBuf, place: &Place, key: &str, findings: &mut Findings) -> Option<(Credential, Files)> {
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => {
            findings.problem(place, key, format!("`{}` is a folder; name the file in it", path.display()));
            return None;
        }
        Ok(_) => {}
        Err(error) => {
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => "is not there".to_owned(),
                std::io::ErrorKind::PermissionDenied => "may not be read".to_owned(),
                _ => format!("cannot be read ({error})"),
            };
            let message =
                format!("`{}` {what}; until it can be read, no tenant of the app gets a token", path.display());
            findings.warn(place, key, message);
        }
    }
    let file = CredentialFile::new("federated_token_file", path.clone());
    Some((Credential::Federated(Federated::File(path)), vec![file]))
}

fn managed_identity(
    table: &Table<'_>,
    ambient: &Ambient,
    variables: &mut Variables,
    findings: &mut Findings,
) -> Option<(Credential, Files)> {
    let identity = table.parsed("managed_identity", findings, str::parse::<Identity>)?.value;
    let mut address = |variable: &'static str, text: &str| match Url::parse(text) {
        Ok(url) if url.has_host() && matches!(url.scheme(), "http" | "https") => Some(url),
        _ => {
            let message = "it is no address; write it as `http://HOST:PORT`";
            findings.problem(&Ambient::place(variable), &table.key("managed_identity"), message);
            None
        }
    };
    let endpoint = ambient.get(ambient::IDENTITY_ENDPOINT).zip(ambient.get(ambient::IDENTITY_HEADER));
    let service = if let Some((endpoint, header)) = endpoint {
        let endpoint = address(ambient::IDENTITY_ENDPOINT, endpoint)?;
        let Ok(mut header) = HeaderValue::from_str(header) else {
            let message = "it has characters that no header has";
            findings.problem(&Ambient::place(ambient::IDENTITY_HEADER), &table.key("managed_identity"), message);
            return None;
        };
        header.set_sensitive(true);
        variables.push(("managed_identity", ambient::IDENTITY_ENDPOINT));
        Service::AppService(endpoint, header)
    } else if let Some(host) = ambient.get(ambient::METADATA_HOST) {
        variables.push(("managed_identity", ambient::METADATA_HOST));
        Service::Metadata(address(ambient::METADATA_HOST, host)?)
    } else {
        Service::Metadata(address("", METADATA)?)
    };
    Some((Credential::Federated(Federated::Identity(Arc::new(ManagedIdentity::new(identity, service)))), Files::new()))
}

/// The portal shows a secret's id for as long as it exists and its value only once.
fn warn_of_id(secret: &Secret, place: &Place, key: &str, findings: &mut Findings) {
    if uuid::Uuid::try_parse(secret.expose()).is_ok() {
        let message = "the secret is a GUID: that is its id in the portal; write its value";
        findings.warn(place, key, message);
    }
}

/// Goes along with each file: the one at the same place of the other list, or (if `shared`) the only one.
fn pair(
    table: &Table<'_>,
    (files_key, key): (&str, &str),
    others: Option<&At<Vec<PathBuf>>>,
    files: &At<Vec<PathBuf>>,
    shared: bool,
    findings: &mut Findings,
) -> Option<Vec<(PathBuf, Option<PathBuf>)>> {
    let count = files.value.len();
    let others: Vec<Option<PathBuf>> = match others {
        None => vec![None; count],
        Some(others) if others.value.len() == count => others.value.iter().cloned().map(Some).collect(),
        Some(others) if shared && others.value.len() == 1 => vec![others.value.first().cloned(); count],
        Some(others) => {
            let files = |count| format!("{count} {}", if count == 1 { "file" } else { "files" });
            let message = format!(
                "it names {}, and `{files_key}` names {}; write one for each, in the same order",
                files(others.value.len()),
                files(count)
            );
            findings.problem(&others.place, &table.key(key), message);
            return None;
        }
    };
    Some(files.value.iter().cloned().zip(others).collect())
}

/// The credential, if every one of the files could be used.
fn whole(list: Vec<Certificate>, wanted: usize, signing: Signing, files: Files) -> Option<(Credential, Files)> {
    if list.len() < wanted {
        return None;
    }
    Some((Credential::certificates(list.into_iter().map(Arc::new).collect(), signing)?, files))
}

fn refuse(error: &CertificateError, named: &str, place: &Place, key: &str, findings: &mut Findings) {
    findings.problem(place, key, format!("{named}: {error}"));
}

/// A secret that a file holds: its text without what editors add, a byte order mark and the ends of lines.
pub(super) fn secret_file(path: &Path, place: &Place, key: &str, findings: &mut Findings) -> Option<Secret> {
    let bytes = read(path, Name::PerhapsSecret, true, place, key, findings)?;
    let shown = path.display();
    let Ok(text) = std::str::from_utf8(&bytes) else {
        let found = if file::is_utf16(&bytes) { "UTF-16" } else { "not UTF-8" };
        findings.problem(place, key, format!("`{shown}` is {found}; write the secret as text in UTF-8"));
        return None;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        let found = if text.is_empty() { "is empty" } else { "holds nothing but blanks" };
        findings.problem(place, key, format!("`{shown}` {found}; write the secret into it"));
        return None;
    }
    if text.trim() != text {
        let message = format!("the secret in `{shown}` begins or ends with a blank; is that meant?");
        findings.warn(place, key, message);
    }
    Some(Secret::from(text.to_owned()))
}

/// The copy of a file that systemd has made for the service, where only root may read the file itself:
/// `LoadCredential=credentials:/etc/tenantry/credentials` hands over `credentials/NAME` as `credentials_NAME`.
fn passed_by_systemd(path: &Path) -> Option<PathBuf> {
    copy_in(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?), path)
}

fn copy_in(passed: &Path, path: &Path) -> Option<PathBuf> {
    let (folder, name) = (path.parent()?.file_name()?, path.file_name()?);
    (folder == FOLDER).then(|| passed.join(format!("{FOLDER}_{}", name.to_string_lossy())))
}

fn is_newer(path: &Path, copy: &Path) -> bool {
    let changed = |path| std::fs::metadata(path).and_then(|meta| meta.modified());
    changed(path).ok().zip(changed(copy).ok()).is_some_and(|(original, copy)| original > copy)
}

/// What a file's name may be, if there is no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A name.
    Path,
    /// The secret itself, written where its file's name belongs.
    PerhapsSecret,
}

/// A file's bytes; warns if they are `secret` and every user of the host can read them.
pub(super) fn read(
    path: &Path,
    name: Name,
    secret: bool,
    place: &Place,
    key: &str,
    findings: &mut Findings,
) -> Option<Zeroizing<Vec<u8>>> {
    let read = file::read(path, LARGEST).or_else(|unread| match (unread, passed_by_systemd(path)) {
        (Unread::Denied, Some(passed)) => {
            if is_newer(path, &passed) {
                let message = format!("`{}` has changed; systemd hands it over with a restart", path.display());
                findings.warn(place, key, message);
            }
            file::read(&passed, LARGEST)
        }
        (unread, _) => Err(unread),
    });
    let shown = path.display();
    let message = match read {
        Ok(bytes) => {
            if secret && readable_by_all(path) {
                let message = format!("every user of this host can read `{shown}`; `chmod o-r {shown}`");
                findings.warn(place, key, message);
            }
            return Some(bytes);
        }
        Err(Unread::Missing) if name == Name::PerhapsSecret => not_there(path, place, key),
        Err(Unread::Missing) => format!("there is no file `{shown}`; correct the path, or put the file there"),
        Err(Unread::Dangling) => format!("`{shown}` is a link to a file that is not there; put the file there"),
        Err(Unread::Denied) => {
            let message = format!("`{shown}` may not be read; let the user that runs tenantry read it");
            findings.problems.push(Problem { permission: true, ..Problem::new(place.clone(), key, message) });
            return None;
        }
        Err(Unread::Special(kind)) => format!("`{shown}` is {kind}; name a file"),
        Err(Unread::TooLarge) => format!("`{shown}` is larger than 1 MiB; is it the right file?"),
        Err(Unread::Failed(error)) => format!("`{shown}` cannot be read: {error}"),
    };
    findings.problem(place, key, message);
    None
}

/// What to say of a file that is not there, whose name is shown only where it cannot be the secret itself.
fn not_there(path: &Path, place: &Place, key: &str) -> String {
    let home = file::home(place.base());
    if file::is_plainly_a_path(path, &home) {
        return format!("there is no file `{}`; correct the path, or put the file there", path.display());
    }
    let instead = match key.rsplit('.').next() {
        Some("client_secret_file") => ", or set `client_secret`",
        _ => "",
    };
    format!(
        "there is no file of the name that is written here (it starts from `{}`); correct the path, or put the file \
         there; if it is the secret itself, write it to a file and name that{instead}",
        home.display()
    )
}

#[cfg(unix)]
fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn readable_by_all(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_credentials_folder_are_handed_over() {
        let copy = |path: &str| copy_in(Path::new("/run/c"), Path::new(path));
        let key = copy("/etc/tenantry/credentials/app.pem");
        assert_eq!(key, Some(PathBuf::from("/run/c/credentials_app.pem")));
        assert_eq!(copy("/etc/tenantry/app.pem"), None);
        assert_eq!(copy("/etc/tenantry/credentials/more/app.pem"), None);
        assert_eq!(copy("app.pem"), None);
    }

    #[test]
    fn what_was_changed_after_it_was_handed_over_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let (original, copy) = (folder.path().join("o"), folder.path().join("c"));
        std::fs::write(&copy, "").unwrap();
        let later = std::fs::metadata(&copy).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        std::fs::File::create(&original).unwrap().set_modified(later).unwrap();
        assert!(is_newer(&original, &copy) && !is_newer(&copy, &original) && !is_newer(&original, &original));
    }
}
