//! TLS at a listener: the handshake, and certificates that change while it listens.
//!
//! The handshake belongs to the caller's own task and not to `accept`, where one caller who stalls would hold up all; it
//! takes one of the bounded places and has a limit of its own.
//!
//! Files are looked at every few seconds. They are read again once they have changed and stood still for a look, since a
//! certificate and its key are not replaced in one step. Rejected: notifications of the kernel, which follow neither
//! links nor network file systems.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::config::{ConfigErrors, ListenerTls, Problem, Stamps};
use crate::tls::Tls;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How often the files of a listener are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How long after they could not be used they are read again although they have not changed.
const AGAIN: Duration = Duration::from_mins(10);

/// The caller's stream, once it is encrypted and the caller has shown what is demanded. `of` says who callers are.
///
/// Who speaks something else, trusts another CA or shows nothing is no event: anybody can do that, at any rate.
pub(super) async fn shake_hands<S>(stream: S, tls: &Tls, of: &str) -> Option<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(HANDSHAKE, TlsAcceptor::from(tls.config()).accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => debug!(%error, "a caller of the {of} did not get through the handshake"),
        Err(_) => debug!(seconds = HANDSHAKE.as_secs(), "a caller of the {of} took too long for the handshake"),
    }
    None
}

/// When the files of a listener's certificate are read again.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// What the last look saw.
    seen: Option<Stamps>,
    /// What could not be used when it was read last, and when that was: the cause may lie outside the files.
    refused: Option<(Stamps, Instant)>,
}

impl Renewal {
    /// Looks at the files of `tls`, and [reads](ListenerTls::read_again) them if that is due.
    pub(super) async fn look(
        &mut self,
        tls: &ListenerTls,
    ) -> Option<Result<(ListenerTls, Vec<Problem>), ConfigErrors>> {
        let files = tls.clone();
        let seen = spawn_blocking(move || files.look()).await.ok()?;
        if !self.is_due(tls.stamps(), &seen) {
            return None;
        }
        let files = tls.clone();
        let read = spawn_blocking(move || files.read_again()).await.ok()?;
        self.refused = read.is_err().then(|| (seen, Instant::now()));
        Some(read)
    }

    /// Whether files that were `read` and are `now` seen are to be read again.
    fn is_due(&mut self, read: &Stamps, now: &Stamps) -> bool {
        let stands = self.seen.replace(now.clone()).is_some_and(|seen| seen == *now);
        let refused = self.refused.as_ref().is_some_and(|(refused, at)| refused == now && at.elapsed() < AGAIN);
        stands && now != read && !refused
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::tls::testing::pair;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_has_fifteen_seconds() {
        let (_silent, stream) = duplex(1024);
        let start = tokio::time::Instant::now();
        assert!(shake_hands(stream, &pair("localhost").0, "test").await.is_none());
        assert_eq!(start.elapsed(), HANDSHAKE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_plainly_is_sent_away_at_once() {
        let (mut plain, stream) = duplex(1024);
        plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let start = tokio::time::Instant::now();
        assert!(shake_hands(stream, &pair("localhost").0, "test").await.is_none());
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_read_once_they_have_changed_and_stand_still() {
        let stamps = |sizes: &[u64]| Stamps::of_sizes(sizes);
        let (read, mut renewal) = (stamps(&[1, 1]), Renewal::default());
        let due = |renewal: &mut Renewal, read: &Stamps, sizes: &[u64]| renewal.is_due(read, &stamps(sizes));
        assert!(!due(&mut renewal, &read, &[1, 1]) && !due(&mut renewal, &read, &[1, 1]), "as they were read");
        assert!(!due(&mut renewal, &read, &[2, 1]), "the certificate alone");
        assert!(!due(&mut renewal, &read, &[2, 2]), "and the key");
        assert!(due(&mut renewal, &read, &[2, 2]), "now they stand");
        renewal.refused = Some((stamps(&[2, 2]), Instant::now()));
        assert!(!due(&mut renewal, &read, &[2, 2]), "they could not be used");
        assert!(!due(&mut renewal, &read, &[3, 2]) && due(&mut renewal, &read, &[3, 2]), "until they change");
        assert!(!due(&mut renewal, &read, &[2, 2]), "and come back");
        tokio::time::advance(AGAIN).await;
        assert!(due(&mut renewal, &read, &[2, 2]), "or the cause may have gone");
        // Used; then a slow reload goes back to what it had read before.
        renewal.refused = None;
        let newer = stamps(&[3, 2]);
        assert!(!due(&mut renewal, &newer, &[3, 2]) && !due(&mut renewal, &newer, &[3, 2]), "they were used");
        assert!(due(&mut renewal, &read, &[3, 2]), "what is there is not what is shown");
    }
}
