//! `tenantry fetch`: one content blob by its address, as Microsoft hands it out now, and whether that is what is stored.
//!
//! The daemon asks, if it runs, with the tenant's token. Else this command does so by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use clap::Args;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::out::notice;
use super::output::{Interruption, Output};
use super::pieces::Pieces;
use super::selection;
use super::single::{Ending, Single};
use super::socket::{Place, RunningDaemon, SocketArgs, Source};
use super::{Ended, Exit};
use crate::activity::ContentAddress;
use crate::report::StatusSnapshot;
use crate::tenant::content::{ContentError, StoredContent, hexadecimal, not_collected};
use crate::tenant::{Assignment, Registry, Roster};
use crate::web::content::{ContentRequest, STORED};

/// The arguments of `tenantry fetch`.
#[derive(Debug, Args)]
#[command(
    after_help = "The body is written exactly as it was received, after Content-Encoding is undone. Standard error says its \
                        SHA-256, and whether the same is stored. Nothing is stored by it; `tenantry backfill` is for that.\n\n\
                        An address outside the tenant's cloud is refused before anything is sent.\n\n\
                        Examples:\n  tenantry fetch 'https://manage.office.com/api/v1.0/TENANT-ID/activity/feed/audit/CONTENT-ID' \
                        | jq .\n  tenantry fetch -o blob.json 'https://…'"
)]
pub struct FetchArgs {
    /// Where Microsoft says that it is: the `contentUri` of a listing
    #[arg(value_name = "CONTENT URI")]
    pub content_uri: ContentAddress,
    /// The tenant, by its id or its name; must be the one that the address names [default: that]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Option<String>,
    /// Write to this file, which appears when it is complete [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Fetches, writes and compares.
pub async fn fetch(config: &Path, args: FetchArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, args.socket.clone())?;
    match place.source().await? {
        Source::Daemon(daemon) => {
            let status: StatusSnapshot = daemon.get("status").await?;
            let names = status.tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
            if let Some(text) = &args.tenant {
                is_meant(&args.content_uri, selection::tenant(&names, text)?)?;
            }
            // Opened first: nothing is asked for if it cannot be written.
            let (output, interruption) = Output::open(args.output.as_deref())?;
            Received::new(output).by_daemon(&daemon, &args.content_uri, interruption).await
        }
        Source::Store => alone(config, &args).await,
    }
}

fn is_meant(address: &ContentAddress, tenant: crate::content::TenantId) -> anyhow::Result<()> {
    if tenant == address.tenant {
        return Ok(());
    }
    let message = format!("the address is of the tenant `{}`, and `--tenant` of `{tenant}`", address.tenant);
    Err(Ended { exit: Exit::Usage, message }.into())
}

async fn alone(config: &Path, args: &FetchArgs) -> anyhow::Result<Exit> {
    // Before the directory is another one.
    let (output, interruption) = Output::open(args.output.as_deref())?;
    let tenants = [args.tenant.clone().unwrap_or_else(|| args.content_uri.tenant.to_string())];
    let log = BoxMakeWriter::new(io::stderr);
    let mut single = Single::start(config, "tenantry fetch", Assignment::Nothing, &tenants, log).await?;
    let named = single.roster.members().next().map(|member| is_meant(&args.content_uri, member.id));
    if let Some(Err(error)) = named {
        single.end(Ending::Over).await?;
        return Err(error);
    }
    let (registry, roster) = (Arc::clone(&single.registry), single.roster.clone());
    let fetch = Received::new(output).by_itself(&registry, &roster, &args.content_uri, interruption);
    let fetched = match single.during(fetch).await {
        Ok(fetched) => fetched,
        Err(ending) => {
            let message = ending.told().unwrap_or("the blob was not fetched").to_owned();
            Err(Ended { exit: Exit::TryAgain, message }.into())
        }
    };
    single.end(Ending::Over).await?;
    fetched
}

/// A body that is being received.
struct Received {
    output: Output,
    digest: Context,
    bytes: u64,
}

impl Received {
    fn new(output: Output) -> Self {
        Self { output, digest: Context::new(&SHA256), bytes: 0 }
    }

    async fn write(&mut self, piece: Bytes) -> anyhow::Result<()> {
        self.digest.update(&piece);
        self.bytes += piece.len() as u64;
        self.output.write(piece).await
    }

