//! Changing a running cloud: the same commands in-process ([`Control`]) and over HTTP (`POST /_sim/control`).
//!
//! The control interface is outside the simulated world: no token, no faults, no entry in the books.
//!
//! | request | answer |
//! |---|---|
//! | `GET /_sim/ledger` | the [`Ledger`]; `?blobs=false` without the blobs |
//! | `GET /_sim/expected?tenant=ID` | the record ids of [`Ledger::expected_ids`], one a line |
//! | `GET /_sim/body?blob=N` | a blob's body, made again |
//! | `GET /_sim/sha256?tenant=ID` | `contentId`, SHA-256 and number of records of each offered blob, one a line |
//! | `POST /_sim/control` | a [`Command`] as JSON; the answer is an [`Outcome`] |

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::blob::BlobSpec;
use crate::content_type::ContentType;
use crate::entra::registration::Registration;
use crate::faults::Fault;
use crate::graph::Board;
use crate::hooks::{HookChange, HookSeen};
use crate::http::{Request, Response};
use crate::ledger::Ledger;
use crate::records::Recipe;
use crate::scenario::{App, Consent, Der, Entra, Forgery, Person, Tenant};
use crate::world::{Host, SubscriptionStatus, World};

/// A change of the running cloud.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Adds blobs.
    AddBlobs(BlobSpec),
    /// Adds a tenant with its backlog. Of a present one the settings are replaced; its content and subscriptions stay.
    AddTenant(Tenant),
    /// Removes a tenant; its tokens stop working.
    RemoveTenant(Uuid),
    /// Registers an app or replaces its credentials (all of them: what is left out is revoked).
    SetApp(App),
    /// Adds a fault.
    AddFault(Fault),
    /// Removes a fault by its number.
    RemoveFault(u64),
    /// Removes the faults of one tenant, or all.
    ClearFaults(Option<Uuid>),
    /// Turns unified audit logging on or off.
    SetAuditLog {
        /// The tenant.
        tenant: Uuid,
        /// Whether it is on.
        on: bool,
    },
    /// Changes the roles granted to an app; `None` withdraws consent.
    SetConsent {
        /// The tenant.
        tenant: Uuid,
        /// The app.
        client_id: Uuid,
        /// The roles.
        roles: Option<Vec<String>>,
    },
    /// Changes who can sign in to a tenant.
    SetPeople {
        /// The tenant.
        tenant: Uuid,
        /// Who can; nobody is nobody.
        people: Vec<Person>,
    },
    /// Replaces the settings of sign-in and tokens.
    SetEntra(Box<Entra>),
    /// Makes a new signing key and uses it from now on.
    RollKeys {
        /// Whether the old ones stay published, as Entra does it for a while.
        keep_old: bool,
    },
    /// Changes a subscription as an administrator does.
    SetSubscription {
        /// The tenant.
        tenant: Uuid,
        /// Which subscription.
        content_type: ContentType,
        /// Its new status.
        status: SubscriptionStatus,
    },
    /// Does something to a webhook, of which nobody is told.
    ChangeHook {
        /// The tenant.
        tenant: Uuid,
        /// Of which subscription.
        content_type: ContentType,
        /// What.
        change: HookChange,
    },
    /// Lets notifications be lost, or come late.
    SetNotices {
        /// Whether all of them are lost.
        lose: bool,
        /// By how many milliseconds they are late.
        late_ms: u64,
    },
    /// Replaces the sensitive information types of a tenant: ids and names, the same in every language.
    SetSensitiveTypes {
        /// The tenant.
        tenant: Uuid,
        /// The types; `None` are those of everybody.
        types: Option<Vec<(String, String)>>,
    },
    /// Changes a tenant's request budget.
    SetBudget {
        /// The tenant.
        tenant: Uuid,
        /// Requests a minute.
        requests_per_minute: Option<u32>,
    },
    /// Lets blobs expire now.
    ExpireBlobs(Vec<u64>),
    /// Makes all tokens of a tenant invalid before their time.
    RevokeTokens(Uuid),
    /// Changes the lifetime of tokens issued from now on.
    SetTokenLifetime {
        /// Seconds.
        lifetime_s: u64,
        /// `refresh_in`, in seconds.
        refresh_in_s: Option<u64>,
    },
    /// Stops or resumes the making of live content.
    Pause(bool),
    /// Shifts the service's time against this machine's, in milliseconds.
    SetClockOffset(i64),
    /// Shifts the `Date` header against the service's time, in milliseconds.
    SetDateOffset(i64),
    /// Changes the number of entries of a listing page.
    SetPageSize(usize),
    /// Changes the wait between two starts of a subscription, in seconds.
    SetStartCooldown(u64),
    /// Lets a host take connections, or refuse them and end those that there are. In a cloud of one host that shuts out
    /// this interface too.
    SetReachable {
        /// The host.
        host: Host,
        /// Whether it takes connections.
        reachable: bool,
    },
    /// Tells a tenant of an issue or a message, or changes one: the fields, `id` among them, are merged into what was told.
    Announce {
        /// The tenant.
        tenant: Uuid,
        /// Where.
        board: Board,
        /// The fields.
        item: serde_json::Value,
        /// How long ago it was changed, in milliseconds.
        #[serde(default)]
        ago_ms: i64,
    },
    /// Takes an issue or a message away.
    Withdraw {
        /// The tenant.
        tenant: Uuid,
        /// Where.
        board: Board,
        /// Its id.
        id: String,
    },
    /// Changes the state of a service.
    SetService {
        /// The tenant.
        tenant: Uuid,
        /// The service's id, such as `Exchange`.
        id: String,
        /// Its state, such as `serviceDegradation`.
        status: String,
    },
    /// So many times from now on, an item is changed between two pages of Graph's lists.
    ShiftWhilePaging(u64),
    /// Strikes violations and warnings from the books.
    ForgetViolations,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Numbers of the blobs added.
    pub blobs: Vec<u64>,
    /// Number of the fault added.
    pub fault: Option<u64>,
}

