//! The configuration files that are shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::*;
use crate::cloud::PRESETS;

/// The text with every key switched on that stands behind a `#`.
fn switched_on(text: &str) -> String {
    let key = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
            .map(str::to_owned)
    };
    text.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn the_shipped_file_has_every_key_at_its_default() {
    let text = std::fs::read_to_string(shipped().join("tenantry.toml")).unwrap();
    let folder = Folder::with(&text);
    assert_eq!(folder.load().unwrap().collect, Collect::default(), "as it is shipped, it changes nothing");

    let all: toml::Table = switched_on(&text).parse().unwrap();
    let keys = |value: &toml::Value| value.as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut found = BTreeMap::new();
    for (name, value) in &all {
        let keys = match value {
            toml::Value::Array(entries) => keys(&entries[0]),
            table if table.get("NAME").is_some() => keys(&table["NAME"]),
            table => keys(table),
        };
        found.insert(name.as_str(), keys);
    }
    let known: BTreeMap<_, _> = schema::SECTIONS
        .iter()
        .map(|section| (section.name, section.keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>()))
        .collect();
    assert_eq!(found, known);

    // Apps, tenants and clouds have no defaults to compare; the rest is loaded with every key set.
    let how: toml::Table = all
        .into_iter()
        .filter(|(name, _)| {
            ["network", "token", "collect", "dlp", "store", "log", "daemon", "operator", "public"]
                .contains(&name.as_str())
        })
        .collect();
    let folder = Folder::with(&how.to_string());
    folder.private("proxy.password", "user:password\n");
    folder.write("roots.pem", &OTHER.certificate);
    folder.private("operator.token", "a token of some length".replace(' ', "-"));
    folder.private("operator.pem", &GOOD.certificate);
    folder.private("operator.key", &GOOD.key);
    folder.private("operators-ca.pem", &OTHER.certificate);
    folder.private("public.pem", &GOOD.certificate);
    folder.private("public.key", &GOOD.key);
    folder.private("webhook.key", "a key of thirty-two characters, no less".replace(' ', "-"));
    // Without an address that Microsoft can reach, the key alone is refused.
    let text = how.to_string().replace("webhook_key_file", "#webhook_key_file");
    assert!(text.contains("#webhook_key_file"), "{text}");
    folder.write("t.toml", text);
    let settings = folder.load().unwrap();
    assert_eq!(Network { roots: None, ..settings.network.clone() }, Network::default());
    assert_eq!(settings.token, TokenSettings::default());
    assert_eq!(settings.collect, Collect::default());
    assert_eq!(settings.dlp, Dlp::default());
    assert_eq!(settings.store, StoreSettings::default());
    assert_eq!(settings.log, Log::default());
    assert_eq!(Operator { token: None, tls: None, ..settings.operator.clone() }, Operator::default());
    // What people are shown and told has no default.
    let Public { listen, flow, .. } = settings.public.clone();
    assert_eq!(Public { listen, flow, ..Public::default() }, Public::default());
    let socket = settings.admin_socket();
    assert_eq!(Daemon { socket: None, ..settings.daemon }, Daemon::default());
    let empty = Folder::with("");
    assert_eq!(socket, empty.load().unwrap().admin_socket(), "the socket's default is the rule's");
}

#[test]
fn every_shipped_example_is_valid_where_its_files_are() {
    let mut clouds = BTreeSet::new();
    let mut folders = vec![shipped().join("examples")];
    let mut examples = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                examples.push(path);
            } else if path.file_name().is_some_and(|name| name != "conf.d") {
                folders.push(path);
            }
        }
    }
    examples.sort();
    for example in examples {
        let folder = Folder::new();
        let mut files = vec![(example.clone(), "t.toml".to_owned())];
        if let Ok(entries) = std::fs::read_dir(example.with_file_name("conf.d")) {
            for entry in entries {
                let path = entry.unwrap().path();
                let name = format!("conf.d/{}", path.file_name().unwrap().to_str().unwrap());
                files.push((path, name));
            }
        }
        for (path, name) in &files {
            let text = std::fs::read_to_string(path).unwrap();
            folder.write(name, &text);
            // What the example names, beside the file that names it.
            let here = Path::new(name).parent().unwrap().to_path_buf();
            for word in text
                .lines()
                .filter(|line| line.contains("_file = "))
                .flat_map(|line| line.split('"').skip(1).step_by(2))
            {
                let content = match Path::new(word).extension().unwrap().to_str().unwrap() {
                    "pem" => format!("{}{}", GOOD.certificate, GOOD.key).into_bytes(),
                    "crt" => GOOD.certificate.clone().into_bytes(),
                    "key" => GOOD.key.clone().into_bytes(),
                    "pfx" => ARCHIVE.clone(),
                    "login" => b"user:password\n".to_vec(),
                    "password" => b"right\n".to_vec(),
                    "secret" => b"hunter2".to_vec(),
                    "token" => b"e30.e30.c2ln".to_vec(),
                    other => panic!("{}: what is a .{other}?", path.display()),
                };
                folder.private(here.join(word).to_str().unwrap(), content);
            }
        }
        let settings = folder.load().unwrap_or_else(|problems| panic!("{}: {problems:#?}", example.display()));
        assert_eq!(settings.warnings, [], "{}", example.display());
        assert!(!settings.tenants.is_empty(), "{}", example.display());
        clouds.extend(settings.tenants.values().map(|tenant| tenant.cloud.name.clone()));
    }
    for preset in PRESETS {
        assert!(clouds.contains(preset), "no example has a tenant in {preset}");
    }
}
