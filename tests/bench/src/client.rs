//! The bare client: what any program must do to have the same bytes on disk. It lists, downloads, decompresses and
//! writes to one file, and calls fsync once at the end; it keeps no state, checks nothing and indexes nothing.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use crate::cloud::{CLIENT_ID, Cloud, SECRET};
use crate::measure::Figures;

/// What it is told.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) url: String,
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    pub(crate) content_type: String,
    pub(crate) concurrency: usize,
    pub(crate) output: PathBuf,
}

/// Runs it as a process of its own and reads its figures until it ends.
pub(crate) async fn measure(cloud: &Cloud, content_type: &str, concurrency: usize) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let mut process = Command::new(std::env::current_exe()?)
        .args(["client", &cloud.url, &cloud.tenants[0], CLIENT_ID, SECRET, content_type, &concurrency.to_string()])
        .arg(dir.path().join("bodies"))
        .spawn()?;
    let mut last = None;
    loop {
        // A process that has ended but is not waited for still has its times, but no memory.
        if let Ok(figures) = Figures::of(process.id(), started) {
            last = Some(figures);
        }
        if let Some(status) = process.try_wait()? {
            ensure!(status.success(), "the bare client ended with {status}");
            return last.context("the bare client ended too soon");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The client's whole work.
pub(crate) async fn run(job: &Job) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the ban keeps the daemon's requests in one place")]
    let http = reqwest::Client::new();
    let token: Value = http
        .post(format!("{}/{}/oauth2/v2.0/token", job.url, job.tenant))
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &job.client_id),
            ("client_secret", &job.secret),
            ("scope", &format!("{}/.default", job.url)),
        ])
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let token = token["access_token"].as_str().context("no token")?.to_owned();
    let uris = list(&http, job, &token).await?;
    let mut output = std::fs::File::create(&job.output)?;
    let mut bodies = stream::iter(uris)
        .map(|uri| {
            let request = http.get(uri).bearer_auth(&token).header("accept-encoding", "gzip");
            async move {
                let packed = request.send().await?.error_for_status()?.bytes().await?;
                let mut body = Vec::new();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut body)?;
                anyhow::Ok(body)
            }
        })
        .buffer_unordered(job.concurrency);
    while let Some(body) = bodies.next().await {
        output.write_all(&body?)?;
    }
    output.sync_all()?;
    Ok(())
}

/// Lists the last days in windows of 24 hours, through all their pages.
async fn list(http: &reqwest::Client, job: &Job, token: &str) -> anyhow::Result<Vec<String>> {
    let feed = format!("{}/api/v1.0/{}/activity/feed/subscriptions", job.url, job.tenant);
    let query = [("contentType", job.content_type.as_str()), ("PublisherIdentifier", &job.tenant)];
    // The daemon has started the subscription in its turn; a refusal says just that.
    http.post(format!("{feed}/start")).query(&query).bearer_auth(token).header("content-length", "0").send().await?;
    let mut uris = Vec::new();
    for days_ago in (0..6_u64).rev() {
        let time = |days: u64| {
            let output = Command::new("date")
                .args(["-u", "+%Y-%m-%dT%H:%M:%S", "-d"])
                .arg(format!("{days} days ago"))
                .output()?;
            anyhow::Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let (start, end) = (time(days_ago + 1)?, time(days_ago)?);
        let first =
            http.get(format!("{feed}/content")).query(&query).query(&[("startTime", &start), ("endTime", &end)]);
        let mut next = Some(first.bearer_auth(token).send().await?.error_for_status()?);
        while let Some(answer) = next {
            let link = answer.headers().get("NextPageUri").map(|link| link.to_str().map(str::to_owned)).transpose()?;
            let page: Value = answer.json().await?;
            uris.extend(
                page.as_array().into_iter().flatten().filter_map(|blob| blob["contentUri"].as_str().map(str::to_owned)),
            );
            next = match link {
                Some(link) => Some(http.get(link).bearer_auth(token).send().await?.error_for_status()?),
                None => None,
            };
        }
    }
    Ok(uris)
}
