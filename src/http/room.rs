//! Room for the answers that are read as a whole, so that their memory is bounded for the process, whatever is sent.
//!
//! An answer takes a [`Place`] when its body begins and keeps it as long as what it says is kept. Nearly all are small;
//! one that becomes larger than [`SMALL`] waits for one of few places more, of which each [`Share`] has one.
//!
//! **Invariants:** no more than [`PLACES`] answers are in memory at a time, and no more than [`LARGE`] of them are larger
//! than [`SMALL`]. Whoever has a place for a large one waits for nobody else, so that places become free again.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many answers may be read and kept at a time.
pub const PLACES: usize = 128;
/// How many of them may be large.
pub const LARGE: usize = 4;
/// How large a small one may be: some 300 entries of a listing, several times a usual page.
pub const SMALL: usize = 128 * 1024;

/// The process's room.
#[derive(Debug, Clone)]
pub struct Room {
    places: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// One tenant's part in the places for large answers: one at a time, so that no tenant has them all.
#[derive(Debug, Clone)]
pub struct Share(Arc<Semaphore>);

/// The room that an answer takes; dropping it makes room for another.
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
    large: Vec<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), large: Arc::new(Semaphore::new(LARGE)) }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Room {
    /// Waits for a place.
    pub async fn take(&self) -> Place {
        Place { _place: permit(&self.places).await, large: Vec::new() }
    }

    /// Waits until the answer in this place may become large.
    pub async fn grow(&self, place: &mut Place, share: &Share) {
        if place.large.is_empty() {
            // In this order: who waits for its own tenant's other answer keeps nobody else waiting.
            let own = permit(&share.0).await;
            place.large = vec![permit(&self.large).await, own];
        }
    }
}

#[cfg(test)]
impl Room {
    /// How many large answers there is room for.
    pub(crate) fn large_free(&self) -> usize {
        self.large.available_permits()
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(semaphore).acquire_owned().await {
        Ok(permit) => permit,
        // Nobody closes them.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;

    #[tokio::test]
    async fn no_more_answers_are_kept_than_there_is_room_for() {
        let room = Room::default();
        let mut places = Vec::new();
        for _ in 0..PLACES {
            places.push(unconstrained(room.take()).now_or_never().expect("a place is free"));
        }
        assert!(unconstrained(room.take()).now_or_never().is_none(), "one too many");
        places.pop();
        assert!(unconstrained(room.take()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn few_may_become_large_and_only_one_of_a_tenant() {
        let room = Room::default();
        let shares: Vec<_> = (0..=LARGE).map(|_| Share::default()).collect();
        let mut places = Vec::new();
        for share in &shares[..LARGE] {
            let (mut one, mut other) = (room.take().await, room.take().await);
            unconstrained(room.grow(&mut one, share)).now_or_never().expect("a large place is free");
            unconstrained(room.grow(&mut one, share)).now_or_never().expect("it has its place");
            assert!(
                unconstrained(room.grow(&mut other, share)).now_or_never().is_none(),
                "a second one of the same tenant"
            );
            places.push(one);
        }
        let mut last = room.take().await;
        assert!(unconstrained(room.grow(&mut last, &shares[LARGE])).now_or_never().is_none(), "one too many");
        places.pop();
        unconstrained(room.grow(&mut last, &shares[LARGE])).now_or_never().expect("a large place is free again");
    }
}
