//! `tenantry health report` and `tenantry health attachments`: files of Microsoft's, fetched by the daemon, which alone has
//! tokens, and written here.
//!
//! **Invariant:** no file is overwritten, and one that did not come whole is not left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;

use crate::cli::out::{print, print_outcome};
use crate::cli::output::Output;
use crate::cli::sheet::{moment, sheet};
use crate::cli::socket::{Place, RunningDaemon, SocketArgs, broke_off};
use crate::cli::{Ended, Exit, selection};
use crate::content::TenantId;
use crate::graph::Attachment;
use crate::web::graph::MEDIA;

/// So much of Microsoft's name of an attachment becomes part of a file's.
const LONGEST: usize = 60;

/// Media types, and how files of them end.
const ENDINGS: [(&str, &str); 11] = [
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/msword", "doc"),
    ("application/pdf", "pdf"),
    ("application/zip", "zip"),
    ("application/csv", "csv"),
    ("text/csv", "csv"),
    ("text/plain", "txt"),
    ("text/html", "html"),
    ("application/json", "json"),
    ("image/png", "png"),
    ("image/jpeg", "jpg"),
];

/// The arguments of `tenantry health report`.
#[derive(Debug, Args)]
#[command(
    after_help = "Microsoft has a review only of an issue whose status is postIncidentReviewPublished; it is fetched \
                        from there each time.\n\nExamples:\n  tenantry health report EX226792\n  \
                        tenantry health report EX226792 --tenant contoso -o review.docx"
)]
pub struct ReportArgs {
    /// The issue
    #[arg(value_name = "ISSUE")]
    pub issue: String,
    /// By whose token it is fetched: the tenant's id or its name [default: the only one]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Option<String>,
    /// Write to this file, which must not exist yet; `-` is standard output [default: the issue's id and an ending]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The arguments of `tenantry health attachments`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tenantry health attachments MC172851 --list\n  \
                        tenantry health attachments MC172851 --tenant contoso -o attachments\n  \
                        tenantry health attachments MC172851 --archive")]
pub struct AttachmentsArgs {
    /// The post
    #[arg(value_name = "MESSAGE")]
    pub message: String,
    /// By whose token they are fetched: the tenant's id or its name [default: the only one]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Option<String>,
    /// Write to this folder, which is made if it is missing [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Fetch them as one ZIP file
    #[arg(long)]
    pub archive: bool,
    /// Only list them
    #[arg(long, conflicts_with = "archive")]
    pub list: bool,
    /// Only list them, as JSON
    #[arg(long, conflicts_with = "archive")]
    pub json: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Fetches a review.
pub(super) async fn report(config: &Path, args: ReportArgs) -> anyhow::Result<Exit> {
    let (daemon, id) = find(config, args.socket, args.tenant.as_deref()).await?;
    let what = format!("/{id}/health/issues/{}/report", part(&args.issue)?);
    let name = |media: &str, begins: &[u8]| {
        args.output.clone().unwrap_or_else(|| format!("{}.{}", args.issue, ending(media, begins)).into())
    };
    fetch(&daemon, &what, name).await?;
    Ok(Exit::Done)
}

/// Fetches, or lists, attachments.
pub(super) async fn attachments(config: &Path, args: AttachmentsArgs) -> anyhow::Result<Exit> {
    let (daemon, id) = find(config, args.socket, args.tenant.as_deref()).await?;
    let what = format!("/{id}/health/messages/{}", part(&args.message)?);
    let folder = args.output.unwrap_or_default();
    if args.archive {
        make(&folder)?;
        fetch(&daemon, &format!("{what}/archive"), |_, _| folder.join(format!("{}.zip", args.message))).await?;
        return Ok(Exit::Done);
    }
    let listed: Vec<Attachment> = daemon.tenants(Method::GET, &format!("{what}/attachments"), None::<&()>).await?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&listed)?))?;
    } else if listed.is_empty() {
        let message = format!("`{}` has no attachments", args.message);
        return Err(Ended { exit: Exit::Failed, message }.into());
    } else if args.list {
        print(&render(&listed))?;
    } else {
        make(&folder)?;
        for (at, attachment) in listed.iter().enumerate() {
            let what = format!("{what}/attachments/{}", part(&attachment.id)?);
            let name =
                |media: &str, begins: &[u8]| folder.join(file_name(&args.message, at + 1, attachment, media, begins));
            fetch(&daemon, &what, name).await?;
        }
    }
    Ok(Exit::Done)
}

