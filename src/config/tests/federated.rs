//! Apps that prove themselves with tokens of somebody else, and what the platform says of them in the environment.

use super::*;
use crate::token::{Federated, Service};

const CLIENT: &str = "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n";
const IDENTITY: &str = "bbbbbbbb-1111-2222-3333-444444444444";
const PLATFORM: [(&str, &str); 4] = [
    ("AZURE_CLIENT_ID", "cccccccc-1111-2222-3333-444444444444"),
    ("AZURE_TENANT_ID", "dddddddd-1111-2222-3333-444444444444"),
    ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/none"),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
];

fn told(folder: &Folder, settings: &Settings) -> Vec<String> {
    settings.warnings.iter().map(|warning| folder.told(warning)).collect()
}

#[test]
fn a_token_file_need_not_be_there_yet() {
    let folder = Folder::with(&format!("{CLIENT}federated_token_file = \"token\"\n{TENANT}"));
    let settings = folder.load().unwrap();
    let expected = "t.toml:3: app.federated_token_file: `token` is not there; until it can be read, no tenant of the app \
                    gets a token";
    assert_eq!(told(&folder, &settings), [expected]);
    let Credential::Federated(Federated::File(path)) = &settings.apps[""].credential else { panic!() };
    assert_eq!(*path, folder.path().join("token"));
    folder.write("token", "not looked at");
    let again = folder.load().unwrap();
    assert_eq!((again.warnings.as_slice(), &again.apps), (&[][..], &settings.apps));
    let shown = again.to_toml("2026-11-22T12:00:00Z".parse().unwrap());
    assert!(shown.contains(&format!("federated_token_file = \"{}\"\n", path.display())), "{shown}");

    folder.write("folder/file", "");
    folder.write("t.toml", format!("{CLIENT}federated_token_file = \"folder\"\n{TENANT}"));
    let expected = "t.toml:3: app.federated_token_file: `folder` is a folder; name the file in it";
    assert_eq!(folder.problems(), [expected]);
}

#[test]
fn the_platform_fills_in_what_the_app_does_not_say() {
    for (text, client) in [(CLIENT, "aaaaaaaa"), ("[app]\n", "cccccccc"), ("", "cccccccc")] {
        let folder = Folder::with(&format!("{text}{TENANT}"));
        let settings = folder.load_with(&PLATFORM).unwrap();
        let app = &settings.apps[""];
        assert_eq!(&app.client_id[..8], client, "{text}");
        assert_eq!(app.publisher_id.unwrap().to_string(), PLATFORM[1].1);
        let Credential::Federated(Federated::File(path)) = &app.credential else { panic!("{text}") };
        assert_eq!(path.to_str(), Some(PLATFORM[2].1));
        let shown = settings.to_toml("2026-11-22T12:00:00Z".parse().unwrap());
        for words in [
            "federated_token_file = \"/var/run/secrets/azure/none\" # from the environment variable \
             AZURE_FEDERATED_TOKEN_FILE",
            "publisher_id = \"dddddddd-1111-2222-3333-444444444444\" # from the environment variable AZURE_TENANT_ID",
        ] {
            assert!(shown.contains(words), "`{words}` is not in\n{shown}");
        }
        let from_platform = "# from the environment variable AZURE_CLIENT_ID";
        assert_eq!(shown.contains(from_platform), client == "cccccccc", "{shown}");
        assert!(settings.variables.contains("AZURE_FEDERATED_TOKEN_FILE"));
        assert_eq!(settings.variables.contains("AZURE_CLIENT_ID"), client == "cccccccc");
        let expected = "environment variable AZURE_FEDERATED_TOKEN_FILE: app.federated_token_file: \
                        `/var/run/secrets/azure/none` is not there; until it can be read, no tenant of the app gets a token";
        assert_eq!(told(&folder, &settings), [expected], "and the authority is the cloud's");
    }
}

#[test]
fn the_platform_overrules_nothing() {
    let publisher = "publisher_id = \"eeeeeeee-1111-2222-3333-444444444444\"\n";
    let folder = Folder::with(&format!("{APP}{TENANT}"));
    let settings = folder.load_with(&PLATFORM).unwrap();
    assert!(matches!(settings.apps[""].credential, Credential::Secret(_)));
    assert_eq!((settings.apps[""].publisher_id, settings.variables.len()), (None, 0));
    folder.write("t.toml", format!("{CLIENT}{publisher}{TENANT}"));
    let settings = folder.load_with(&PLATFORM).unwrap();
    assert_eq!(settings.apps[""].publisher_id.unwrap().to_string(), "eeeeeeee-1111-2222-3333-444444444444");
    // Half of what is needed is no app, and an identity's client id is not the app's.
    folder.write("t.toml", TENANT);
    let problems = folder.load_with(&PLATFORM[..2]).unwrap_err();
    assert!(problems[0].contains("there is no `[app]`"), "{problems:?}");
    folder.write("t.toml", format!("[app]\nmanaged_identity = \"{IDENTITY}\"\n{TENANT}"));
    let problems = folder.load_with(&PLATFORM).unwrap_err();
    assert!(problems[0].contains("app.client_id: it is missing"), "{problems:?}");
}

