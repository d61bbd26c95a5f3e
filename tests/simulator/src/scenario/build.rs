//! Building a scenario in Rust, step by step.

use std::time::Duration;

use uuid::Uuid;

use super::{
    App, Consent, Der, Federated, Feed, Gzip, Issuer, ManagedIdentity, Person, Quirks, Scenario, Secret, Tenant,
    both_algorithms, both_roles, few_records,
};
use crate::content_type::ContentType;
use crate::faults::Fault;

impl Scenario {
    /// An empty cloud.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Registers an app.
    #[must_use]
    pub fn app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }

    /// Adds a tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenants.push(tenant);
        self
    }

    /// Adds a fault.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds somebody whose tokens apps may trust.
    #[must_use]
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// Adds a managed identity.
    #[must_use]
    pub fn managed_identity(mut self, identity: ManagedIdentity) -> Self {
        self.managed_identities.push(identity);
        self
    }

    /// Makes authority and management two hosts.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Sets the audience that tokens of the management host must have.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        audience.clone_into(&mut self.service.audience);
        self
    }

    /// Sets the number of entries of a listing page.
    #[must_use]
    pub fn page_size(mut self, entries: usize) -> Self {
        self.service.page_size = entries;
        self
    }

    /// Sets when bodies are compressed.
    #[must_use]
    pub fn gzip(mut self, gzip: Gzip) -> Self {
        self.service.gzip = gzip;
        self
    }

    /// Sets the `PublisherIdentifier` that every request should carry.
    #[must_use]
    pub fn publisher(mut self, publisher: Uuid) -> Self {
        self.service.publisher = Some(publisher);
        self
    }

    /// Sets the lifetime of access tokens.
    #[must_use]
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.entra.lifetime_s = lifetime.as_secs();
        self
    }

    /// Sets the memory for precompressed bodies, in MiB.
    #[must_use]
    pub fn precompress_mib(mut self, mib: u32) -> Self {
        self.precompress_mib = mib;
        self
    }

    /// The cloud of `tenantry demo`: three invented companies, three days of small backlog and new records about every
    /// second. The caller adds the app.
    #[must_use]
    pub fn demo() -> Self {
        let company = |id: u128, name: &str, domain: &str, blobs: u32, every_ms: u64| {
            let mut tenant = Tenant::new(Uuid::from_u128(id), name).domain(domain);
            for (n, content_type) in (0_u64..).zip(ContentType::AUDIT) {
                tenant = tenant.feed(
                    Feed::new(content_type).backlog(blobs, 3.0).records(3, 12).live_every_ms(every_ms * 4 + 350 * n),
                );
            }
            tenant
        };
        Self::new(20_261)
            .tenant(company(
                0x7c1d_94a2_6b3e_4f05_9a48_2d1e_50c7_b311,
                "Contoso Maschinenbau",
                "contoso.example",
                40,
                1300,
            ))
            .tenant(company(0x12e8_50f7_c3a9_4d62_8b17_f00d_4a96_e825, "Fabrikam Retail", "fabrikam.example", 24, 1900))
            .tenant(company(
                0xb56f_0c3d_2e71_48a4_bd90_63aa_17e4_5c02,
                "Tailspin Räderwerk",
                "tailspin.example",
                12,
                2700,
            ))
    }
}

impl App {
    /// An app without credentials.
    #[must_use]
    pub fn new(client_id: Uuid) -> Self {
        Self {
            client_id,
            certificates: Vec::new(),
            secrets: Vec::new(),
            algorithms: both_algorithms(),
            name: String::new(),
            redirect_uris: Vec::new(),
            required_roles: both_roles(),
            only_in: None,
            personal_accounts: false,
            federated: Vec::new(),
        }
    }

    /// Sets the display name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Registers where people may be sent back to.
    #[must_use]
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Sets the application permissions that it asks for.
    #[must_use]
    pub fn required_roles(mut self, roles: &[&str]) -> Self {
        self.required_roles = roles.iter().map(|r| (*r).to_owned()).collect();
        self
    }