/// The daemon, and the tenant by whose token something is fetched.
async fn find(config: &Path, socket: SocketArgs, tenant: Option<&str>) -> anyhow::Result<(RunningDaemon, TenantId)> {
    let (daemon, names) = Place::of(config, socket)?.daemon_with_tokens().await?;
    Ok((daemon, one_of(&names, tenant)?))
}

fn one_of(names: &BTreeMap<TenantId, String>, tenant: Option<&str>) -> anyhow::Result<TenantId> {
    match (tenant, names.len()) {
        (Some(text), _) => Ok(selection::tenant(names, text)?),
        (None, 1) => names.keys().next().copied().ok_or_else(|| nobody(0)),
        (None, count) => Err(nobody(count)),
    }
}

fn nobody(count: usize) -> anyhow::Error {
    let message = match count {
        0 => "there is no tenant whose token could be used".to_owned(),
        count => format!("there are {count} tenants: say by whose token it is to be fetched, with `--tenant`"),
    };
    Ended { exit: Exit::Usage, message }.into()
}

/// A part of a path: what is none would lead elsewhere.
fn part(id: &str) -> anyhow::Result<&str> {
    if !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Ok(id);
    }
    let message = format!("`{id}` is no id: one has letters, digits and hyphens, like `EX226792` or `MC172851`");
    Err(Ended { exit: Exit::Usage, message }.into())
}

fn make(folder: &Path) -> anyhow::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|error| {
        let message = format!("cannot make the folder `{}`: {error}", folder.display());
        Ended { exit: Exit::Failed, message }.into()
    })
}

/// Writes what the daemon hands on into a file whose name is chosen by its media type and its beginning.
async fn fetch(daemon: &RunningDaemon, what: &str, name: impl FnOnce(&str, &[u8]) -> PathBuf) -> anyhow::Result<()> {
    let mut answer = daemon.file(what).await?;
    let media = answer.headers().get(MEDIA).and_then(|media| media.to_str().ok()).unwrap_or_default().to_owned();
    let cut_off = |error: &reqwest::Error| Ended {
        exit: Exit::TryAgain,
        message: format!("nothing was written, since the file did not come whole; {}", broke_off(error).message),
    };
    let mut piece = answer.chunk().await.map_err(|error| cut_off(&error))?;
    let path = name(&media, piece.as_deref().unwrap_or_default());
    let (output, mut interruption) = Output::create(&path)?;
    let mut bytes = 0;
    let copy = async {
        while let Some(more) = piece {
            bytes += more.len();
            output.write(more).await?;
            piece = answer.chunk().await.map_err(|error| cut_off(&error))?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        copied = copy => copied?,
        _ = interruption.comes() => {
            let message = "interrupted: the file is not complete, and nothing was written".to_owned();
            return Err(Ended { exit: Exit::Failed, message }.into());
        }
    }
    output.commit().await?;
    if path != Path::new("-") {
        print_outcome(&format!("`{}` written, {bytes} bytes\n", path.display()))?;
    }
    Ok(())
}

/// How a file ends, by its media type or, where that says nothing, by what it begins with.
fn ending(media: &str, begins: &[u8]) -> &'static str {
    let media = media.split(';').next().unwrap_or_default().trim();
    if let Some((_, ending)) = ENDINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(media)) {
        return ending;
    }
    match begins {
        [b'%', b'P', b'D', b'F', ..] => "pdf",
        // Microsoft's reviews are documents of Word, which are archives.
        [b'P', b'K', 3, 4, ..] => "docx",
        _ => "bin",
    }
}

