//! Single values that are refused, with the exact words.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn bad_values_are_refused_with_what_to_change() {
    let app = |more: &str| format!("{APP}{more}{TENANT}");
    let tenant = |more: &str| format!("{APP}{TENANT}{more}");
    let cloud = |more: &str| format!("{APP}[clouds.own]\n{more}{TENANT}cloud = \"own\"\n");
    let guid = "it is not a GUID; it looks like `12345678-90ab-cdef-1234-567890abcdef`";
    for (text, expected) in [
        // Apps.
        (
            format!("[app]\nclient_secret_file = \"secret\"\n{TENANT}"),
            "t.toml:1: app.client_id: it is missing; set it to the *Application (client) ID* of the app registration's \
             overview page"
                .to_owned(),
        ),
        (
            format!("[app]\nclient_id = \"hunter2\"\nclient_secret_file = \"secret\"\n{TENANT}"),
            format!("t.toml:2: app.client_id: {guid}"),
        ),
        (
            format!("[app]\nclient_id = 7\nclient_secret_file = \"secret\"\n{TENANT}"),
            "t.toml:2: app.client_id: it is a number; write a text in quotes".to_owned(),
        ),
        (app("publisher_id = \"me\"\n"), format!("t.toml:4: app.publisher_id: {guid}")),
        (
            app("publisher_id = \"00000000-0000-0000-0000-000000000000\"\n"),
            "t.toml:4: app.publisher_id: it is all zeros; write the real one".to_owned(),
        ),
        (
            app("signing = \"RS256\"\n"),
            "t.toml:4: app.signing: a client secret signs nothing; remove this key, or set a certificate".to_owned(),
        ),
        (
            app("signing = \"PS265\"\n"),
            "t.toml:4: app.signing: `PS265` is not one of `PS256` and `RS256`; did you mean `PS256`?".to_owned(),
        ),
        (
            app("client_secret = \"hunter2\"\n"),
            "t.toml:4: app: set either `client_secret` (t.toml:4) or `client_secret_file` (t.toml:3), not both"
                .to_owned(),
        ),
        (
            app("pkcs12_file = \"x\"\n"),
            "t.toml:1: app: there are a PKCS#12 file (t.toml:4) and a client secret (t.toml:3); leave only one of them"
                .to_owned(),
        ),
        (
            format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{TENANT}"),
            "t.toml:1: app: there is no credential; set `certificate_file` (and `private_key_file` if the key is \
             apart), `pkcs12_file`, `client_secret_file`, `federated_token_file` or `managed_identity`"
                .to_owned(),
        ),
        (
            app("[apps.\"a b\"]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\nclient_secret_file = \"secret\"\n"),
            "t.toml:4: apps.a b: a name has 1 to 64 letters, digits, `_` and `-`; choose another".to_owned(),
        ),
        // Tenants.
        (
            format!("{APP}[[tenants]]\nname = \"x\"\n"),
            "t.toml:4: tenants[0].id: it is missing; set it to the customer's *Directory (tenant) ID*".to_owned(),
        ),
        (
            format!("{APP}[[tenants]]\nid = \"contoso.example\"\n"),
            "t.toml:5: tenants[0].id: `contoso.example` is not a GUID; it looks like \
             `12345678-90ab-cdef-1234-567890abcdef`"
                .to_owned(),
        ),
        (
            tenant("cloud = \"gccc\"\n"),
            "t.toml:6: tenants[0].cloud: there is no cloud `gccc`; did you mean `gcc`? the clouds are `china`, `dod`, `gcc`, \
             `gcc_high` and `worldwide`, others are made by `[clouds.NAME]`"
                .to_owned(),
        ),
        (
            tenant("app = \"special\"\n"),
            "t.toml:6: tenants[0].app: there is no `[apps.special]`; write it, or leave the key out to use `[app]`"
                .to_owned(),
        ),
        (
            TENANT.to_owned(),
            "t.toml:1: tenants[0].app: it names no `app` and there is no `[app]`; write the one or the other".to_owned(),
        ),
        (
            tenant("content_types = [\"Audit.Exchange\", \"Audit.Sharepiont\"]\n"),
            "t.toml:6: tenants[0].content_types: `Audit.Sharepiont` is no content type; did you mean \
             `Audit.SharePoint`? the types are `Audit.AzureActiveDirectory`, `Audit.Exchange`, `Audit.SharePoint`, \
             `Audit.General` and `DLP.All`"
                .to_owned(),
        ),
        (
            tenant("content_types = []\n"),
            "t.toml:6: tenants[0].content_types: the list is empty, so that nothing would be collected; leave the key \
             out for the four `Audit` types, or set `enabled = false`"
                .to_owned(),
        ),
        (
            tenant("enabled = \"no\"\n"),
            "t.toml:6: tenants[0].enabled: it is a text; write `true` or `false`, without quotes".to_owned(),
        ),
        (
            tenant("name = \" \"\n"),
            "t.toml:6: tenants[0].name: it is empty; set it, or leave the key out".to_owned(),
        ),
        (
            tenant("name = \"a\\u001b[2J\"\n"),
            "t.toml:6: tenants[0].name: there is a control character in it".to_owned(),
        ),
        (
            tenant("[[tenants]]\nid = \"11111111-2222-3333-4444-555555555555\"\n"),
            "t.toml:7: tenants[1].id: tenant `11111111-2222-3333-4444-555555555555` is in t.toml:5 already; remove \
             one of the two"
                .to_owned(),
        ),
        // Clouds.
        (
            cloud("authority = \"https://a.example\"\n"),
            "t.toml:4: clouds.own.management: `clouds.own` has no `management`; set it, a cloud of your own takes \
             nothing from another; or set `graph` alone, for a cloud without audit records"
                .to_owned(),
        ),
        (
            cloud("authority = \"https://a.example\"\ngraph = \"https://g.example\"\nmanagement_audience = \"https://m.example\"\n"),
            "t.toml:7: clouds.own.management_audience: there is no `management` whose audience it could be; set that, or \
             remove this"
                .to_owned(),
        ),
        (
            tenant("cloud = \"china\"\ncontent_types = [\"Audit.General\"]\n[health]\nenabled = true\n"),
            "t.toml:7: tenants[0].content_types: the cloud `china` has no Management Activity API, so that no audit records \
             can be collected there; leave the key out: service health and the Message Center are collected if `[health]` \
             says so"
                .to_owned(),
        ),
        (
            tenant("cloud = \"china\"\n"),
            "t.toml:4: tenants[0].cloud: the cloud `china` has no Management Activity API, and service health is not \
             collected, so that nothing would be; set `enabled = true` under `[health]`, or `enabled = false` here"
                .to_owned(),
        ),
        (
            cloud("authority = \"http://a.example\"\nmanagement = \"https://m.example\"\n"),
            "t.toml:5: clouds.own.authority: `http://a.example` would send tokens unencrypted; write `https://`, plain \
             http is only for loopback hosts"
                .to_owned(),
        ),
        (
            cloud("authority = \"https://a.example\"\nmanagement = \"https://m.example\"\ngraph_audience = \"https://m.example/.default\"\n"),
            "t.toml:7: clouds.own.graph_audience: leave `/.default` out: write `https://m.example`".to_owned(),
        ),
        (
            cloud("authority = \"https://a.example\"\nmanagement = \"https://m.example\"\napp = \"us\"\n"),
            "t.toml:7: clouds.own.app: there is no `[apps.us]`; write it, or leave the key out to use `[app]`".to_owned(),
        ),
        (
            tenant("[clouds.gcc]\nmanagement = \"https://m.example\"\n"),
            "t.toml:7: clouds.gcc.management: `gcc` is Microsoft's and its hosts are fixed; give a cloud of your own \
             another name"
                .to_owned(),
        ),
        // Spans, numbers and words.
        (
            tenant("[collect]\npoll_interval = \"5s\"\n"),
            "t.toml:7: collect.poll_interval: 5s is too low: each poll is a request per tenant and content type, and \
             the service throttles the tenant; set at least 10s"
                .to_owned(),
        ),
        (
            tenant("[collect]\npoll_interval = \"61m\"\n"),
            "t.toml:7: collect.poll_interval: 1h1m is too high: records would arrive hours late; set at most 1h"
                .to_owned(),
        ),
        (
            tenant("[collect]\npoll_interval = 60\n"),
            "t.toml:7: collect.poll_interval: it is a number; write a span of time with its unit, such as `90s`, \
             `45m`, `6h` or `7d`"
                .to_owned(),
        ),
        (
            tenant("[collect]\nsweep_interval = \"daily\"\n"),
            "t.toml:7: collect.sweep_interval: it is `daily`; write a span of time with its unit, such as `90s`, \
             `45m`, `6h` or `7d`"
                .to_owned(),
        ),
        (
            tenant("[collect]\nrecent_span = \"7d\"\n"),
            "t.toml:7: collect.recent_span: 7d is too high: the service keeps content for seven days and refuses to \
             list what is older; set at most 6d23h55m"
                .to_owned(),
        ),
        (
            tenant("[collect]\nbackfill = \"8d\"\n"),
            "t.toml:7: collect.backfill: 8d is too high: the service keeps content for seven days, there is nothing \
             older to collect; set at most 7d"
                .to_owned(),
        ),
        (
            tenant("[collect]\noverlap = \"5h\"\n"),
            "t.toml:7: collect.overlap: `recent_span` (3h) is shorter than `overlap` (5h), so that it would find \
             nothing that a poll does not; make it longer"
                .to_owned(),
        ),
        (
            tenant("[collect]\nrecent_interval = \"6h\"\n"),
            "t.toml:7: collect.recent_interval: `recent_span` (3h) is shorter than `recent_interval` (6h), so that it \
             leaves gaps; make it longer"
                .to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = 0\n"),
            "t.toml:7: collect.concurrency: 0 is too low: nothing would be retrieved; set at least 1".to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = 4\n"),
            "t.toml:7: collect.concurrency: `concurrency_per_tenant` (8) is more than `concurrency` (4), so that one \
             tenant could hold all of it; lower the one or raise the other"
                .to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = -4\n"),
            "t.toml:7: collect.concurrency: `-4` is negative; write a whole number from 0 on".to_owned(),
        ),
        (
            tenant("[collect]\nconcurrency = \"4\"\n"),
            "t.toml:7: collect.concurrency: it is a text; write a whole number without quotes".to_owned(),
        ),
        (
            tenant("[collect]\nmax_blob_size = 4\n"),
            "t.toml:7: collect.max_blob_size: it is a number; write a number of bytes with its unit, such as `512 MiB` \
             or `4 GiB`"
                .to_owned(),
        ),
        (
            tenant("[store]\npartition_size = \"1 KiB\"\n"),
            "t.toml:7: store.partition_size: 1 KiB is too low: a day would have hundreds of partitions, and opening \
             the store would take long; set at least 64 MiB"
                .to_owned(),
        ),
        (
            tenant("[store]\nreserve = \"0 B\"\n"),
            "t.toml:7: store.reserve: 0 B is too low: what is being retrieved when the rest is used up would find the \
             disk full; set at least 64 MiB"
                .to_owned(),
        ),
        (
            tenant("[token]\nrenew_after = \"10s\"\n"),
            "t.toml:7: token.renew_after: 10s is too low: Entra locks out clients that ask for tokens in a loop; set \
             at least 1m"
                .to_owned(),
        ),
        (
            tenant("[token]\nendpoint = \"v3\"\n"),
            "t.toml:7: token.endpoint: `v3` is not one of `v2` and `v1`; did you mean `v2`?".to_owned(),
        ),
        (
            tenant("[log]\nlevel = \"inof\"\n"),
            "t.toml:7: log.level: `inof` is not one of `error`, `warn`, `info`, `debug`, `trace` and `off`; did you \
             mean `info`?"
                .to_owned(),
        ),
        (
            tenant("[log]\nlevel = \"tenantry=loud\"\n"),
            "t.toml:7: log.level: `tenantry=loud` is no filter; write a level such as `info`, or \
             `info,tenantry::tenant=debug`"
                .to_owned(),
        ),
        (
            tenant("[log]\nformat = \"yaml\"\n"),
            "t.toml:7: log.format: it is not one of `auto`, `journald`, `json` and `text`".to_owned(),
        ),
        (
            tenant("[daemon]\ndrain = \"0s\"\n"),
            "t.toml:7: daemon.drain: 0s is too low: what is under way could not even be written; set at least 1s"
                .to_owned(),
        ),
        (
            tenant(&format!("[daemon]\nsocket = \"/run/{}\"\n", "s".repeat(110))),
            format!(
                "t.toml:7: daemon.socket: `/run/{}` has 115 bytes, and a socket's path has room for 107; choose a \
                 shorter one",
                "s".repeat(110)
            ),
        ),
    ] {
        assert_eq!(Folder::with(&text).problems(), [expected], "{text}");
    }
}