    /// Makes it an app of one tenant only.
    #[must_use]
    pub fn only_in(mut self, tenant: Uuid) -> Self {
        self.only_in = Some(tenant);
        self
    }

    /// Lets personal accounts sign in.
    #[must_use]
    pub fn personal_accounts(mut self) -> Self {
        self.personal_accounts = true;
        self
    }

    /// Trusts somebody else's tokens.
    #[must_use]
    pub fn federated(mut self, credential: Federated) -> Self {
        self.federated.push(credential);
        self
    }

    /// Uploads a certificate.
    #[must_use]
    pub fn certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.certificates.push(Der(der.into()));
        self
    }

    /// Adds a client secret.
    #[must_use]
    pub fn secret(mut self, value: &str) -> Self {
        self.secrets.push(Secret { value: value.to_owned(), expired: false });
        self
    }

    /// Adds a client secret that has run out.
    #[must_use]
    pub fn expired_secret(mut self, value: &str) -> Self {
        self.secrets.push(Secret { value: value.to_owned(), expired: true });
        self
    }
}

impl Tenant {
    /// A tenant without content that has consented to every app.
    #[must_use]
    pub fn new(id: Uuid, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            domain: format!("t{:08x}.example", id.as_fields().0),
            people: Vec::new(),
            consents: None,
            feeds: Vec::new(),
            audit_log: true,
            subscribed: Vec::new(),
            requests_per_minute: None,
        }
    }

    /// Sets the initial domain.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        domain.clone_into(&mut self.domain);
        self
    }

    /// Adds somebody who can sign in.
    #[must_use]
    pub fn person(mut self, person: Person) -> Self {
        self.people.push(person);
        self
    }

    /// Adds content of one type.
    #[must_use]
    pub fn feed(mut self, feed: Feed) -> Self {
        self.feeds.push(feed);
        self
    }

    /// Grants `roles` to one app; apps without a grant are then not consented to.
    #[must_use]
    pub fn consent(mut self, client_id: Uuid, roles: &[&str]) -> Self {
        let roles = roles.iter().map(|r| (*r).to_owned()).collect();
        self.consents.get_or_insert_default().push(Consent { client_id, roles });
        self
    }

    /// No app has been consented to.
    #[must_use]
    pub fn without_consent(mut self) -> Self {
        self.consents = Some(Vec::new());
        self
    }

    /// Subscriptions of all its feeds are enabled from the start.
    #[must_use]
    pub fn subscribed(mut self) -> Self {
        self.subscribed = self.feeds.iter().map(|f| f.content_type).collect();
        self
    }

    /// Unified audit logging is off.
    #[must_use]
    pub fn audit_log_off(mut self) -> Self {
        self.audit_log = false;
        self
    }

    /// Sets the request budget.
    #[must_use]
    pub fn requests_per_minute(mut self, requests: u32) -> Self {
        self.requests_per_minute = Some(requests);
        self
    }
}

impl Feed {
    /// A feed without content.
    #[must_use]
    pub fn new(content_type: ContentType) -> Self {
        Self {
            content_type,
            backlog: 0,
            backlog_days: 1.0,
            live_every_ms: None,
            records: few_records(),
            body_bytes: None,
            quirks: Quirks::default(),
        }
    }

    /// Blobs that exist at the start, spread over the past `days`.
    #[must_use]
    pub fn backlog(mut self, blobs: u32, days: f64) -> Self {
        self.backlog = blobs;
        self.backlog_days = days;
        self
    }

    /// Fewest and most records of a blob.
    #[must_use]
    pub fn records(mut self, fewest: u32, most: u32) -> Self {
        self.records = (fewest, most.max(fewest));
        self
    }

    /// Body size to aim at, in bytes of JSON.
    #[must_use]
    pub fn body_bytes(mut self, bytes: u64) -> Self {
        self.body_bytes = Some(bytes);
        self
    }

    /// A new blob every so many milliseconds.
    #[must_use]
    pub fn live_every_ms(mut self, ms: u64) -> Self {
        self.live_every_ms = Some(ms);
        self
    }

    /// Sets the quirks.
    #[must_use]
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }
}