#[test]
fn what_the_platform_says_wrongly_leads_to_its_variable() {
    let folder = Folder::with(TENANT);
    let mut wrong = PLATFORM;
    wrong[0].1 = "hunter2";
    let expected = "environment variable AZURE_CLIENT_ID: app.client_id: it is not a GUID; it looks like \
                    `12345678-90ab-cdef-1234-567890abcdef`";
    assert_eq!(folder.load_with(&wrong).unwrap_err(), [expected]);
    let mut elsewhere = PLATFORM;
    elsewhere[3].1 = "login.microsoftonline.us";
    let warnings = told(&folder, &folder.load_with(&elsewhere).unwrap());
    let expected = "environment variable AZURE_AUTHORITY_HOST: tenants.cloud: it names `login.microsoftonline.us`, and the \
                    tenants in the cloud `worldwide` get their tokens from `login.microsoftonline.com`, which takes no token \
                    for another cloud; correct `cloud`, or give them an app with another credential";
    assert_eq!(warnings[1..], [expected]);
}

#[test]
fn a_managed_identity_is_asked_where_the_host_says() {
    let folder = Folder::with(&format!("{CLIENT}managed_identity = \"{IDENTITY}\"\n{TENANT}"));
    let header = ("IDENTITY_HEADER", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a");
    let endpoint = ("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token");
    for (environment, expected, variable) in [
        (&[][..], "the instance metadata service at http://169.254.169.254", None),
        (&[endpoint], "the instance metadata service at http://169.254.169.254", None),
        (
            &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:80")],
            "the instance metadata service at http://127.0.0.1",
            Some("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        ),
        (&[endpoint, header], "the identity endpoint at http://127.0.0.1:41741", Some("IDENTITY_ENDPOINT")),
    ] {
        let settings = folder.load_with(environment).unwrap();
        let Credential::Federated(Federated::Identity(identity)) = &settings.apps[""].credential else { panic!() };
        assert_eq!((identity.service().to_string(), identity.name()), (expected.to_owned(), IDENTITY.to_owned()));
        let shown = settings.to_toml("2026-11-22T12:00:00Z".parse().unwrap());
        assert!(
            shown.contains(&format!("managed_identity = \"{IDENTITY}\"\n# its tokens come from {expected}")),
            "{shown}"
        );
        assert_eq!(
            variable.is_some_and(|name| shown.contains(&format!("(environment variable {name})"))),
            variable.is_some()
        );
        assert!(!format!("{settings:?} {shown}").contains("853b9a84"), "{settings:?}");
        assert_eq!(settings.apps, folder.load_with(environment).unwrap().apps, "a reload changes nothing");
        assert!(matches!(identity.service(), Service::AppService(..)) == (environment.len() == 2));
    }
    for (environment, expected) in [
        (
            &[("IDENTITY_ENDPOINT", "169.254.169.254"), header][..],
            "environment variable IDENTITY_ENDPOINT: app.managed_identity: it is no address; write it as `http://HOST:PORT`",
        ),
        (
            &[endpoint, ("IDENTITY_HEADER", "a\u{7f}b")],
            "environment variable IDENTITY_HEADER: app.managed_identity: it has characters that no header has",
        ),
    ] {
        assert_eq!(folder.load_with(environment).unwrap_err(), [expected]);
    }
}

#[test]
fn tokens_of_somebody_else_are_the_only_credential_and_sign_nothing() {
    for (text, expected) in [
        (
            "federated_token_file = \"secret\"\nclient_secret_file = \"secret\"\n",
            "t.toml:1: app: there are a client secret (t.toml:4) and a federated token file (t.toml:3); leave only one of \
             them",
        ),
        (
            "federated_token_file = \"secret\"\nsigning = \"PS256\"\n",
            "t.toml:4: app.signing: a federated token file signs nothing; remove this key, or set a certificate",
        ),
        (
            "managed_identity = \"system\"\n",
            "t.toml:3: app.managed_identity: it is no identity; write its client id, `object_id:` and its object id, or \
             `resource_id:` and its resource id (`/subscriptions/…`); a system-assigned one cannot prove an app",
        ),
    ] {
        assert_eq!(Folder::with(&format!("{CLIENT}{text}{TENANT}")).problems(), [expected]);
    }
}
