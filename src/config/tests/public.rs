//! The pages' section: what is safe to serve, and what is not.

use super::*;

const URL: &str = "url = \"https://collector.example\"\n";

fn folder() -> Folder {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["collector.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    folder.private("p.pem", [certificate.pem(), key.serialize_pem()].concat());
    folder.private("long.key", "0123456789abcdef0123456789abcdef\n");
    folder.private("short.key", "0123456789abcdef\n");
    folder
}

#[test]
fn nothing_is_served_in_the_clear_and_links_need_an_address() {
    let folder = folder();
    let tls = format!("{URL}certificate_file = \"p.pem\"\n");
    for (keys, expected) in [
        ("listen = \"off\"".to_owned(), None),
        (format!("listen = \"127.0.0.1:8443\"\n{URL}"), None),
        (format!("listen = \"0.0.0.0:443\"\n{tls}"), None),
        (
            "listen = \"127.0.0.1:8443\"".to_owned(),
            Some("public.url: the pages have no address that a customer could open; set `url`"),
        ),
        (
            format!("listen = \"0.0.0.0:443\"\n{URL}"),
            Some("public.listen: `0.0.0.0:443` can be reached from other hosts, and what crosses the network"),
        ),
        (
            format!("{tls}client_ca_file = \"p.pem\""),
            Some("public.client_ca_file: unknown key; it belongs to `[operator]`"),
        ),
        (
            "url = \"http://collector.example\"".to_owned(),
            Some("public.url: `http://collector.example` must begin with"),
        ),
        (format!("listen = \"127.0.0.1:8443\"\n{URL}webhook_key_file = \"long.key\""), None),
        (
            "listen = \"127.0.0.1:8443\"\nurl = \"http://localhost:8443\"\nwebhook_key_file = \"long.key\"".to_owned(),
            Some("public.webhook_key_file: Microsoft sends notifications to an `https` address only"),
        ),
        (
            format!("{URL}webhook_key_file = \"long.key\""),
            Some("public.webhook_key_file: Microsoft sends notifications to an `https` address only: set `listen`"),
        ),
        (
            format!("listen = \"127.0.0.1:8443\"\n{URL}webhook_key_file = \"short.key\""),
            Some("public.webhook_key_file: the key in `short.key` must be 32 characters or more"),
        ),
        ("flow = \"v3\"".to_owned(), Some("public.flow: `v3` is not one of `v2` and `v1`; did you mean")),
        ("organisation = \"a\\nb\"".to_owned(), Some("public.organisation: write a line of text")),
        (
            "listen = \"443\"".to_owned(),
            Some("public.listen: `443` is no address; write one with its port, such as `127.0.0.1:8443`, or `off`"),
        ),
    ] {
        folder.write("t.toml", format!("{APP}{TENANT}[public]\n{keys}\n"));
        let told = match folder.load() {
            Ok(settings) => settings.warnings.iter().map(|warning| folder.told(warning)).collect(),
            Err(problems) => problems,
        };
        assert_eq!(told.len(), usize::from(expected.is_some()), "{keys}: {told:?}");
        assert!(expected.is_none_or(|expected| told[0].contains(expected)), "{keys}: {told:?}");
    }
}
