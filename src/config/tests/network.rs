//! `[network]`: proxies, who is reached past them, and further roots.

use super::*;
use crate::clock::{Clock as _, SystemClock};

fn with(network: &str) -> Folder {
    let folder = Folder::with(&format!("{APP}{TENANT}[network]\n{network}"));
    folder.private("proxy.password", "user:p@ss:w+rd\n");
    folder.write("roots.pem", format!("{}{}", GOOD.certificate, OTHER.certificate));
    folder
}

/// How these settings reach a host.
fn route(settings: &Settings, url: &str) -> String {
    settings.network.route(&url.parse().unwrap()).to_string()
}

const LOGIN: &str = "https://login.microsoftonline.com/";

#[test]
fn the_configuration_comes_before_the_environment_key_by_key() {
    let environment = [("HTTPS_PROXY", "http://e:s3cret@env.example:1"), ("NO_PROXY", ".office.com, other.example")];
    let manage = "https://manage.office.com/";
    let (by_key, by_variable) = ("`proxy` under `[network]`", "the environment variable HTTPS_PROXY");
    for (network, environment, login, office, overruled) in [
        ("", &[][..], "directly".to_owned(), "directly".to_owned(), &[][..]),
        (
            "",
            &environment,
            format!("through http://env.example:1, by {by_variable}"),
            "directly, by the environment variable NO_PROXY".to_owned(),
            &[],
        ),
        (
            "proxy = \"own.example:3128\"",
            &environment,
            format!("through http://own.example:3128, by {by_key}"),
            "directly, by the environment variable NO_PROXY".to_owned(),
            &["proxy"],
        ),
        (
            "proxy = \"http://own.example:3128\"\nno_proxy = [\"login.microsoftonline.com\"]",
            &environment,
            "directly, by `no_proxy` under `[network]`".to_owned(),
            format!("through http://own.example:3128, by {by_key}"),
            &["proxy", "no_proxy"],
        ),
        ("proxy = \"off\"", &environment, "directly".to_owned(), "directly".to_owned(), &["proxy"]),
        (
            "proxy = \"environment\"\nno_proxy = []",
            &environment,
            format!("through http://env.example:1, by {by_variable}"),
            format!("through http://env.example:1, by {by_variable}"),
            &["no_proxy"],
        ),
    ] {
        let folder = with(network);
        let settings = folder.load_with(environment).unwrap_or_else(|problems| panic!("{network}: {problems:?}"));
        assert_eq!((route(&settings, LOGIN), route(&settings, manage)), (login, office), "{network}");
        let told: Vec<_> = settings.network.overruled.iter().map(|(_, key)| *key).collect();
        assert_eq!(told, overruled, "{network}");
        let text = format!("{:?} {}", settings.network, settings.to_toml(SystemClock.now()));
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn this_host_plain_http_and_managed_identities_are_never_proxied() {
    let settings = with("proxy = \"http://own.example:3128\"\nno_proxy = []").load().unwrap();
    for url in [
        "https://localhost:8443/",
        "https://127.1.2.3/",
        "https://[::1]/",
        "http://manage.example/",
        "http://169.254.169.254/metadata/identity/oauth2/token",
        "https://169.254.169.254/",
    ] {
        assert_eq!(route(&settings, url), "directly, since it is this very host", "{url}");
    }
    assert!(route(&settings, LOGIN).starts_with("through "));
}

#[test]
fn what_it_shows_is_a_configuration_again_and_says_how_each_host_is_reached() {
    let folder = with(
        "proxy = \"proxy.example:3128\"\nproxy_credentials_file = \"proxy.password\"\n\
         no_proxy = [\".office.com\", \"10.0.0.0/8\", \"::2\"]\nroot_certificates_file = \"roots.pem\"",
    );
    let settings = folder.load().unwrap();
    let credentials = settings.network.proxy.as_ref().unwrap().credentials.as_ref().unwrap();
    assert_eq!((credentials.user.expose(), credentials.password.expose()), ("user", "p@ss:w+rd"));
    let shown = settings.to_toml(SystemClock.now());
    let shown = shown.split("\n\n").find(|part| part.starts_with("[network]")).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(
        shown,
        format!(
            "[network]\nproxy = \"http://proxy.example:3128\"\nproxy_credentials_file = \"{}\"\n\
             root_certificates_file = \"{}\"\nno_proxy = [\".office.com\", \"10.0.0.0/8\", \"::2\"]\n\
             # believes CN=good\n# believes CN=other\n\
             # https://login.microsoftonline.com is reached through http://proxy.example:3128, by `proxy` under `[network]`\n\
             # https://manage.office.com is reached directly, by `no_proxy` under `[network]`",
            path("proxy.password"),
            path("roots.pem")
        )
    );
    assert_eq!(with(shown.trim_start_matches("[network]\n")).load().unwrap().network, settings.network);
}

#[test]
fn credentials_of_the_environment_are_read_as_others_read_them() {
    let read = |value: &str| {
        let settings = with("").load_with(&[("https_proxy", value)]).unwrap();
        let credentials = settings.network.proxy.unwrap().credentials;
        credentials.map(|found| (found.user.expose().to_owned(), found.password.expose().to_owned()))
    };
    let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
    assert_eq!(read("http://proxy.example:3128"), None);
    assert_eq!(read("u:p%40s%3As+&@proxy.example:3128"), pair("u", "p@s:s+&"));
    assert_eq!(read("https://token@proxy.example"), pair("token", ""));
}

#[test]
fn of_the_variables_the_first_that_is_set_counts() {
    let all =
        |value| [("ALL_PROXY", "http://all.example"), ("HTTPS_PROXY", value), ("HTTP_PROXY", "http://http.example")];
    let folder = with("");
    assert_eq!(route(&folder.load_with(&all(" ")).unwrap(), LOGIN), "directly", "empty is none");
    assert!(
        route(&folder.load_with(&all("https.example")).unwrap(), LOGIN).starts_with("through http://https.example,")
    );
    assert!(route(&folder.load_with(&all("")[..1]).unwrap(), LOGIN).starts_with("through http://all.example,"));
    assert_eq!(route(&folder.load_with(&all("")[2..]).unwrap(), LOGIN), "directly");
    let Err(problems) = folder.load_with(&all("http://user:s3cret@:no")) else { panic!("that is no proxy") };
    assert_eq!(
        problems,
        ["environment variable HTTPS_PROXY: it is not the address of a proxy; write it as `http://host:port`"]
    );
    // What is not used need not be right.
    with("proxy = \"off\"").load_with(&all("http://user:s3cret@:no")).unwrap();
}

#[test]
fn what_is_wrong_is_named_without_what_may_be_secret() {
    for (network, told) in [
        (
            "proxy = \"http://user:s3cret@proxy.example:3128\"",
            "t.toml:7: network.proxy: there is a name or a password in it; write `user:password` to a file, name that as \
             `proxy_credentials_file`, and leave it out here",
        ),
        (
            "proxy = \"socks5://user:s3cret@proxy.example\"",
            "t.toml:7: network.proxy: only HTTP proxies are known; write it as `http://host:port`",
        ),
        (
            "proxy = \"http://proxy.example/s3cret\"",
            "t.toml:7: network.proxy: it is not the address of a proxy; write it as `http://host:port`",
        ),
        (
            "no_proxy = [\"*.office.com\"]",
            "t.toml:7: network.no_proxy: `*.office.com` is no host; write `office.com`, which also means all hosts under it",
        ),
        (
            "no_proxy = [\"https://manage.office.com\"]",
            "t.toml:7: network.no_proxy: `https://manage.office.com` is no host; write a host or a domain such as \
             `internal.example`, an address, or a network such as `10.0.0.0/8`",
        ),
        (
            "no_proxy = [\"10.0.0.0/33\"]",
            "t.toml:7: network.no_proxy: `10.0.0.0/33` is no host; write a host or a domain such as `internal.example`, an \
             address, or a network such as `10.0.0.0/8`",
        ),
        (
            "proxy_credentials_file = \"secret\"",
            "t.toml:7: network.proxy_credentials_file: `secret` must hold one line, `user:password`",
        ),
        (
            "root_certificates_file = \"secret\"",
            "t.toml:7: network.root_certificates_file: `secret`: there is no certificate in it; it must hold a \
             `BEGIN CERTIFICATE` block",
        ),
        (
            "root_certificates_file = \"none.pem\"",
            "t.toml:7: network.root_certificates_file: there is no file `none.pem`; correct the path, or put the file there",
        ),
    ] {
        assert_eq!(with(network).problems(), [told], "{network}");
    }
    let folder = with("proxy_credentials_file = \"two\"");
    folder.private("two", "user:s3cret\nuser:s3cret\n");
    assert_eq!(
        folder.problems(),
        ["t.toml:7: network.proxy_credentials_file: `two` holds more than one line; leave `user:password`"]
    );
}
