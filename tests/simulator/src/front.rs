//! The cloud's front: routes requests, lets faults strike, keeps the books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::activity;
use crate::content_type::ContentType;
use crate::control;
use crate::custody::Receiver;
use crate::entra;
use crate::faults::{Effect, Endpoint, Question};
use crate::graph;
use crate::http::{Handler, Request, Response, Sent};
use crate::ledger::{Scope, Seen, TokenRequest, Wait};
use crate::spoil::{instead, spoil};
use crate::world::World;

/// The cloud as a handler of requests.
pub(crate) struct Front {
    pub(crate) world: Arc<World>,
    pub(crate) serves: Serves,
}

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Authority and management host in one.
    Both,
    /// The authority.
    Authority,
    /// The management host.
    Management,
    /// Microsoft Graph.
    Graph,
}

/// What is noted about a request.
pub(crate) enum Ticket {
    /// Of the control interface.
    Control,
    /// Of the cloud.
    Request {
        /// Its place in the log.
        place: u64,
        endpoint: Endpoint,
        tenant: Option<Uuid>,
        /// What is the same when it is asked for again.
        what: String,
    },
}

enum Route {
    Entra(entra::Route),
    Machine(entra::MachineService),
    Activity(activity::Route),
    Graph(graph::Route),
    Unknown,
}

impl Route {
    /// What the port has of what a request asks for.
    fn of(request: &Request, serves: Serves) -> Self {
        if serves == Serves::Graph {
            return graph::Route::of(&request.path).map_or(Self::Unknown, Self::Graph);
        }
        let entra = || entra::Route::of(&request.path).filter(|_| serves != Serves::Management).map(Self::Entra);
        let machine =
            || entra::MachineService::of(&request.path).filter(|_| serves != Serves::Management).map(Self::Machine);
        let activity =
            || activity::Route::of(&request.path).filter(|_| serves != Serves::Authority).map(Self::Activity);
        machine().or_else(entra).or_else(activity).unwrap_or(Self::Unknown)
    }

    fn receiver(&self, serves: Serves) -> Receiver {
        match (self, serves) {
            (Self::Entra(_) | Self::Machine(_), _) => Receiver::Authority,
            (Self::Activity(_), _) => Receiver::Activity,
            (Self::Graph(_), _) => Receiver::Graph,
            (Self::Unknown, Serves::Authority) => Receiver::StrangeToAuthority,
            (Self::Unknown, _) => Receiver::StrangeToManagement,
        }
    }
}

impl Handler for Front {
    type Ticket = Ticket;

    fn connected(&self) {
        self.world.lock().book.connections += 1;
    }

    fn answer(&self, request: &Request) -> (Response, Ticket) {
        let world = &self.world;
        if let Some(rest) = request.path.strip_prefix("/_sim/") {
            return (control::over_http(world, rest, request), Ticket::Control);
        }
        let route = Route::of(request, self.serves);
        let question = question(world, request, &route);
        let what = what(request);
        let place = self.note(request, &route, &question, &what);
        let uptime = world.clock.uptime();
        let effect = world.lock().faults.strike(&question, uptime);
        let mut response = respond(world, request, &route, &question, effect);
        if question.endpoint.is_activity() {
            response.latency += Duration::from_millis(world.lock().service.latency_ms);
        }
        if matches!(question.endpoint, Endpoint::Token | Endpoint::ManagedIdentity) {
            world.lock().keep_answered(&response);
        }
        (response, Ticket::Request { place, endpoint: question.endpoint, tenant: question.tenant, what })
    }

    fn told(&self, wait: Wait) {
        let uptime = self.world.clock.uptime();
        self.world.lock().book.told_to_wait(wait, uptime);
    }

    fn sent(&self, ticket: Ticket, sent: Sent) {
        let Ticket::Request { place, endpoint, tenant, what } = ticket else { return };
        let uptime = self.world.clock.uptime();
        let mut state = self.world.lock();
        state.book.answered_with(what, sent.status, uptime);
        state.book.answered(place, tenant, endpoint, sent.status, sent.bytes);
        if let Some(blob) = sent.delivered.and_then(|n| state.blob_mut(n)) {
            blob.fetched += 1;
        }
        for number in sent.announced {
            let revision = tenant.and_then(|tenant| {
                state.boards_mut(tenant)?.revisions.get_mut(usize::try_from(number).unwrap_or(usize::MAX))
            });
            if let Some(revision) = revision {
                revision.served += 1;
            }
        }
        for number in sent.listed {
            if let Some(blob) = state.blob_mut(number) {
                blob.listed += 1;
            }
        }
    }

    fn date(&self) -> String {
        self.world.clock.date_header()
    }
}