/// The name of the file of an attachment: the post, its number, and what is left of Microsoft's name for it.
fn file_name(message: &str, number: usize, attachment: &Attachment, media: &str, begins: &[u8]) -> String {
    let told = attachment.name.as_deref().unwrap_or_default();
    let plain: String = told.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let words: Vec<_> = plain.split('-').filter(|word| !word.trim_matches('.').is_empty()).collect();
    let name: String = words.join("-").trim_matches('.').chars().take(LONGEST).collect();
    let has_ending = name.rsplit_once('.').is_some_and(|(_, end)| (1..=5).contains(&end.len()) && end.is_ascii());
    let media = attachment.content_type.as_deref().unwrap_or(media);
    let between = if name.is_empty() { "" } else { "-" };
    let end = if has_ending { String::new() } else { format!(".{}", ending(media, begins)) };
    format!("{message}-{number}{between}{name}{end}")
}

fn render(listed: &[Attachment]) -> String {
    let mut table = sheet(["id", "name", "type", "bytes", "changed"]);
    for Attachment { id, name, content_type, size, modified } in listed {
        let text = |text: &Option<String>| {
            text.as_deref()
                .unwrap_or("-")
                .chars()
                .map(|one| if one.is_control() { ' ' } else { one })
                .collect::<String>()
        };
        table.add_row([
            text(&Some(id.clone())),
            text(name),
            text(content_type),
            size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
            moment(*modified),
        ]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, media: &str) -> Attachment {
        let content_type = Some(media.to_owned()).filter(|media| !media.is_empty());
        Attachment { id: "1".to_owned(), name: Some(name.to_owned()), content_type, size: None, modified: None }
    }

    #[test]
    fn no_name_of_microsofts_leads_out_of_the_folder() {
        for (name, media, expected) in [
            ("table.csv", "", "MC1-1-table.csv"),
            ("A table for you is here.", "application/csv", "MC1-1-A-table-for-you-is-here.csv"),
            ("../../etc/passwd", "text/plain", "MC1-1-etc-passwd.txt"),
            ("..", "text/plain; charset=utf-8", "MC1-1.txt"),
            ("a\u{0}b\n\u{1b}[2J", "", "MC1-1-a-b-2J.bin"),
            ("C:\\x\\y.docx", "", "MC1-1-C-x-y.docx"),
        ] {
            assert_eq!(file_name("MC1", 1, &named(name, media), "", b""), expected);
        }
        assert!(file_name("MC1", 1, &named(&"long ".repeat(100), ""), "", b"").len() < 100);
    }

    #[test]
    fn files_end_by_what_they_are() {
        for (media, begins, expected) in [
            ("application/pdf", &b""[..], "pdf"),
            ("application/octet-stream", b"%PDF-1.7", "pdf"),
            ("application/octet-stream", b"PK\x03\x04...", "docx"),
            ("", b"else", "bin"),
        ] {
            assert_eq!(ending(media, begins), expected);
        }
    }

    #[test]
    fn one_tenant_needs_no_name_and_two_do() {
        let id = |n| TenantId::from_bytes([n; 16]);
        let mut names = BTreeMap::from([(id(1), "contoso".to_owned())]);
        assert_eq!(one_of(&names, None).unwrap(), id(1));
        names.insert(id(2), "fabrikam".to_owned());
        assert_eq!(one_of(&names, Some("Fabrikam")).unwrap(), id(2));
        for refused in [one_of(&names, None), one_of(&BTreeMap::new(), None), one_of(&names, Some("other"))] {
            assert_eq!(Exit::of(&refused.unwrap_err()), Exit::Usage);
        }
        for bad in ["", "a/b", "..", "a?b"] {
            assert_eq!(Exit::of(&part(bad).unwrap_err()), Exit::Usage);
        }
    }
}