#[test]
fn numbers_and_spans_are_refused_in_the_words_of_the_mistake() {
    for (text, expected) in [
        ("concurrency = 99999999999999999999", "the number is too large; set at most 1024"),
        ("concurrency = 4.0", "write it without a fraction: 4"),
        ("concurrency = 4.5", "it is a number; write a whole number without quotes"),
        ("concurrency = -1", "`-1` is negative; write a whole number from 0 on"),
        ("concurrency = -99999999999999999999", "`-99999999999999999999` is negative; write a whole number from 0 on"),
        ("concurrency = \"many\"", "it is a text; write a whole number without quotes"),
        ("poll_interval = \"-5m\"", "`-5m` is negative; write it as `5m`"),
        ("poll_interval = \"45M\"", "the `M` of `45M` stands for months; did you mean `45m`?"),
    ] {
        let folder = Folder::with(&format!("{APP}{TENANT}[collect]\n{text}\n"));
        let problems = folder.problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].ends_with(&format!(": {expected}")), "{}", problems[0]);
    }
    let folder = Folder::with(&format!(
        "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\ncertificate_file = 5\n{TENANT}"
    ));
    assert_eq!(
        folder.problems(),
        ["t.toml:3: app.certificate_file: it is a number; write a path in quotes, or a list of them"]
    );
    let folder = Folder::with(&format!(
        "[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\nclient_secret = {{ hunter2 = 1 }}\n{TENANT}"
    ));
    assert_eq!(folder.problems(), ["t.toml:3: app.client_secret: it is a table; write a single value after `=`"]);
    let folder = Folder::with(&format!("{TENANT}cloud = \"gcc\"\n"));
    assert_eq!(
        folder.problems(),
        [
            "t.toml:1: tenants[0].app: it names no `app`, nor does `[clouds.gcc]`, and there is no `[app]`; write `app` here \
          or there, or write `[app]`"
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn bad_certificates_are_refused_with_their_file() {
    let folder = Folder::new();
    folder.private("good.pem", format!("{}{}", GOOD.certificate, GOOD.key));
    folder.write("good.crt", &GOOD.certificate);
    folder.private("other.key", &OTHER.key);
    folder.private("weak.pem", include_bytes!("../../../tests/fixtures/weak-1024-bits.pem"));
    folder.private("app.pfx", &*ARCHIVE);
    folder.private("right", "right\n");
    folder.private("wrong", "wrong\n");
    folder.private("empty", "\n");
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let subject_and_thumbprint = {
        let good = crate::token::Certificate::from_pem(GOOD.certificate.as_bytes(), Some(GOOD.key.as_bytes())).unwrap();
        format!("`{}` (SHA-1 thumbprint {})", good.subject(), good.sha1_hex())
    };
    for (keys, expected) in [
        (
            "certificate_file = \"weak.pem\"",
            "t.toml:3: app.certificate_file: `weak.pem`: the key has 1024 bits, and Microsoft takes no fewer than 2048; \
             make a new key and certificate"
                .to_owned(),
        ),
        (
            "certificate_file = \"good.crt\"\nprivate_key_file = \"other.key\"",
            format!(
                "t.toml:3: app.certificate_file: `good.crt` with `other.key`: the private key does not belong to the \
                 certificate {subject_and_thumbprint}; name the key that this certificate was made with"
            ),
        ),
        (
            "certificate_file = \"good.crt\"",
            "t.toml:3: app.certificate_file: `good.crt`: there is no private key with the certificate; add it to the \
             file, or name its own file in `private_key_file`"
                .to_owned(),
        ),
        (
            "certificate_file = \"missing.pem\"",
            "t.toml:3: app.certificate_file: there is no file `missing.pem`; correct the path, or put the file there"
                .to_owned(),
        ),
        (
            "certificate_file = \"good.crt\"\nprivate_key_file = \"missing.key\"",
            "t.toml:4: app.private_key_file: there is no file `missing.key`; correct the path, or put the file there"
                .to_owned(),
        ),
        (
            "private_key_file = \"other.key\"",
            "t.toml:3: app.certificate_file: there is a `private_key_file` without its certificate; set \
             `certificate_file`"
                .to_owned(),
        ),
        (
            "certificate_file = [\"good.pem\", \"good.crt\"]\nprivate_key_file = [\"other.key\"]",
            "t.toml:4: app.private_key_file: it names 1 file, and `certificate_file` names 2 files; write one for each, in the same \
             order"
                .to_owned(),
        ),
        (
            "certificate_file = []",
            "t.toml:3: app.certificate_file: the list is empty; name a file, or leave the key out".to_owned(),
        ),
        (
            "certificate_file = \"app.pfx\"",
            "t.toml:3: app.certificate_file: `app.pfx`: this is a binary file, not PEM; if it is a PKCS#12 file (.pfx, \
             .p12), set `pkcs12_file` instead"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"wrong\"",
            "t.toml:3: app.pkcs12_file: `app.pfx`: the password of the PKCS#12 file is wrong; correct \
             `pkcs12_password_file`"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"",
            "t.toml:3: app.pkcs12_file: `app.pfx`: the PKCS#12 file has a password; name its file in \
             `pkcs12_password_file`, or if it has none, convert it with `openssl pkcs12 -in FILE.pfx -passin pass: \
             -nodes -out FILE.pem` and set `certificate_file`"
                .to_owned(),
        ),
        (
            "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"empty\"",
            "t.toml:4: app.pkcs12_password_file: `empty` is empty; write the secret into it".to_owned(),
        ),
        (
            "client_secret_file = \"folder\"",
            "t.toml:3: app.client_secret_file: `folder` is a folder; name a file".to_owned(),
        ),
    ] {
        folder.write(
            "t.toml",
            format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{keys}\n{TENANT}"),
        );
        assert_eq!(folder.problems(), [expected], "{keys}");
    }
    for keys in [
        "certificate_file = \"good.pem\"",
        "pkcs12_file = \"app.pfx\"\npkcs12_password_file = \"right\"",
        "pkcs12_file = [\"app.pfx\", \"app.pfx\"]\npkcs12_password_file = \"right\"",
    ] {
        folder
            .write("t.toml", format!("[app]\nclient_id = \"aaaaaaaa-1111-2222-3333-444444444444\"\n{keys}\n{TENANT}"));
        assert_eq!(folder.warnings(), <[&str; 0]>::default(), "{keys}");
    }
}

#[test]
fn a_listener_that_others_can_reach_needs_a_token() {
    let told = |operator: &str, token: &str| {
        let folder = Folder::with(&format!("{APP}{TENANT}[operator]\n{operator}\n"));
        folder.private("token", token);
        match folder.load() {
            Ok(settings) => settings.warnings.iter().map(|warning| folder.told(warning)).collect(),
            Err(problems) => problems,
        }
    };
    let good = "0123456789abcdef\n";
    for (operator, token, expected) in [
        ("", "", None),
        ("listen = \"off\"", "", None),
        ("listen = \"127.0.0.1:80\"", "", None),
        ("listen = \"[::1]:80\"", "", None),
        ("listen = \"[::ffff:127.0.0.1]:80\"", "", None),
        ("listen = \"127.0.0.1:80\"\ntoken_file = \"token\"", good, None),
        (
            "listen = \"0.0.0.0:80\"",
            "",
            Some(
                "operator.listen: `0.0.0.0:80` can be reached from other hosts, and nothing says who may ask; set `token_file`, or `client_ca_file` (with `certificate_file`), or listen on `127.0.0.1:80`",
            ),
        ),
        ("listen = \"[::]:80\"", "", Some("operator.listen: `[::]:80` can be reached from other hosts")),
        ("listen = \"192.0.2.1:80\"", "", Some("operator.listen: `192.0.2.1:80` can be reached from other hosts")),
        (
            "listen = \"192.0.2.1:80\"\ntoken_file = \"token\"",
            good,
            Some("operator.listen: the token and what it opens cross the network"),
        ),
        (
            "listen = \"localhost:80\"",
            "",
            Some(
                "operator.listen: `localhost:80` is no address; write one with its port, such as `127.0.0.1:9464`, or `off`",
            ),
        ),
        ("listen = \"9464\"", "", Some("operator.listen: `9464` is no address")),
        ("listen = 9464", "", Some("operator.listen: it is a number; write a text in quotes")),
        (
            "token_file = \"token\"",
            "0123456789abcde",
            Some("operator.token_file: the token in `token` must be 16 characters or more"),
        ),
        (
            "token_file = \"token\"",
            "0123456789 abcdef",
            Some("operator.token_file: the token in `token` must be 16 characters or more"),
        ),
        ("token_file = \"none\"", "", Some("operator.token_file: there is no file of the name that is written here")),
        ("tenant_labels = 10001", "", Some("operator.tenant_labels: 10001 is too high")),
        ("token = \"secret\"", "", Some("operator.token: unknown key; the keys of `[operator]` are")),
    ] {
        let told: Vec<String> = told(operator, token);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{operator}: {told:?}");
        if let Some(expected) = expected {
            assert!(told[0].contains(expected), "{operator}: {}", told[0]);
            assert!(!told[0].contains("0123456789"), "a token is told");
        }
    }
}
