//! What happens that an operator filters or alerts on: each such event has an identity that stays the same whatever the
//! wording of its line, and is explained, with its remedy, in the journal catalogue (`systemd/tenantry.catalog`).
//!
//! A log statement carries it as `message_id`. The journal has it as `MESSAGE_ID`, JSON as `message_id`; text for
//! people leaves it out.
//!
//! **Invariant:** an id is never used for another event, nor changed: alerts of operators hang on it.

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $id;)+

        /// All of them, with their names.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $id)),+];
    };
}

events! {
    /// The daemon has opened its store and begins.
    STARTED = "bfbafd270b9c4617bc79f5502079bc40";
    /// It has proof that it collects: a token and a listing.
    READY = "8c4f0cd57f8542e6b5ae45d59a87910e";
    /// It has ended in order.
    STOPPED = "aa2a6f4bdcc742adab43a8009dbd2235";
    /// It cannot start, or ends because a part of it has failed.
    FAILED = "f5bfb6657cb84f22a419688dacef131b";
    /// A new configuration is in effect.
    RELOADED = "95741535b06e4a5496134e67c2663a1a";
    /// A new configuration was refused, the old one stays in effect.
    RELOAD_REFUSED = "a9256af7b4c34a669327b2541c260a45";
    /// A key of the new configuration takes effect with a restart.
    RESTART_NEEDED = "402270d5a21e40b2a006cd6c5b90d7b2";
    /// Something in the configuration can be used but should be looked at.
    SETTING_WARNING = "ed9a1bb18ac2475ab1f0f47893f9c6de";
    /// An app's certificate expires soon, or has expired.
    CERTIFICATE_EXPIRES = "b1d1286ed0844e0baab834f538be93d5";
    /// A part that must make progress makes none; the watchdog is not fed.
    WEDGED = "7ff8cf30e7664550a0a5726a5ea22529";
    /// A tenant is collected from.
    TENANT_COLLECTING = "40b856135a8b4c7da2a2ff2104a45da3";
    /// A tenant has a trouble that stays until a person acts.
    TENANT_NEEDS_OPERATOR = "792dcd7eba9b4f289729739b18f3c774";
    /// A tenant has a trouble that is expected to pass.
    TENANT_TROUBLED = "032d514a4af5420db064b79aadee3d47";
    /// A tenant's trouble is over.
    TENANT_RECOVERED = "bcb749fe2d064bb39a17b0338435b42d";
    /// A tenant's tasks panicked and start again.
    TENANT_PANICKED = "e40215ad6d474f28b5de476217844633";
    /// Entra refuses an app, for all of its tenants.
    APP_REFUSED = "9c5cd2da845c4327a70c772f86ad6a39";
    /// Entra grants an app tokens again.
    APP_RECOVERED = "5e9b89cb91774079be80b602f0dcf235";
    /// Entra refuses one of an app's certificates, and another one signs in its place.
    CERTIFICATE_REFUSED = "d29030dd1c474af3bb944aef5cdcc172";
    /// It accepts that certificate after all.
    CERTIFICATE_ACCEPTED = "e2cc3abddb3b4a5a8307ce5f3e704d32";
    /// A tenant was added by an operator, or its administrator has consented.
    TENANT_ENROLLED = "932d7a376cf144819f0bfcdc396fa816";
    /// An operator has removed a tenant.
    TENANT_REMOVED = "0239f48abbc04fd493a504fa12a285ab";
    /// An operator has paused a tenant.
    TENANT_HELD = "76e82748175c430d9c2a202dffd76865";
    /// An operator lets a tenant be collected again.
    TENANT_RESUMED = "2da0dcb5590e4bfbafe1e4570a702d76";
    /// A verification has found that not all of a tenant's content is stored.
    TENANT_INCOMPLETE = "7c1f0b6e5a9d4e0f8d2a4b93e6c81f57";
    /// Microsoft notifies of a tenant's new content.
    WEBHOOK_REGISTERED = "5d0f3a1c7be94b7f8a52c64e1b93d07a";
    /// A content blob was given up.
    CONTENT_GIVEN_UP = "e176ce870039419b883b247edd51f65d";
    /// A content blob that was fetched within two minutes of its creation cannot be looked at again.
    CONTENT_PERHAPS_PARTIAL = "3db8d56f6d594070a0c8d3f28bcb025a";
    /// The service lists an entry that cannot be collected.
    CONTENT_LISTED_WRONGLY = "8cef879802ac4b1096ca82b4b889552c";
    /// That entry is listed rightly now.
    CONTENT_LISTED_RIGHTLY = "52425b1aea3c454ead0ba8bc7a824eba";
    /// A span of time was not listed before Microsoft ceased to list it.
    CONTENT_LOST = "16656d41d66a49689d21676702185c9d";
    /// Records name another tenant.
    RECORDS_FOREIGN = "09488308a72e4f9191cfcf6a92616ec9";
    /// The store cannot be written.
    STORE_UNWRITABLE = "0822a42735a34ce4ab26feb6b7918483";
    /// The store can be written again.
    STORE_WRITABLE = "9001d53c0c1742ab91440c1b8d8251d1";
    /// Something in the store is damaged or missing.
    STORE_DAMAGED = "8f0201f34d4f4ec69e6fdf613e98e67c";
    /// A database writes what a power cut would take.
    STORE_AT_RISK = "b0843d0281974c9d9a878c51bae66280";
    /// A new partition was begun; its line holds the digest of all chains' heads.
    PARTITION_BEGUN = "8318dc6836df4cabbf7c12beb668c0b0";
    /// A partition was dropped.
    PARTITION_DROPPED = "3aebeeb22944482a9ff6e08b32f634a3";
    /// A tenant is being erased.
    PURGE_BEGUN = "6232f3b7791849cdabb3d4220e3a75c9";
    /// It has been erased; the line is the receipt.
    PURGE_DONE = "d0d452f3b14845a292040ee803d5b3f4";
    /// A partition cannot be written anew without it.
    PURGE_INCOMPLETE = "24cca5e8d97b41ab9430d25304fad081";
    /// There is too little room to go on erasing.
    PURGE_WAITS = "6eabfeeab2234cd2bf8a5e0cf769912f";
    /// The operators' listener cannot be opened.
    LISTENER_CLOSED = "be140f078d7a45cca4e741599bfdda6a";
    /// The certificate of a listener expires soon, or has expired.
    LISTENER_CERTIFICATE_EXPIRES = "5f093238fc004e4e9511a9ab2425575c";
    /// New files of a listener's certificate cannot be used.
    LISTENER_CERTIFICATE_REFUSED = "10bbad2a2f614fdea76d4a5b35106c2e";
    /// More is stored than is to be kept, and none of it may be dropped.
    STORE_OVERFULL = "09ff06bccd524c32bd81a742c25061e0";
    /// Nothing is retrieved, because what is retrieved would find no room.
    COLLECTION_PAUSED = "a85cb3efa19a4f2aa1cd406b4df0f522";
    /// There is room, and what waited is retrieved.
    COLLECTION_RESUMED = "e88533352ebf42d9acf3609e6c58b00f";
    /// An invite was made.
    INVITED = "ef97255f66b64330b43a3b3df1360345";
    /// An invite was withdrawn.
    INVITE_WITHDRAWN = "fc472ceb7091479397e160b136c09193";
    /// An administrator has consented; the proof is asked for.
    CONSENT_GIVEN = "f4a60fd2c53d425da22862c836cc178d";
    /// A way through sign-in and consent has ended before its end.
    CONSENT_FAILED = "32c62351394040129d0da86b19137104";
    /// What the last hour brought.
    SUMMARY = "d96a6060e86148b89b9cc3296a446d8c";
    /// What it brought of one tenant.
    TENANT_SUMMARY = "9c80c1fecaea47f9864836837f9d61e5";
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Fields that an explanation may name, because the statements with this event have them.
    const FIELDS: &[&str] = &[
        "TENANT",
        "NAME",
        "STAGE",
        "KIND",
        "ERROR_CODE",
        "CORRELATION_ID",
        "ATTEMPT",
        "APP",
        "CLIENT_ID",
        "AUTHORITY",
        "TENANTS",
        "CONTENT_TYPE",
        "CONTENT_ID",
        "REASON",
        "FROM",
        "TO",
        "KEY",
        "PARTITION",
        "HEADS",
        "EXIT_CODE",
        "PART",
        "LIMIT",
        "EXCESS",
        "THUMBPRINT",
        "HELD_UNTIL",
        "WAITING",
        "INVITE",
        "EXPIRES",
        "HOW",
        "CLOUD",
    ];

    fn catalogue() -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/tenantry.catalog")).unwrap();
        let entries = text.split("\n-- ").skip(1).map(|entry| {
            let (id, rest) = entry.split_once('\n').unwrap();
            (id.to_owned(), rest.to_owned())
        });
        entries.collect()
    }

    #[test]
    fn every_event_is_explained_and_nothing_else_is() {
        let catalogue = catalogue();
        let known: BTreeSet<_> = ALL.iter().map(|(_, id)| (*id).to_owned()).collect();
        assert_eq!(known.len(), ALL.len(), "an id stands for one event");
        assert_eq!(catalogue.keys().cloned().collect::<BTreeSet<_>>(), known);
        for (name, id) in ALL {
            assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{name}");
            let entry = &catalogue[*id];
            let (head, text) = entry.split_once("\n\n").unwrap_or_else(|| panic!("{name} has no text"));
            assert!(head.starts_with("Subject: ") && head.contains("\nDefined-By: Tenantry"), "{name}: {head}");
            assert!(text.trim().len() > 40, "{name}: {text}");
            for field in entry.split('@').skip(1).step_by(2) {
                assert!(FIELDS.contains(&field), "{name} names the field `{field}`");
            }
        }
    }

    #[test]
    fn the_catalogue_names_the_exit_codes_after_which_systemd_starts_nothing() {
        let text = &catalogue()[FAILED];
        for unit in ["tenantry.service", "tenantry-252.service"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit);
            let unit = std::fs::read_to_string(path).unwrap();
            let codes = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
            for code in codes.split_whitespace() {
                assert!(text.contains(&format!("{code})")), "{code}: {text}");
            }
        }
    }

    #[test]
    fn every_error_has_an_identity() {
        fn look(folder: &std::path::Path, missing: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path, missing);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // A statement ends where the line ends with `);`.
                for statement in text.split("error!(").skip(1) {
                    let statement = statement.split(");\n").next().unwrap();
                    if !statement.contains("message_id") && !statement.contains(".error!") {
                        missing.push(format!("{}: {}", path.display(), statement.lines().next().unwrap_or_default()));
                    }
                }
            }
        }
        let mut missing = Vec::new();
        look(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut missing);
        missing.retain(|line| !line.contains("src/event.rs") && !line.contains("compile_error"));
        assert_eq!(missing, [""; 0], "an operator may want to alert on an error");
    }
}