/// A handle that changes a running cloud. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    world: Arc<World>,
}

#[expect(clippy::must_use_candidate, reason = "called for what they do; the numbers are for those who need them")]
impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Carries out any command.
    pub fn apply(&self, command: Command) -> Outcome {
        apply(&self.world, command)
    }

    /// Adds blobs and returns their numbers.
    pub fn add_blobs(&self, spec: BlobSpec) -> Vec<u64> {
        self.apply(Command::AddBlobs(spec)).blobs
    }

    /// The content id of the blob with this number.
    ///
    /// # Panics
    /// If there is no such blob.
    #[must_use]
    pub fn content_id(&self, blob: u64) -> String {
        self.world.lock().blob(blob).expect("a blob with this number").content_id.clone()
    }

    /// Adds a tenant, or replaces the settings of a present one and adds the content of its feeds.
    pub fn add_tenant(&self, tenant: Tenant) {
        self.apply(Command::AddTenant(tenant));
    }

    /// Removes a tenant.
    pub fn remove_tenant(&self, tenant: Uuid) {
        self.apply(Command::RemoveTenant(tenant));
    }

    /// Registers an app or replaces its credentials.
    pub fn set_app(&self, app: App) {
        self.apply(Command::SetApp(app));
    }

    /// Revokes all certificates of an app.
    pub fn revoke_certificates(&self, client_id: Uuid) {
        let mut state = self.world.lock();
        if let Some(app) = state.apps.get_mut(&client_id) {
            Arc::make_mut(app).certificates.clear();
        }
    }

    /// Keeps every secret that is shown or handed out from now on, for [`credentials`](Self::credentials).
    pub fn keep_credentials(&self) {
        self.world.lock().keep_credentials();
    }

    /// Client secrets, assertions, tokens, codes, verifiers, states and nonces that were kept.
    #[must_use]
    pub fn credentials(&self) -> BTreeSet<String> {
        self.world.lock().credentials.clone().unwrap_or_default()
    }

    /// Adds a fault and returns its number.
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.apply(Command::AddFault(fault)).fault.unwrap_or(0)
    }

    /// Removes a fault.
    pub fn remove_fault(&self, fault: u64) {
        self.apply(Command::RemoveFault(fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.apply(Command::ClearFaults(None));
    }

    /// Turns unified audit logging on or off.
    pub fn set_audit_log(&self, tenant: Uuid, on: bool) {
        self.apply(Command::SetAuditLog { tenant, on });
    }

    /// Grants an app these roles.
    pub fn grant(&self, tenant: Uuid, client_id: Uuid, roles: &[&str]) {
        let roles = Some(roles.iter().map(|r| (*r).to_owned()).collect());
        self.apply(Command::SetConsent { tenant, client_id, roles });
    }

    /// Withdraws consent from an app.
    pub fn withdraw_consent(&self, tenant: Uuid, client_id: Uuid) {
        self.apply(Command::SetConsent { tenant, client_id, roles: None });
    }

    /// Changes who can sign in to a tenant.
    pub fn set_people(&self, tenant: Uuid, people: impl IntoIterator<Item = Person>) {
        self.apply(Command::SetPeople { tenant, people: people.into_iter().collect() });
    }

    /// Changes the settings of sign-in and tokens.
    pub fn set_entra(&self, change: impl FnOnce(&mut Entra)) {
        change(&mut self.world.lock().entra);
    }

    /// Spoils the `id_token`s from now on, or no more.
    pub fn set_forgery(&self, forgery: Option<Forgery>) {
        self.set_entra(|entra| entra.forgery = forgery);
    }

    /// Makes a new signing key and uses it from now on; the old ones stay published or are withdrawn.
    pub fn roll_keys(&self, keep_old: bool) {
        self.apply(Command::RollKeys { keep_old });
    }

    /// Changes a subscription as an administrator does.
    pub fn set_subscription(&self, tenant: Uuid, content_type: ContentType, status: SubscriptionStatus) {
        self.apply(Command::SetSubscription { tenant, content_type, status });
    }

    /// Does something to a webhook, of which nobody is told.
    pub fn change_hook(&self, tenant: Uuid, content_type: ContentType, change: HookChange) {
        self.apply(Command::ChangeHook { tenant, content_type, change });
    }

    /// Lets notifications be lost, or come late; those that are held back come when `late` is made less.
    pub fn set_notices(&self, lose: bool, late: Duration) {
        self.apply(Command::SetNotices { lose, late_ms: u64::try_from(late.as_millis()).unwrap_or(u64::MAX) });
    }

    /// The webhook of a subscription, if it has one.
    #[must_use]
    pub fn hook(&self, tenant: Uuid, content_type: ContentType) -> Option<HookSeen> {
        let now = self.world.clock.now();
        self.world.lock().hook(tenant, content_type, now)
    }

    /// Trusts these authorities, and no others, for what webhooks show.
    pub fn trust_hooks_of(&self, roots: impl IntoIterator<Item = Der>) {
        self.world.lock().service.notices.roots = roots.into_iter().collect();
    }

    /// Replaces the sensitive information types of a tenant by these ids and names.
    pub fn set_sensitive_types(&self, tenant: Uuid, types: &[(&str, &str)]) {
        let types = Some(types.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect());
        self.apply(Command::SetSensitiveTypes { tenant, types });
    }

    /// Changes a tenant's request budget.
    pub fn set_budget(&self, tenant: Uuid, requests_per_minute: Option<u32>) {
        self.apply(Command::SetBudget { tenant, requests_per_minute });
    }

    /// Lets blobs expire now.
    pub fn expire_blobs(&self, blobs: impl IntoIterator<Item = u64>) {
        self.apply(Command::ExpireBlobs(blobs.into_iter().collect()));
    }

    /// Makes all tokens of a tenant invalid before their time.
    pub fn revoke_tokens(&self, tenant: Uuid) {
        self.apply(Command::RevokeTokens(tenant));
    }

    /// Changes the lifetime of tokens issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration, refresh_in: Option<Duration>) {
        self.apply(Command::SetTokenLifetime {
            lifetime_s: lifetime.as_secs(),
            refresh_in_s: refresh_in.map(|r| r.as_secs()),
        });
    }

    /// Stops the making of live content.
    pub fn pause(&self) {
        self.apply(Command::Pause(true));
    }

    /// Resumes the making of live content.
    pub fn resume(&self) {
        self.apply(Command::Pause(false));
    }

    /// Shifts the service's time against this machine's.
    pub fn set_clock_offset_ms(&self, ms: i64) {
        self.apply(Command::SetClockOffset(ms));
    }

    /// Shifts the `Date` header against the service's time.
    pub fn set_date_offset_ms(&self, ms: i64) {
        self.apply(Command::SetDateOffset(ms));
    }

    /// Lets a host take connections, or refuse them and end those that there are.
    pub fn set_reachable(&self, host: Host, reachable: bool) {
        self.apply(Command::SetReachable { host, reachable });
    }

    /// Tells a tenant of an issue or a message, or changes one, now.
    pub fn announce(&self, tenant: Uuid, board: Board, item: serde_json::Value) {
        self.apply(Command::Announce { tenant, board, item, ago_ms: 0 });
    }

    /// The same of what was changed so long ago.
    pub fn announced_ago(&self, tenant: Uuid, board: Board, item: serde_json::Value, ago: Duration) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        self.apply(Command::Announce { tenant, board, item, ago_ms });
    }

    /// Takes an issue or a message away.
    pub fn withdraw(&self, tenant: Uuid, board: Board, id: &str) {
        self.apply(Command::Withdraw { tenant, board, id: id.to_owned() });
    }

    /// Changes the state of a service.
    pub fn set_service(&self, tenant: Uuid, id: &str, status: &str) {
        self.apply(Command::SetService { tenant, id: id.to_owned(), status: status.to_owned() });
    }

    /// So many times from now on, an item is changed between two pages of Graph's lists.
    pub fn shift_while_paging(&self, times: u64) {
        self.apply(Command::ShiftWhilePaging(times));
    }

    /// Strikes violations and warnings from the books.
    pub fn forget_violations(&self) {
        self.apply(Command::ForgetViolations);
    }
}

