//! The one way to the service, without one: what is done with its answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::failure::Failure;
use super::super::limit::Limit;
use super::super::slots::Slots;
use super::super::tree::{Parts, Tree};
use super::*;
use crate::activity::{ActivityClient, ActivityError, Limits, Operation, Reason, Refusal};
use crate::retry::Stage;
use crate::token::TokenSource;
use crate::token::testing::source;

struct Bench {
    tree: Arc<Tree>,
    shared: Shared,
    _dir: TempDir,
}

fn bench(token: TokenSource) -> Bench {
    let dir = TempDir::new().unwrap();
    let (_, shared) = super::registry(&dir);
    let settings = settings("http://127.0.0.1:1", &[tenant(1)]);
    let of = settings.tenants.values().next().unwrap();
    let limits = Limits { max_compressed: 1, max_decompressed: 1 };
    let (http, time) = (shared.http.clone(), Arc::clone(&shared.time));
    let client = ActivityClient::new(of.cloud.management.clone().unwrap(), of.id, PUBLISHER, http, time, limits);
    let tree = Tree::new(Parts {
        tenant: of.id,
        content_types: of.content_types.clone(),
        collect: settings.collect,
        webhook: None,
        dlp: None,
        client,
        token,
        store: shared.store.clone(),
        time: Arc::clone(&shared.time),
        report: shared.report.tenant(of.id, "contoso"),
        slots: Slots::new(8),
        course: Arc::default(),
        mended: false,
    });
    Bench { tree, shared, _dir: dir }
}

impl Bench {
    async fn close(self) {
        drop(self.tree);
        self.shared.store.close().await.unwrap();
    }
}

fn refusal(reason: Reason, status: u16, wait: Option<Duration>) -> ActivityError {
    ActivityError::Refused(Box::new(Refusal {
        operation: Operation::StartSubscription,
        status,
        reason,
        code: None,
        message: String::new(),
        wait,
        correlation_id: None,
        json: true,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_redirect_that_asks_for_a_wait_closes_the_gate() {
    let (token, _) = source(None);
    let bench = bench(token);
    for (wait, closed) in [(None, false), (Some(Duration::ZERO), false), (Some(Duration::from_secs(90)), true)] {
        let to = "https://busy.example".to_owned();
        let operation = Operation::ListContent;
        let answer = || ActivityError::Redirected { operation, status: 307, to: to.clone(), wait };
        bench.tree.ask(None, |_| std::future::ready(Err::<(), _>(answer()))).await.unwrap_err();
        assert_eq!(bench.tree.gate.closed_until().is_some(), closed, "{wait:?}");
    }
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_is_renewed_for_once() {
    let (token, requests) = source(None);
    let bench = bench(token);
    let sent = AtomicUsize::new(0);
    let dlp = Some(ContentType::Dlp);
    // A token that has just been issued is not replaced yet.
    bench.tree.ask(None, |_| std::future::ready(Ok(()))).await.unwrap();
    tokio::time::advance(Duration::from_mins(20)).await;
    let start = async |attempt: usize| {
        let answer = bench.tree.ask(dlp, |_| {
            sent.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<(), _>(refusal(Reason::PermissionMissing, 401, None)))
        });
        assert!(matches!(answer.await, Err(Failure::Refused(_))), "attempt {attempt}");
        assert_eq!(sent.load(Ordering::Relaxed), 1 + attempt);
    };
    for attempt in 1..=4 {
        start(attempt).await;
        assert_eq!(requests(), 2);
        tokio::time::advance(Duration::from_mins(5)).await;
    }
    // The token that replaced it is as good as a token gets before its time, whatever is refused with it.
    let listed = bench.tree.ask(Some(ContentType::Exchange), |_| {
        std::future::ready(Err::<(), _>(refusal(Reason::PermissionMissing, 401, None)))
    });
    assert!(listed.await.is_err());
    assert_eq!(requests(), 2);
    // The regular one does not bring the role either, and nobody hopes for another.
    tokio::time::advance(Duration::from_hours(1)).await;
    start(5).await;
    assert_eq!(requests(), 3);
    assert!(bench.tree.ask(dlp, |_| std::future::ready(Ok(()))).await.is_ok());
    assert_eq!(requests(), 3);
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_burst_of_throttlings_halves_the_limit_once() {
    let (token, _) = source(None);
    let bench = bench(token);
    let tree = &bench.tree;
    let grown = {
        let mut limit = tree.limit();
        *limit = Limit::new(8);
        while limit.now() < 8 {
            let sent = limit.sent();
            limit.succeeded(sent);
        }
        limit.now()
    };
    // Both are under way; the second answer comes when the wait of the first is over.
    let throttled = |after: Duration| async move {
        tokio::time::sleep(after).await;
        Err::<(), _>(refusal(Reason::Throttled, 429, Some(Duration::from_secs(1))))
    };
    let (mut one, mut two) = (tree.slots.place(tree.tenant), tree.slots.place(tree.tenant));
    let (first, second) = tokio::join!(
        tree.ask_holding(ContentType::Exchange, &mut one, |_| throttled(Duration::from_secs(1))),
        tree.ask_holding(ContentType::Exchange, &mut two, |_| throttled(Duration::from_mins(1))),
    );
    assert!(first.is_err() && second.is_err());
    assert_eq!((grown, tree.limit().now()), (8, 4));
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_retrieval_does_not_wait_at_a_closed_gate() {
    let (token, _) = source(None);
    let bench = bench(token);
    bench.tree.gate.close_for(Duration::from_hours(1));
    let mut place = bench.tree.slots.place(bench.tree.tenant);
    let asked = bench.tree.ask_holding(ContentType::Exchange, &mut place, |_| std::future::ready(Ok(())));
    assert!(matches!(asked.await, Err(Failure::Held)));
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_token_that_is_refused_the_requests_are_counted_and_not_those_who_wait() {
    let (token, requests) = source(Some(7_000_222));
    let bench = bench(token);
    for _ in 0..10 {
        let failure = bench.tree.ask(None, |_| std::future::ready(Ok(()))).await.unwrap_err();
        bench.tree.failed(Stage::List, Some(ContentType::Exchange), &failure);
        bench.tree.failed(Stage::Retrieve, None, &failure);
    }
    let told = bench.shared.report.snapshot().tenants[0].trouble.clone().unwrap();
    assert_eq!((told.attempts, requests()), (1, 1));
    bench.close().await;
}