impl Front {
    fn note(&self, request: &Request, route: &Route, question: &Question, what: &str) -> u64 {
        let world = &self.world;
        let at = world.clock.now();
        match route {
            Route::Activity(route) => activity::remark(world, request, route, question.content_type),
            Route::Graph(_) => graph::remark(world, request),
            Route::Entra(_) | Route::Machine(_) | Route::Unknown => {}
        }
        let uptime = world.clock.uptime();
        let mut state = world.lock();
        state.keep_asked(request);
        state.note_leaks(request, route.receiver(self.serves), at);
        if let Some(times) = state.book.hurried(what, uptime) {
            state.book.warning(at, format!("asked for again at once after a 5xx, {times} times: {what}"));
        }
        if let (Endpoint::Token, Some(tenant)) = (question.endpoint, question.tenant)
            && let Some(left) = state.book.disregarded(Scope::Entra(tenant), uptime)
        {
            state.book.violation(
                at,
                format!("tenant {tenant}: a token request {:.1} s before a delivered wait ended", left.as_secs_f64()),
            );
        }
        state.book.arrived(Seen {
            at,
            endpoint: question.endpoint,
            tenant: question.tenant,
            request: request.line(),
            status: None,
        })
    }
}

fn question(world: &World, request: &Request, route: &Route) -> Question {
    match route {
        Route::Entra(route) => Question {
            endpoint: route.endpoint(),
            tenant: entra::tenant_named(world, &route.tenant),
            content_type: None,
            blob: None,
        },
        Route::Activity(route) => {
            let tenant = route.tenant_id();
            let named = request.parameters().get("contenttype").and_then(|t| ContentType::parse(t));
            let blob = tenant.and_then(|t| {
                let state = world.lock();
                state.blob_named(t, &route.content_id).map(|b| (b.number, b.content_type))
            });
            Question {
                endpoint: route.endpoint,
                tenant,
                content_type: named.or(blob.map(|(_, content_type)| content_type)),
                blob: blob.map(|(number, _)| number),
            }
        }
        Route::Graph(route) => Question {
            endpoint: route.endpoint(),
            tenant: graph::tenant_of(world, request),
            content_type: None,
            blob: None,
        },
        Route::Machine(_) => {
            Question { endpoint: Endpoint::ManagedIdentity, tenant: None, content_type: None, blob: None }
        }
        Route::Unknown => Question { endpoint: Endpoint::Unknown, tenant: None, content_type: None, blob: None },
    }
}

/// What a request asks for, without what differs when it is asked for again: who asks, and up to when.
fn what(request: &Request) -> String {
    let passing = |name: &str| matches!(name, "publisheridentifier" | "endtime");
    let parameters: BTreeMap<_, _> = request.parameters().into_iter().filter(|(name, _)| !passing(name)).collect();
    parameters
        .iter()
        .fold(format!("{} {}", request.method, request.path), |what, (name, value)| what + " " + name + "=" + value)
}

/// The sound answer.
fn sound(world: &World, request: &Request, route: &Route) -> Response {
    match route {
        Route::Entra(route) => entra::answer(world, request, route),
        Route::Machine(service) => entra::answer_machine(world, request, *service),
        Route::Activity(route) => activity::answer(world, request, route),
        Route::Graph(route) => graph::answer(world, request, route),
        Route::Unknown => Response::new(404, "text/html", "<html><body>Not found</body></html>"),
    }
}

fn respond(world: &World, request: &Request, route: &Route, question: &Question, effect: Option<Effect>) -> Response {
    let Some(effect) = effect else {
        return sound(world, request, route);
    };
    match instead(world, request, question, &effect) {
        Some(response) => {
            note_token_fault(world, request, question, &effect);
            response
        }
        None => spoil(world, request, question, sound(world, request, route), effect),
    }
}

/// A fault at the token endpoint leaves a line in the book too.
fn note_token_fault(world: &World, request: &Request, question: &Question, effect: &Effect) {
    if question.endpoint != Endpoint::Token {
        return;
    }
    let form = request.form();
    let text = |name: &str| form.get(name).cloned().unwrap_or_default();
    let note = TokenRequest {
        at: world.clock.now(),
        tenant: question.tenant,
        client_id: text("client_id"),
        audience: if form.contains_key("resource") {
            text("resource")
        } else {
            text("scope").trim_end_matches("/.default").to_owned()
        },
        grant: text("grant_type"),
        version: if request.path.ends_with("/v2.0/token") { 2 } else { 1 },
        credential: String::new(),
        refused: Some(if let Effect::Entra { code, .. } = effect { *code } else { 0 }),
    };
    world.lock().book.token_requests.push(note);
}

/// The foreign host: answers everything with an empty list and notes whatever it should not have got.
pub(crate) struct Foreign {
    pub(crate) world: Arc<World>,
}

impl Handler for Foreign {
    type Ticket = ();

    fn connected(&self) {
        self.world.lock().book.connections += 1;
    }

    fn answer(&self, request: &Request) -> (Response, ()) {
        let now = self.world.clock.now();
        let mut state = self.world.lock();
        state.book.foreign_requests += 1;
        state.keep_asked(request);
        state.note_leaks(request, Receiver::Foreign, now);
        (Response::new(200, "application/json; charset=utf-8", "[]"), ())
    }

    fn told(&self, _: Wait) {}

    fn sent(&self, (): (), _: Sent) {}

    fn date(&self) -> String {
        self.world.clock.date_header()
    }
}