fn apply(world: &World, command: Command) -> Outcome {
    let now = world.clock.now();
    let uptime = world.clock.uptime();
    let mut state = world.lock();
    let mut outcome = Outcome::default();
    match command {
        Command::AddBlobs(spec) => outcome.blobs = state.add_blobs(&spec, now),
        Command::AddTenant(tenant) => {
            state.add_tenant(tenant, now, world.uptime_ms());
            drop(state);
            world.wake.notify_one();
        }
        Command::RemoveTenant(tenant) => {
            state.tenants.remove(&tenant);
        }
        Command::SetApp(app) => {
            state.apps.insert(app.client_id, Arc::new(Registration::new(&app)));
        }
        Command::AddFault(fault) => outcome.fault = Some(state.faults.add(fault, uptime)),
        Command::RemoveFault(id) => state.faults.remove(id),
        Command::ClearFaults(tenant) => state.faults.clear(tenant),
        Command::SetSubscription { tenant, content_type, status } => {
            state.set_subscription(tenant, content_type, status, now);
        }
        Command::ChangeHook { tenant, content_type, change } => state.change_hook(tenant, content_type, change, now),
        Command::SetNotices { lose, late_ms } => {
            state.service.notices.lose = lose;
            state.service.notices.late_ms = late_ms;
        }
        Command::ExpireBlobs(numbers) => {
            for number in numbers {
                if let Some(blob) = state.blob_mut(number) {
                    blob.content_expiration = now;
                }
            }
        }
        Command::SetTokenLifetime { lifetime_s, refresh_in_s } => {
            state.entra.lifetime_s = lifetime_s;
            state.entra.refresh_in_s = refresh_in_s;
        }
        Command::Pause(paused) => state.paused = paused,
        Command::SetClockOffset(ms) => world.clock.set_offset(ms),
        Command::SetDateOffset(ms) => world.clock.set_date_offset(ms),
        Command::SetPageSize(entries) => state.service.page_size = entries,
        Command::SetStartCooldown(seconds) => state.service.start_cooldown_s = seconds,
        Command::SetReachable { host, reachable } => world.hosts.set_reachable(host, reachable),
        Command::ForgetViolations => state.book.forget(),
        Command::ShiftWhilePaging(times) => state.service.graph_shifts_while_paging = times,
        Command::Announce { tenant, board, item, ago_ms } => {
            if let Some(boards) = state.boards_mut(tenant) {
                boards.announce(board, &item, now, jiff::SignedDuration::from_millis(ago_ms));
            }
        }
        Command::Withdraw { tenant, board, id } => {
            if let Some(boards) = state.boards_mut(tenant) {
                boards.withdraw(board, &id);
            }
        }
        Command::SetService { tenant, id, status } => {
            if let Some(boards) = state.boards_mut(tenant) {
                boards.set_service(&id, &status);
            }
        }
        Command::SetAuditLog { tenant, on } => {
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.audit_log = on;
            }
        }
        Command::SetSensitiveTypes { tenant, types } => {
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.sensitive_types = types;
            }
        }
        Command::SetBudget { tenant, requests_per_minute } => {
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.requests_per_minute = requests_per_minute;
            }
        }
        Command::RevokeTokens(tenant) => {
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.token_generation += 1;
            }
        }
        Command::SetPeople { tenant, people } => {
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.people = people;
            }
        }
        Command::SetEntra(entra) => state.entra = *entra,
        Command::RollKeys { keep_old } => {
            drop(state);
            world.keys.roll(keep_old);
        }
        Command::SetConsent { tenant, client_id, roles } => {
            state.set_consent(tenant, client_id, roles.map(|roles| Consent { client_id, roles }));
        }
    }
    outcome
}