    async fn by_daemon(
        mut self,
        daemon: &RunningDaemon,
        address: &ContentAddress,
        mut interruption: Interruption,
    ) -> anyhow::Result<Exit> {
        let request = ContentRequest { content_uri: address.uri.clone() };
        let answer = daemon.of_tenant(address.tenant, "content", &request).await?;
        let stored = answer.headers().get(STORED).and_then(|stored| serde_json::from_slice(stored.as_bytes()).ok());
        let mut pieces = Pieces::of(answer);
        let copy = async {
            while let Some(piece) = pieces.next().await.map_err(|why| incomplete(&why))? {
                self.write(piece).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            copied = copy => copied?,
            interrupted = interruption.comes() => return Err(interrupted.into()),
        }
        self.finish(address, stored.as_ref()).await
    }

    async fn by_itself(
        mut self,
        registry: &Registry,
        roster: &Roster,
        address: &ContentAddress,
        mut interruption: Interruption,
    ) -> anyhow::Result<Exit> {
        let member = roster.member(address.tenant).map_err(|refusal| ended(&refusal.into()))?;
        let investigator = registry.investigator(address.tenant).ok_or_else(|| ended(&not_collected(member)))?;
        let fetch = async {
            let mut content = investigator.fetch(address).await.map_err(|error| ended(&error))?;
            while let Some(piece) = content.chunk().await.map_err(|trouble| incomplete(&trouble))? {
                self.write(piece).await?;
            }
            anyhow::Ok(content.stored)
        };
        let stored = tokio::select! {
            stored = fetch => stored?,
            interrupted = interruption.comes() => return Err(interrupted.into()),
        };
        self.finish(address, stored.as_ref()).await
    }

    /// Gives the file its name, and says what it is beside what is stored.
    async fn finish(self, address: &ContentAddress, stored: Option<&StoredContent>) -> anyhow::Result<Exit> {
        let Self { output, digest, bytes } = self;
        output.commit().await?;
        let sha256 = hexadecimal(digest.finish().as_ref());
        notice(&compared(address, &sha256, bytes, stored));
        Ok(Exit::Done)
    }
}

/// What was fetched, and whether the same is stored.
fn compared(address: &ContentAddress, sha256: &str, bytes: u64, stored: Option<&StoredContent>) -> String {
    let fetched = format!("content `{}`: {bytes} bytes, SHA-256 {sha256}", address.content_id);
    match stored {
        None => format!("{fetched}; it is not stored, as far as the partitions of the last nine days say"),
        Some(stored) => {
            let (of, seq, at) = (stored.content_type, stored.seq, stored.stored_at.strftime("%Y-%m-%d %H:%M:%S UTC"));
            if stored.sha256 == sha256 {
                format!("{fetched}; the same is stored as {of} {seq} since {at}")
            } else {
                format!(
                    "{fetched}; another body is stored as {of} {seq} since {at}: {} bytes, SHA-256 {}",
                    stored.bytes, stored.sha256
                )
            }
        }
    }
}

fn incomplete(why: &dyn std::fmt::Display) -> Ended {
    Ended { exit: Exit::TryAgain, message: format!("the body is not complete: {why}") }
}

fn ended(error: &ContentError) -> anyhow::Error {
    let exit = match error {
        ContentError::Refused(_) | ContentError::Foreign { .. } => Exit::Usage,
        ContentError::NotCollected { .. } | ContentError::NotDone { .. } => Exit::Failed,
        ContentError::Store(_) => Exit::TryAgain,
    };
    Ended { exit, message: error.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentType;

    #[test]
    fn it_says_whether_the_same_is_stored() {
        let uri = "https://manage.office.com/api/v1.0/41463f53-8812-40f4-890f-865bf6e35190/activity/feed/audit/a$b";
        let address: ContentAddress = uri.parse().unwrap();
        let stored = StoredContent {
            content_type: ContentType::Exchange,
            seq: 7,
            sha256: "ab".to_owned(),
            bytes: 12,
            stored_at: "2026-11-22T12:00:00Z".parse().unwrap(),
            revision: 0,
        };
        for (stored, told) in [
            (None, "content `a$b`: 10 bytes, SHA-256 ab; it is not stored"),
            (Some(&stored), "SHA-256 ab; the same is stored as Audit.Exchange 7 since 2026-11-22 12:00:00 UTC"),
            (
                Some(&StoredContent { sha256: "cd".to_owned(), ..stored.clone() }),
                "another body is stored as Audit.Exchange 7 since 2026-11-22 12:00:00 UTC: 12 bytes, SHA-256 cd",
            ),
        ] {
            let text = compared(&address, "ab", 10, stored);
            assert!(text.contains(told), "{text}");
        }
    }
}
