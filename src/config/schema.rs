//! The sections and keys that exist, and the nearest one to a word that does not.

/// How a section is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[name]`
    Table,
    /// `[name.NAME]`, any number of them.
    Named,
    /// `[[name]]`, any number of them; those of all files are joined.
    List,
}

/// A section and its keys.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) keys: &'static [&'static str],
}

const APP: &[&str] = &[
    "client_id",
    "publisher_id",
    "signing",
    "certificate_file",
    "private_key_file",
    "pkcs12_file",
    "pkcs12_password_file",
    "client_secret_file",
    "client_secret",
    "federated_token_file",
    "managed_identity",
];

/// All of them, in the order in which a reader expects them.
pub(super) const SECTIONS: &[Section] = &[
    Section { name: "app", shape: Shape::Table, keys: APP },
    Section { name: "apps", shape: Shape::Named, keys: APP },
    Section { name: "tenants", shape: Shape::List, keys: &["id", "name", "app", "cloud", "content_types", "enabled"] },
    Section {
        name: "clouds",
        shape: Shape::Named,
        keys: &["app", "authority", "management", "graph", "management_audience", "graph_audience"],
    },
    Section {
        name: "network",
        shape: Shape::Table,
        keys: &["proxy", "proxy_credentials_file", "no_proxy", "root_certificates_file"],
    },
    Section { name: "token", shape: Shape::Table, keys: &["endpoint", "renew_after"] },
    Section {
        name: "collect",
        shape: Shape::Table,
        keys: &[
            "poll_interval",
            "overlap",
            "recent_interval",
            "recent_span",
            "sweep_interval",
            "backfill",
            "concurrency_per_tenant",
            "concurrency",
            "max_blob_size",
        ],
    },
    Section { name: "dlp", shape: Shape::Table, keys: &["languages", "refresh_interval"] },
    Section { name: "health", shape: Shape::Table, keys: &["enabled", "poll_interval", "overlap", "sweep_interval"] },
    Section {
        name: "store",
        shape: Shape::Table,
        keys: &["path", "partition_size", "reserve", "keep_for", "keep_at_most"],
    },
    Section { name: "log", shape: Shape::Table, keys: &["format", "level"] },
    Section { name: "daemon", shape: Shape::Table, keys: &["drain", "socket", "start_spread"] },
    Section {
        name: "operator",
        shape: Shape::Table,
        keys: &["listen", "token_file", "certificate_file", "private_key_file", "client_ca_file", "tenant_labels"],
    },
    Section {
        name: "public",
        shape: Shape::Table,
        keys: &[
            "listen",
            "url",
            "certificate_file",
            "private_key_file",
            "organisation",
            "contact",
            "flow",
            "webhook_key_file",
        ],
    },
];

impl Section {
    /// The section with this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SECTIONS.iter().find(|section| section.name == name)
    }

    /// How its header is written.
    pub(super) fn header(&self) -> String {
        match self.shape {
            Shape::Table => format!("[{}]", self.name),
            Shape::Named => format!("[{}.NAME]", self.name),
            Shape::List => format!("[[{}]]", self.name),
        }
    }

    /// What to tell someone who wrote `key` in this section, where there is no such key.
    pub(super) fn unknown_key(&self, key: &str) -> String {
        let advice = if let Some(near) = nearest(key, self.keys.iter().copied()) {
            format!("did you mean `{near}`?")
        } else if let Some(home) = SECTIONS.iter().find(|section| section.keys.contains(&key)) {
            format!("it belongs to `{}`", home.header())
        } else {
            format!("the keys of `{}` are {}", self.header(), list(self.keys.iter().copied()))
        };
        format!("unknown key; {advice}")
    }
}

/// What to tell someone who wrote `name` at the top of a file, where there is no such section.
pub(super) fn unknown_section(name: &str) -> String {
    let advice = if let Some(near) = nearest(name, SECTIONS.iter().map(|section| section.name)) {
        format!("did you mean `{near}`?")
    } else if let Some(home) = SECTIONS.iter().find(|section| section.keys.contains(&name)) {
        format!("it belongs to `{}`", home.header())
    } else if let Some((home, key)) =
        SECTIONS.iter().find_map(|section| Some((section, nearest(name, section.keys.iter().copied())?)))
    {
        format!("did you mean `{key}`? it belongs to `{}`", home.header())
    } else {
        format!("the sections are {}", list(SECTIONS.iter().map(|section| section.name)))
    };
    format!("unknown section; {advice}")
}

/// The valid word that `word` was most likely meant to be.
pub(super) fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // People write the other separator and other case more often than another letter.
    let plain = |word: &str| word.to_lowercase().replace(['-', ' ', '.'], "_");
    let word = plain(word);
    valid
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_and_no_far_one() {
        let app = Section::named("app").unwrap();
        for (key, message) in [
            ("clientid", "unknown key; did you mean `client_id`?"),
            ("client-id", "unknown key; did you mean `client_id`?"),
            ("Client_ID", "unknown key; did you mean `client_id`?"),
            ("certificat_file", "unknown key; did you mean `certificate_file`?"),
            ("client_secrets", "unknown key; did you mean `client_secret`?"),
            ("poll_interval", "unknown key; it belongs to `[collect]`"),
            (
                "colour",
                "unknown key; the keys of `[app]` are `client_id`, `publisher_id`, `signing`, `certificate_file`, \
                 `private_key_file`, `pkcs12_file`, `pkcs12_password_file`, `client_secret_file`, `client_secret`, \
                 `federated_token_file` and `managed_identity`",
            ),
        ] {
            assert_eq!(app.unknown_key(key), message, "{key}");
        }
        for (name, message) in [
            ("tenant", "unknown section; did you mean `tenants`?"),
            ("colect", "unknown section; did you mean `collect`?"),
            ("client_id", "unknown section; it belongs to `[app]`"),
            ("clientid", "unknown section; did you mean `client_id`? it belongs to `[app]`"),
            (
                "output",
                "unknown section; the sections are `app`, `apps`, `tenants`, `clouds`, `network`, `token`, `collect`, \
                 `dlp`, `health`, `store`, `log`, `daemon`, `operator` and `public`",
            ),
        ] {
            assert_eq!(unknown_section(name), message, "{name}");
        }
    }
}