/// Answers a request to `/_sim/…`.
pub(crate) fn over_http(world: &World, path: &str, request: &Request) -> Response {
    let parameters = request.parameters();
    let tenant = || parameters.get("tenant").and_then(|t| Uuid::try_parse(t).ok());
    let bad = |text: String| Response::new(400, "text/plain", text);
    match (request.method.as_str(), path) {
        ("GET", "ledger") => {
            let mut ledger = world.ledger();
            if parameters.get("blobs").is_some_and(|b| b == "false") {
                ledger.blobs.clear();
            }
            Response::json(200, &ledger)
        }
        ("GET", "expected") => match tenant() {
            Some(tenant) => {
                let mut text = String::new();
                for id in world.ledger().expected_ids(tenant) {
                    text.push_str(&id);
                    text.push('\n');
                }
                Response::new(200, "text/plain", text)
            }
            None => bad("`tenant` must be a GUID".to_owned()),
        },
        ("GET", "sha256") => match tenant() {
            Some(tenant) => {
                let ledger: Ledger = world.ledger();
                let mut text = String::new();
                for blob in ledger.offered(tenant) {
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "{} {} {}", blob.content_id, blob.sha256(), blob.record_ids().len());
                }
                Response::new(200, "text/plain", text)
            }
            None => bad("`tenant` must be a GUID".to_owned()),
        },
        ("GET", "body") => {
            let number = parameters.get("blob").and_then(|n| n.parse().ok());
            let recipe: Option<Recipe> = number.and_then(|n| world.lock().blob(n).map(|b| b.recipe.clone()));
            match recipe {
                Some(recipe) => Response {
                    body: crate::http::Body::Stream(Box::new(recipe.chunks(u32::MAX))),
                    ..Response::new(200, "application/json", "")
                },
                None => bad("`blob` must be the number of a blob".to_owned()),
            }
        }
        ("POST", "control") => match serde_json::from_slice::<Command>(&request.body) {
            Ok(command) => Response::json(200, &apply(world, command)),
            Err(e) => bad(format!("not a command: {e}")),
        },
        _ => Response::empty(404),
    }
}
